"""objects_3d_node on recordings of real cameras, played as they were taken or on their own clock."""

import pytest

pytest.importorskip("hassod_msgs.msg", reason="ROS 2 or hassod_msgs is missing: source scripts/env.sh")

import importlib.util

import numpy as np
from rclpy.qos import qos_profile_sensor_data
from rclpy.serialization import deserialize_message, serialize_message
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, Image

from hassod_msgs.msg import InstanceArray, Object3DArray
from hassod_ros.instances import Instances
from hassod_ros.nodes.messages import instance_array
from tests.nodes.objects_bench import NODE, SCENE, Bench, camera_info, check, depth_image, header


def play(ros, source, **parameters) -> list[Object3DArray]:
    """camera_player -> a segmenter that takes the middle of the picture -> objects_3d_node; grows."""
    objects = ros.collect(Object3DArray, f"/{NODE}/objects", 50)
    masks = ros.node.create_publisher(InstanceArray, "/instances", 10)

    def segment(image: Image) -> None:
        middle = np.zeros((1, image.height, image.width), bool)
        middle[:, image.height // 3 : -image.height // 3, image.width // 3 : -image.width // 3] = True
        found = Instances.from_dense(middle, image_size=middle.shape[1:], ids=np.array([7]))
        masks.publish(instance_array(found, image.header, model_name="x", model_sha256=""))

    ros.node.create_subscription(Image, "/image", segment, qos_profile_sensor_data)
    # Both at once: the recording begins again until enough has been seen of it.
    ros.start("hassod_ros.nodes.objects_3d_node", autostart=True, max_depth=5.0, **parameters)
    ros.start("hassod_ros.nodes.camera_player", source=source, rate=15.0, loop=True)
    return objects


def test_a_kitchen_seen_from_many_places_is_one_in_the_world(ros, shared):
    transforms = importlib.util.find_spec("tf2_msgs") is not None
    objects = play(ros, shared / "data" / "rgbd" / "kitchen", **({"target_frame": "map"} if transforms else {}))
    frame = "map" if transforms else "camera"

    def seen() -> list[Object3DArray]:  # the first images may come before their transforms
        return [answer for answer in objects if answer.header.frame_id == frame and answer.supports]

    ros.until(lambda: len(seen()) >= 12)
    for answer in seen():
        assert all(each.points > 0 and min(each.size_x, each.size_y) > 0 for each in answer.supports)
        for each in answer.objects:
            assert each.id == 7
            assert 0 < min(each.size.x, each.size.y, each.size.z) <= max(each.size.x, each.size.y, each.size.z) < 6
    if not transforms:
        return
    found = [
        (k, np.array([each.normal.x, each.normal.y, each.normal.z]), each.distance)
        for k, answer in enumerate(seen())
        for each in answer.supports
        if each.points > 16_000
    ]
    # The same plane from two places: nearly one normal and one distance.
    angles = [
        np.degrees(np.arccos(np.clip(a @ b, -1, 1)))
        for i, a, near in found
        for j, b, far in found
        if i < j and a @ b > 0.9 and abs(near - far) < 0.1
    ]
    assert len(angles) > 10
    assert np.median(angles) <= 2


def test_a_realsense_s_recording_is_brought_onto_its_image(ros, shared):
    """Colour and depth of different lenses, whose frame_id is the same."""
    pytest.importorskip("rosbags", reason="rosbags is not installed: pip install 'hassod_ros[footage]'")
    depths = ros.collect(Image, "/depth", qos_profile_sensor_data)
    objects = play(ros, shared / "data" / "bags" / "realsense_depth_color_lz4.bag")
    ros.until(lambda: depths and any(answer.objects for answer in objects))
    (found,) = next(answer for answer in objects if answer.objects).objects
    pixels = np.frombuffer(depths[0].data, "<u2")
    low, high = np.percentile(pixels[pixels > 0], [1, 99]) / 1000
    assert low < found.centroid.z < high
    assert found.coverage > 0.3
    across = found.centroid.z / 3  # a third of a view of some 60 degrees
    assert 0.3 * across < found.size.x < 6 * across


def test_a_recording_is_replayed_on_its_own_clock_again_and_again(ros, tmp_path):
    """As `ros2 bag play --clock --loop`: /clock comes from the recording, and goes back with it."""
    pytest.importorskip("rosbags", reason="rosbags is not installed: pip install 'hassod_ros[footage]'")
    from rosbags.rosbag2 import Reader, Writer
    from rosbags.typesys import Stores, get_typestore

    kinds = {"/camera_info": CameraInfo, "/depth/camera_info": CameraInfo, "/depth": Image}
    store = get_typestore(Stores.ROS2_HUMBLE)
    stamps = [1_000_000_000_000 + k * 200_000_000 for k in range(5)]
    with Writer(tmp_path / "bag", version=9) as bag:
        places = {
            topic: bag.add_connection(topic, f"sensor_msgs/msg/{kind.__name__}", typestore=store)
            for topic, kind in kinds.items()
        }
        for stamp in stamps:
            head = header(stamp)
            info = serialize_message(camera_info(head))
            bag.write(places["/camera_info"], stamp, info)
            bag.write(places["/depth/camera_info"], stamp, info)
            bag.write(places["/depth"], stamp, serialize_message(depth_image(SCENE.depth, head)))
    clock = ros.node.create_publisher(Clock, "/clock", 10)
    bench = Bench(ros, use_sim_time=True)
    send = {"/camera_info": bench.info, "/depth/camera_info": bench.depth_info, "/depth": bench.depth}
    for _ in range(2):
        with Reader(tmp_path / "bag") as bag:
            for connection, stamp, data in bag.messages():
                clock.publish(Clock(clock=header(stamp).stamp))
                send[connection.topic].publish(deserialize_message(data, kinds[connection.topic]))
                if connection.topic == "/depth":
                    before, head = len(bench.objects), header(stamp)
                    bench.instances.publish(
                        instance_array(SCENE.instances(table=True), head, model_name="x", model_sha256="")
                    )
                    ros.until(lambda before=before: len(bench.objects) > before)
                    assert bench.objects[-1].header == head
                    check(bench.objects[-1])
    # The node's own clock is the recording's.
    before = len(bench.diagnostics)
    ros.until(lambda: len(bench.diagnostics) > before)
    assert abs(bench.diagnostics[-1].header.stamp.sec - stamps[-1] // 1_000_000_000) <= 1
