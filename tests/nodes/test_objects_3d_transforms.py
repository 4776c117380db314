"""Runs where tf2_msgs is installed, which PyPI does not have."""

import pytest

pytest.importorskip("hassod_msgs.msg", reason="ROS 2 or hassod_msgs is missing: source scripts/env.sh")
pytest.importorskip("tf2_msgs.msg", reason="tf2_msgs is not installed; PyPI does not have it")

from dataclasses import replace

import numpy as np
from geometry_msgs.msg import TransformStamped
from rcl_interfaces.msg import Log
from rclpy.qos import DurabilityPolicy, QoSProfile
from tf2_msgs.msg import TFMessage

from benchmarks.rendered_scenes import CALIBRATION, look_at, render
from hassod_ros.geometry.transforms import quaternions
from tests.nodes.objects_bench import BOX, CAN, EYE, NODE, SCENE, Bench, check, header, matrix


def transform(parent: str, child: str, pose: np.ndarray, nanoseconds: int) -> TFMessage:
    message = TransformStamped(header=header(nanoseconds, parent), child_frame_id=child)
    place, turn = message.transform.translation, message.transform.rotation
    place.x, place.y, place.z = pose[:3, 3].tolist()
    turn.x, turn.y, turn.z, turn.w = quaternions(pose[None, :3, :3])[0].tolist()
    return TFMessage(transforms=[message])


class MovingBench(Bench):
    def __init__(self, ros, **parameters):
        super().__init__(ros, **parameters)
        latched = QoSProfile(depth=10, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self.fixed = ros.node.create_publisher(TFMessage, "/tf_static", latched)
        self.said = ros.collect(Log, "/rosout", latched)
        self.moving = ros.node.create_publisher(TFMessage, "/tf", 100)
        ros.until(lambda: self.moving.get_subscription_count() and self.fixed.get_subscription_count())


@pytest.fixture(scope="module")
def bench(module_ros):
    return MovingBench(module_ros, target_frame="map")


def test_boxes_are_in_the_world_while_the_camera_moves(bench):
    """The camera moves evenly between two transforms; at the image's stamp it is in the middle."""
    bench.watch_grasps()
    for _ in range(3):
        before, after = SCENE.camera.copy(), SCENE.camera.copy()
        before[:3, 3] -= 0.2
        after[:3, 3] += 0.2
        stamp = bench.time + 100_000_000
        bench.moving.publish(transform("map", "color", before, stamp - 20_000_000))
        bench.moving.publish(transform("map", "color", after, stamp + 20_000_000))
        answer = bench.send()
        assert (answer.header.frame_id, answer.camera_frame) == ("map", "color")
        check(answer, world=np.eye(4))
        (support,) = [support for support in answer.supports if support.id == answer.objects[0].id]
        assert abs(support.distance) < 0.002
        assert support.normal.z > 0.9999
        grasp = matrix(next(each for each in bench.grasps_of(answer) if each.id == answer.objects[1].id).pose)
        assert np.hypot(*(grasp[:2, 3] - BOX.position[:2])) < 0.05
        assert 0 < grasp[2, 3] < BOX.size[2]


def test_a_transform_that_comes_a_little_later_is_waited_for(bench):
    head = bench.publish()
    for _ in range(3):
        bench.ros.executor.spin_once(timeout_sec=0.01)
    bench.moving.publish(transform("map", "color", SCENE.camera, bench.time))
    bench.ros.until(lambda: bench.objects[-1].header.stamp == head.stamp)
    assert bench.objects[-1].header.frame_id == "map"


def test_without_a_transform_the_camera_s_frame_is_used(bench):
    bench.time += 20_000_000_000
    answer = bench.send()
    bench.ros.until(lambda: any("instead of target_frame map" in line.msg for line in bench.said))
    assert answer.header.frame_id == "color"
    check(answer)


def test_depth_of_another_camera_is_reprojected(bench):
    offset = np.eye(4)
    offset[:3, 3] = 0.05, 0.0, 0.01
    lens = replace(CALIBRATION, focal=(480.0, 480.0))
    beside = render([BOX, CAN], look_at(EYE) @ offset, lens)
    bench.fixed.publish(transform("color", "depth_optical", offset, 0))
    for _ in range(20):
        bench.ros.executor.spin_once(timeout_sec=0.02)
    answer = bench.send(depth=beside.depth, lens=lens, depth_frame="depth_optical")
    check(answer, away=0.009)
    assert bench.status()["registration"] == "reprojected from depth_optical"


def test_what_the_target_frame_is_can_be_changed(bench):
    from rcl_interfaces.srv import SetParameters
    from rclpy.parameter import Parameter

    bench.moving.publish(transform("base", "map", np.eye(4), bench.time + 100_000_000))
    bench.moving.publish(transform("map", "color", SCENE.camera, bench.time + 100_000_000))
    request = SetParameters.Request(parameters=[Parameter("target_frame", value="base").to_parameter_msg()])
    assert bench.ros.call(SetParameters, f"/{NODE}/set_parameters", request).results[0].successful
    answer = bench.send()
    assert answer.header.frame_id == "base"
    check(answer, world=np.eye(4))
