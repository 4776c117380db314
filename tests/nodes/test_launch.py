"""Runs where launch and a colcon-built hassod_ros are installed."""

import pytest

pytest.importorskip("launch_ros", reason="launch and launch_ros are not installed; PyPI does not have them")

import os
import signal
import sys

from ament_index_python.packages import PackageNotFoundError, get_package_share_directory
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.srv import GetState

NODE = "/robot/perception_node"
PROGRAM = """
import sys
from launch import LaunchDescription, LaunchService
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
file, *arguments = sys.argv[1:]
source = PythonLaunchDescriptionSource(file)
action = IncludeLaunchDescription(source, launch_arguments=[argument.split(":=") for argument in arguments])
service = LaunchService()
service.include_launch_description(LaunchDescription([action]))
sys.exit(service.run())
"""


@pytest.fixture
def launch_file():
    try:
        return f"{get_package_share_directory('hassod_ros')}/launch/perception.launch.py"
    except PackageNotFoundError:
        pytest.skip("hassod_ros is not built by colcon here")


def test_perception_launch_activates_the_node_and_brings_a_killed_one_back(ros, launch_file):
    child = ros.run([sys.executable, "-c", PROGRAM, launch_file, "namespace:=robot", "image:=/camera/image_raw"])

    def state() -> str:
        return ros.call(GetState, f"{NODE}/get_state", GetState.Request(), 120).current_state.label

    ros.until(lambda: state() == "active", 60)
    ros.until(lambda: ros.node.count_subscribers("/camera/image_raw"))
    diagnostics = ros.collect(DiagnosticArray, "/diagnostics")
    ros.until(lambda: diagnostics)
    assert diagnostics[-1].status[0].name == f"{NODE}: segmentation"
    with open(f"/proc/{child.pid}/task/{child.pid}/children") as file:
        (node,) = (int(pid) for pid in file.read().split())
    os.kill(node, signal.SIGKILL)
    ros.until(lambda: not os.path.exists(f"/proc/{node}"))
    ros.until(lambda: ros.node.count_subscribers("/camera/image_raw") == 0, 60)
    ros.until(lambda: ros.node.count_subscribers("/camera/image_raw"), 60)
    assert state() == "active"
