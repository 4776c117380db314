import pytest

pytest.importorskip("hassod_msgs.msg", reason="ROS 2 or hassod_msgs is missing: source scripts/env.sh")

import json

import cv2
import numpy as np
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import CameraInfo, Image

from benchmarks.rendered_scenes import CALIBRATION
from hassod_msgs.msg import InstanceArray, Object3DArray
from hassod_ros.footage.rgbd import is_rgbd, open_rgbd
from hassod_ros.nodes.messages import instance_array
from tests.nodes.objects_bench import SCENE, check

PLAYER = "hassod_ros.nodes.camera_player"


def write(folder, *, index=True):
    (folder / "rgb").mkdir()
    (folder / "depth").mkdir()
    cv2.imwrite(str(folder / "rgb" / "a.png"), np.full((480, 640, 3), 90, np.uint8))
    cv2.imwrite(str(folder / "depth" / "a.png"), np.round(SCENE.depth * 1000).astype(np.uint16))
    if index:
        (fx, fy), (cx, cy) = CALIBRATION.focal, CALIBRATION.center
        entry = {"file_name": "rgb/a.png", "depth_file": "depth/a.png", "pose_cam2world": SCENE.camera.tolist()}
        data = {"intrinsics": {"fx": fx, "fy": fy, "cx": cx, "cy": cy}, "frames": [entry]}
        (folder / "frames.json").write_text(json.dumps(data))
    return folder


def test_a_folder_with_depth_is_placed_as_a_camera_s_images_are(ros, tmp_path):
    """camera_player -> objects_3d_node, with masks by the player's stamps."""
    depth = ros.collect(Image, "/depth", qos_profile_sensor_data)
    infos = ros.collect(CameraInfo, "/depth/camera_info", qos_profile_sensor_data)
    colors = ros.collect(CameraInfo, "/camera_info", qos_profile_sensor_data)
    objects = ros.collect(Object3DArray, "/objects_3d_node/objects")
    masks = ros.node.create_publisher(InstanceArray, "/instances", 10)
    instances = SCENE.instances(table=True)

    def segment(image: Image) -> None:
        masks.publish(instance_array(instances, image.header, model_name="x", model_sha256=""))

    ros.node.create_subscription(Image, "/image", segment, qos_profile_sensor_data)
    ros.start("hassod_ros.nodes.objects_3d_node", autostart=True)
    ros.start(PLAYER, source=write(tmp_path), rate=5.0, frame_id="color")
    ros.until(lambda: len(objects) > 1 and objects[-1].objects)
    check(objects[-1])
    assert (depth[-1].encoding, depth[-1].header.frame_id) == ("16UC1", "color")
    assert colors[-1].k[0] == infos[-1].k[0] == 600.0
    pixels = np.frombuffer(depth[-1].data, "<u2").reshape(480, 640)
    np.testing.assert_allclose(pixels, SCENE.depth * 1000, atol=0.51)


def test_folders_without_an_index_and_broken_ones(tmp_path):
    folder = write(tmp_path, index=False)
    assert is_rgbd(folder)
    assert not is_rgbd(folder / "rgb")
    (shot,) = open_rgbd(folder)
    assert shot.pose is None
    assert shot.frame.info is None
    np.testing.assert_allclose(shot.frame.depth, SCENE.depth, atol=6e-4)
    said = []
    cv2.imwrite(str(folder / "rgb" / "b.png"), np.zeros((4, 4, 3), np.uint8))
    (folder / "depth" / "b.png").write_text("no image")
    assert len(list(open_rgbd(folder, say=said.append))) == 1
    assert "b.png is not a 16-bit PNG" in said[0]


@pytest.mark.parametrize(
    ("text", "words"),
    [("[", "is no index"), ('{"frames": [{}]}', "none of 1 frames"), ("{}", "is no index")],
)
def test_an_index_that_is_none_is_refused(tmp_path, text, words):
    from hassod_ros.errors import InputError

    (tmp_path / "frames.json").write_text(text)
    with pytest.raises(InputError, match=words):
        list(open_rgbd(tmp_path, say=lambda sentence: None))


def test_depth_cannot_be_resized(ros, tmp_path):
    child = ros.start(PLAYER, source=write(tmp_path), width=32, height=32)
    ros.until(lambda: child.poll() is not None)
    assert "width, height and pan_zoom are for photographs" in child.communicate()[0]
    ros.children.remove(child)


def test_the_kitchen_s_frames_come_with_their_poses(shared):
    shots = list(open_rgbd(shared / "data" / "rgbd" / "kitchen"))
    assert len(shots) == 24
    assert all(shot.pose is not None and np.isfinite(shot.frame.depth).any() for shot in shots)


def test_the_recording_of_a_realsense_has_depth_and_both_intrinsics(shared):
    pytest.importorskip("rosbags", reason="rosbags is not installed: pip install 'hassod_ros[footage]'")
    (shot, *_) = open_rgbd(shared / "data" / "bags" / "realsense_depth_color_lz4.bag", say=lambda sentence: None)
    assert shot.frame.depth is not None
    assert shot.frame.info is not None
    assert shot.frame.depth_info is not None
    assert shot.frame.info.k != shot.frame.depth_info.k
