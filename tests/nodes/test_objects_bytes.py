import numpy as np
import pytest

pytest.importorskip("hassod_msgs.msg", reason="ROS 2 or hassod_msgs is missing: source scripts/env.sh")

from rclpy.serialization import deserialize_message, serialize_message
from std_msgs.msg import Header

from benchmarks.rendered_scenes import random_scene
from hassod_msgs.msg import Object3DArray
from hassod_ros.geometry.objects import locate
from hassod_ros.geometry.transforms import matrix
from hassod_ros.instances import Instances
from hassod_ros.nodes.objects_bytes import object_bytes
from hassod_ros.nodes.objects_messages import Located

MOVE = matrix((0.3, -0.2, 1.1), (0.1, 0.5, -0.3, 0.8))
ALL = ["whole", "part", "subpart"]


def located(count=4, *, frame="map", camera="color", levels=ALL, depth=True) -> Located:
    scene = random_scene(np.random.default_rng(count), count=count)
    instances = scene.instances(table=True)
    if not count:
        instances = Instances.empty(scene.ids.shape)
    placed = locate(instances, scene.depth * np.float32(depth), scene.rays)
    header = Header(frame_id=frame)
    header.stamp.sec, header.stamp.nanosec = 12, 345
    return Located(header, Header(frame_id=camera), MOVE, instances, placed, None, {"levels": levels}, 0.0)


@pytest.mark.parametrize("frame", ["", "a", "ab", "map", "base", "odom2", "camera", "optical"])  # all paddings
def test_what_is_written_is_the_message(frame):
    result = located(frame=frame, camera=frame[1:])
    written = object_bytes(result)
    read = deserialize_message(written, Object3DArray)
    assert len(serialize_message(read)) == len(written)  # what lies between the numbers may differ
    assert (read.header, read.camera_frame) == (result.header, frame[1:])
    objects = result.scene.objects
    assert len(read.objects) == len(objects) > 3
    assert len(read.supports) == len(result.scene.grid.planes) > 0
    for k, each in enumerate(read.objects):
        assert each.id == result.ids[k]
        assert each.parent_id == (result.ids[objects.parents[k]] if objects.parents[k] >= 0 else 0)
        assert (each.level, each.flags, each.points) == (objects.levels[k], objects.flags[k], objects.counts[k])
        assert (each.is_support, each.support) == (objects.is_support[k], objects.supports[k])
        assert each.score == pytest.approx(result.instances.scores[objects.index[k]])
        assert each.coverage == pytest.approx(objects.coverage[k])
        assert each.pose == result.poses[k]
        np.testing.assert_allclose(vector(each.size), objects.sizes[k])
        np.testing.assert_allclose(vector(each.centroid), MOVE[:3, :3] @ objects.centroids[k] + MOVE[:3, 3])
        np.testing.assert_allclose(vector(each.normal), MOVE[:3, :3] @ objects.normals[k])
    for plane, each in zip(result.scene.grid.planes, read.supports, strict=True):
        np.testing.assert_allclose(vector(each.normal), MOVE[:3, :3] @ plane.normal)
        # The middle lies on the plane, also after the motion.
        assert vector(each.normal) @ vector(each.pose.position) == pytest.approx(each.distance, abs=1e-3)
        assert 0 < min(each.size_x, each.size_y) <= max(each.size_x, each.size_y) < 3


def vector(message) -> np.ndarray:
    return np.array([message.x, message.y, message.z])


def test_nothing_is_a_message_too():
    read = deserialize_message(object_bytes(located(depth=False)), Object3DArray)
    assert (read.objects, read.supports) == ([], [])
    read = deserialize_message(object_bytes(located(0)), Object3DArray)
    assert read.objects == []
    assert read.supports


def test_only_the_levels_that_are_asked_for():
    result = located(levels=["part"])
    read = deserialize_message(object_bytes(result), Object3DArray)
    assert all(each.level == 1 or each.is_support for each in read.objects)
    assert len(read.objects) < len(result.scene.objects)
