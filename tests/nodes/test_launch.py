"""Runs where launch and a colcon-built hassod_ros are installed."""

import pytest

pytest.importorskip("launch_ros", reason="launch and launch_ros are not installed; PyPI does not have them")

import os
import signal
import sys

import numpy as np
from ament_index_python.packages import PackageNotFoundError, get_package_share_directory
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from hassod_msgs.msg import InstanceArray
from hassod_ros.nodes.convert import array_to_image

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


def test_perception_launch_activates_the_node_and_brings_a_killed_one_back(ros, launch_file, model_file):
    arguments = ["namespace:=robot", "image:=/camera/image_raw", f"model:={model_file}"]
    child = ros.run([sys.executable, "-c", PROGRAM, launch_file, *arguments])
    camera = ros.node.create_publisher(Image, "/camera/image_raw", 10)
    answers = ros.collect(InstanceArray, "/robot/perception_node/instances")

    def answered() -> bool:
        camera.publish(array_to_image(np.full((48, 64, 3), 250, np.uint8), "rgb8", Header()))
        return bool(answers)

    ros.until(answered, 60)
    with open(f"/proc/{child.pid}/task/{child.pid}/children") as file:
        (node,) = (int(pid) for pid in file.read().split())
    os.kill(node, signal.SIGKILL)
    ros.until(lambda: not os.path.exists(f"/proc/{node}"))
    answers.clear()
    ros.until(answered, 60)
