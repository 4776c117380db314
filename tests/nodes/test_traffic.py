"""Cameras and subscribers that do not keep step with each other."""

import pytest

pytest.importorskip("hassod_msgs.msg", reason="ROS 2 or hassod_msgs is missing: source scripts/env.sh")

import sys

import cv2
import numpy as np
from diagnostic_msgs.msg import DiagnosticArray

from hassod_msgs.msg import InstanceArray

NODE = "perception_node"
SUBSCRIBER = f"""
import rclpy
from hassod_msgs.msg import InstanceArray
rclpy.init()
node = rclpy.create_node("victim")
node.create_subscription(InstanceArray, "/{NODE}/instances", lambda _: print("received", flush=True), 10)
rclpy.spin(node)
"""


@pytest.fixture
def picture(tmp_path):
    pixels = np.zeros((96, 128, 3), np.uint8)
    pixels[16:80, 16:112] = 140
    cv2.imwrite(str(tmp_path / "picture.png"), pixels)
    return tmp_path


def test_a_slow_camera_is_not_pushed_aside_by_a_fast_one(ros, picture):
    ros.start("threshold_node.py", model="threshold:0.05", autostart=True, cameras="[fast, slow]")
    answers = {name: ros.collect(InstanceArray, f"/{NODE}/{name}/instances", 50) for name in ("fast", "slow")}
    diagnostics = ros.collect(DiagnosticArray, "/diagnostics")
    for name, rate in (("fast", 60.0), ("slow", 4.0)):
        player = [sys.executable, "-m", "hassod_ros.nodes.camera_player", "--ros-args", "-r", f"__node:={name}_player"]
        parameters = {"source": picture, "rate": rate, "frame_id": name}
        for key, value in parameters.items():
            player += ["-p", f"{key}:={value}"]
        ros.run([*player, "-r", f"image:={name}/image", "-r", f"camera_info:={name}/camera_info"])
    ros.until(lambda: len(answers["slow"]) >= 15, 120)

    def counts(name: str) -> "dict[str, int] | None":
        found = [s for array in diagnostics for s in array.status if s.name == f"/{NODE}: {name}"]
        figures = {value.key: value.value for value in found[-1].values} if found else {}
        keys = ("received", "processed", "dropped.superseded")
        return {key: int(figures.get(key, 0)) for key in keys} if figures else None

    ros.until(lambda: (counts("slow") or {}).get("processed", 0) >= 15, 60)
    share = {name: counts(name)["processed"] / counts(name)["received"] for name in answers}
    assert counts("fast")["dropped.superseded"] > 0
    assert share["slow"] > 2 * share["fast"]
    for name, received in answers.items():
        assert {answer.header.frame_id for answer in received} == {name}


def test_a_subscriber_that_is_killed_does_not_stop_the_others(ros, picture):
    ros.start("threshold_node.py", model="threshold", autostart=True)
    ros.start("hassod_ros.nodes.camera_player", source=picture, rate=20.0)
    victim = ros.run([sys.executable, "-c", SUBSCRIBER])
    answers = ros.collect(InstanceArray, f"/{NODE}/instances")
    assert victim.stdout.readline() == "received\n"
    ros.until(lambda: answers, 60)
    victim.kill()
    victim.communicate()
    answers.clear()
    ros.until(lambda: len(answers) > 40, 60)
