import pytest

pytest.importorskip("hassod_msgs.msg", reason="ROS 2 or hassod_msgs is missing: source scripts/env.sh")

import os
from pathlib import Path

import cv2
import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.parameter import Parameter
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import CameraInfo, Image

from hassod_ros.errors import InputError
from hassod_ros.nodes.camera_player import CameraPlayer
from hassod_ros.nodes.convert import image_to_array

PLAYER = "hassod_ros.nodes.camera_player"


@pytest.fixture
def folder(tmp_path):
    for i, value in enumerate((10, 120, 240)):
        picture = np.full((40, 60, 3), value, np.uint8)
        picture[:, :30, 2] = 0  # no red on the left
        cv2.imwrite(str(tmp_path / f"{i}.png"), picture)
    return tmp_path


def test_plays_a_folder_once_as_a_camera_and_ends(ros, folder):
    (folder / "1b.png").write_text("not an image")
    images = ros.collect(Image, "/image", qos_profile_sensor_data)
    infos = ros.collect(CameraInfo, "/camera_info", qos_profile_sensor_data)
    diagnostics = ros.collect(DiagnosticArray, "/diagnostics")
    child = ros.start(PLAYER, source=folder, loop=False, rate=20.0, wait=True, encoding="bgr8", frame_id="front")
    ros.until(lambda: child.poll() is not None)
    printed = ros.stop(child)
    assert child.returncode == 0
    assert "1b.png is not an image that can be read" in printed
    assert "finished after 3 images" in printed
    assert [int(np.frombuffer(image.data, np.uint8)[0]) for image in images] == [10, 120, 240]
    assert image_to_array(images[0])[0][0, 0].tolist() == [10, 10, 0]
    assert (images[0].encoding, images[0].height, images[0].width, images[0].step) == ("bgr8", 40, 60, 180)
    assert [info.header for info in infos] == [image.header for image in images]
    assert images[0].header.frame_id == "front"
    stamps = [image.header.stamp.sec + image.header.stamp.nanosec * 1e-9 for image in images]
    assert stamps == sorted(set(stamps))
    info = infos[0]
    assert (info.width, info.height, info.distortion_model) == (60, 40, "plumb_bob")
    assert info.k[0] == pytest.approx(30 / np.tan(np.radians(30)))
    assert diagnostics[-1].status[0].values[0].value == "3"
    assert diagnostics[-1].status[0].message == "finished"


def test_loops_and_resizes(ros, folder):
    images = ros.collect(Image, "/image", 20)
    child = ros.start(
        PLAYER, source=folder, rate=50.0, wait=True, width=32, height=32, encoding="mono8", reliability="reliable"
    )
    ros.until(lambda: len(images) >= 7)
    ros.stop(child)
    assert child.returncode == 0
    assert {(image.height, image.width, image.step) for image in images} == {(32, 32, 32)}
    centre = [int(np.frombuffer(image.data, np.uint8)[-1]) for image in images]
    assert centre[:7] == [10, 120, 240, 10, 120, 240, 10]


@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [
        ({}, "the parameter source is empty; name a folder of images or a video"),
        ({"source": "/nowhere"}, "/nowhere does not exist"),
        ({"source": "/nowhere.mp4"}, "/nowhere.mp4 does not exist"),
        ({"source": "FOLDER", "width": 5}, "only one of width and height is given"),
        ({"source": "FOLDER", "encoding": "jpeg"}, "encoding cannot hold 'jpeg'; use rgb8, bgr8, mono8"),
        ({"source": "FOLDER", "rate": 0.0}, "parameter rate is wrong"),
        ({"source": "FOLDER", "rate": "fast"}, "parameter rate is wrong.*rate must be a number, not 'fast'"),
    ],
)
def test_wrong_options_are_refused_with_a_sentence(module_ros, folder, parameters, sentence):
    overrides = [
        Parameter(name, value=str(folder) if value == "FOLDER" else value) for name, value in parameters.items()
    ]
    with pytest.raises(InputError, match=sentence):
        CameraPlayer(context=module_ros.context, parameter_overrides=overrides)


def test_a_source_may_lie_in_the_home(module_ros, folder, monkeypatch):
    monkeypatch.setenv("HOME", str(folder.parent))
    player = CameraPlayer(
        context=module_ros.context, parameter_overrides=[Parameter("source", value=f"~/{folder.name}")]
    )
    player.destroy_node()


def test_a_picture_whose_name_is_not_utf8_is_warned_of(module_ros, tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), np.full((40, 40, 3), 9, np.uint8))
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xe9.png")).write_bytes(b"")
    player = CameraPlayer(context=module_ros.context, parameter_overrides=[Parameter("source", value=str(tmp_path))])
    list(zip(range(2), player._frames, strict=False))
    player.destroy_node()


def test_an_empty_folder_ends_the_start_with_a_sentence(ros, tmp_path):
    child = ros.start(PLAYER, source=tmp_path)
    printed = child.communicate(timeout=20)[0]
    assert child.returncode == 2
    assert "holds no image" in printed.splitlines()[-1]
    assert "Traceback" not in printed
