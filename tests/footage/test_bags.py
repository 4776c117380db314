"""Whole recordings of all kinds, compared with what was written and with expected values that others computed."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from hassod_ros.errors import InputError
from hassod_ros.footage.bags import camera_messages, frames, topics
from hassod_ros.footage.kinds import bag_files, is_bag
from tests.footage.recordings import (
    COMPRESSED,
    IMAGE,
    INFO,
    ROS1,
    ROS2,
    Messages,
    camera_info,
    header,
    image,
    images,
    jpeg,
    number_of,
    picture,
    stamp_of,
    write_mcap,
    write_ros1,
    write_rosbag2,
)

BAGS = Path(os.environ.get("HASSOD_SHARED", Path(__file__).resolve().parents[3] / "shared")) / "data" / "bags"
EXPECTED = json.loads((BAGS / "expected_dev.json").read_text()) if BAGS.is_dir() else {}


@pytest.mark.skipif(not EXPECTED, reason="needs the recordings in ../shared/data/bags")
@pytest.mark.parametrize("name", EXPECTED)
def test_real_recordings_hold_what_other_readers_found(name: str) -> None:
    expected = EXPECTED[name]
    assert topics(BAGS / name) == {topic: (row["type"], row["count"]) for topic, row in expected["topics"].items()}
    rows = sorted(expected["frames"], key=lambda row: (row["topic"], row["log_time"]))
    if not rows:
        with pytest.raises(InputError, match=r"no image: .*turtle"):
            list(camera_messages(BAGS / name))
        return
    found = sorted(camera_messages(BAGS / name), key=lambda message: (message.topic, message.log_time))
    assert len(found) == len(rows)
    for row, (topic, _, log_time, stamp, message) in zip(rows, found, strict=True):
        assert (topic, log_time) == (row["topic"], row["log_time"])
        assert message.header.frame_id == row.get("frame_id", message.header.frame_id)
        if "data_sha1" in row:
            assert hashlib.sha1(bytes(message.data)).hexdigest() == row["data_sha1"]
        if isinstance(row.get("stamp"), list):
            assert stamp == (row["stamp"][0] * 10**9 + row["stamp"][1] or log_time)
        for key in {"width", "height", "encoding", "step", "format", "distortion_model"} & set(row):
            assert getattr(message, key) == row[key]
    valid = [row for row in rows if row.get("valid") and row.get("encoding") != "mono16"]
    said: list[str] = []
    if valid:
        assert [frame.pixels.shape[:2] for frame in frames(BAGS / name, say=said.append)] == [
            tuple(row.get("decoded_shape", [row.get("height"), row.get("width")])[:2]) for row in valid
        ]
    else:
        with pytest.raises(InputError, match="no picture that can be used"):
            list(frames(BAGS / name, say=said.append))
        assert sum("2 images of" in line for line in said) == 2


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
@pytest.mark.parametrize("mode", ["NONE", "MESSAGE", "FILE"])
@pytest.mark.parametrize("metadata", [True, False])
def test_rosbag2_of_every_storage_and_compression(tmp_path: Path, storage: str, mode: str, metadata: bool) -> None:
    folder = write_rosbag2(tmp_path / "bag", images(12), storage=storage, mode=mode)
    if not metadata:
        (folder / "metadata.yaml").unlink()
    assert is_bag(folder)
    said: list[str] = []
    found = list(frames(folder, say=said.append))
    assert [number_of(frame.stamp) for frame in found] == list(range(12))
    assert all(np.array_equal(frame.pixels, picture(i)) for i, frame in enumerate(found))
    assert {(frame.camera, frame.frame_id) for frame in found} == {("/camera/image_raw", "camera")}
    assert said == []


def test_parts_of_a_recording_come_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for part in (10, 9, 2):
        write_mcap(tmp_path / f"night_{part}.mcap", [("/image", IMAGE, part, image(part))])
    assert [path.name for path in bag_files(tmp_path)] == ["night_2.mcap", "night_9.mcap", "night_10.mcap"]
    assert [number_of(frame.stamp) for frame in frames(tmp_path)] == [2, 9, 10]


def test_compressed_pictures_keep_their_bytes_and_belong_to_the_raw_camera(tmp_path: Path) -> None:
    messages: Messages = [("/cam/image", IMAGE, 0, image(0)), ("/cam/image/compressed", COMPRESSED, 1, jpeg(1))]
    raw, compressed = frames(write_mcap(tmp_path / "bag.mcap", messages))
    assert raw.camera == compressed.camera == "/cam/image"
    assert raw.encoded is None
    assert compressed.encoded == bytes(messages[1][3].data)
    assert np.array_equal(compressed.pixels, cv2.imdecode(messages[1][3].data, cv2.IMREAD_COLOR)[..., ::-1])


def depth_image(number: int, encoding: str = "16UC1") -> object:
    values = np.full((48, 64), 1500 if encoding != "32FC1" else 1.5, np.uint16 if encoding != "32FC1" else np.float32)
    values[0] = 0
    return image(number, values, encoding)


@pytest.mark.parametrize("encoding", ["16UC1", "32FC1", "mono16"])
@pytest.mark.parametrize("depth_first", [True, False])
def test_depth_stands_beside_the_colour_image_of_its_time(tmp_path: Path, encoding: str, depth_first: bool) -> None:
    messages: Messages = [("/cam/color/camera_info", INFO, 0, camera_info(0))]
    for number in range(10):
        pair = [("/cam/color/image_raw", IMAGE, number, image(number))]
        if number not in (3, 4):
            pair.insert(0 if depth_first else 1, ("/cam/depth/image_raw", IMAGE, number, depth_image(number, encoding)))
        pair.append(("/webcam/image_raw", IMAGE, number, image(number)))
        messages += pair
    said: list[str] = []
    found = list(frames(write_mcap(tmp_path / "bag.mcap", messages), say=said.append))
    colour = [frame for frame in found if frame.camera == "/cam/color/image_raw"]
    assert [number_of(frame.stamp) for frame in colour] == list(range(10))
    assert [frame.depth is None for frame in colour] == [number in (3, 4) for number in range(10)]
    depth = colour[0].depth
    assert depth is not None
    assert np.isnan(depth[0]).all()
    assert np.allclose(depth[1:], 1.5)
    assert colour[0].info is not None
    assert colour[0].info.size == (48, 64)
    assert colour[0].info.k == tuple(range(9))
    assert all(frame.depth is None and frame.info is None for frame in found if frame.camera == "/webcam/image_raw")
    assert said == []


def test_compressed_depth_is_read(tmp_path: Path) -> None:
    millimetres = np.full((48, 64), 1500, np.uint16)
    png = cv2.imencode(".png", millimetres)[1].reshape(-1)
    data = np.concatenate([np.zeros(12, np.uint8), png])
    inverse = cv2.imencode(".png", np.full((48, 64), 100, np.uint16))[1].reshape(-1)
    parameters = np.array([0], "<i4").tobytes() + np.array([150, 0], "<f4").tobytes()
    quantised = np.concatenate([np.frombuffer(parameters, np.uint8), inverse])
    kind = ROS2.types[COMPRESSED]
    messages: Messages = []
    for number, (form, payload) in enumerate([("16UC1", data), ("32FC1", quantised)]):
        messages.append(("/color/image", IMAGE, number, image(number)))
        message = kind(header=header(number), format=f"{form}; compressedDepth png", data=payload)
        messages.append(("/depth/image/compressedDepth", COMPRESSED, number, message))
    for frame in frames(write_mcap(tmp_path / "bag.mcap", messages)):
        assert frame.depth is not None
        assert np.allclose(frame.depth, 1.5)


def test_depth_without_a_picture_of_its_time_is_told(tmp_path: Path) -> None:
    messages: Messages = [
        (topic, IMAGE, number, message)
        for number in range(0, 20, 2)
        for topic, number, message in (
            ("/cam/color", number, image(number)),
            ("/cam/depth", number + 1, depth_image(number + 1)),
        )
    ]
    said: list[str] = []
    found = list(frames(write_mcap(tmp_path / "bag.mcap", messages), say=said.append))
    assert len(found) == 10
    assert all(frame.depth is None for frame in found)
    assert said == [f"{tmp_path / 'bag.mcap'}: 10 of 10 depth images of /cam/depth have no image within 20 ms"]


@pytest.mark.parametrize(
    ("messages", "sentence"),
    [
        ([("/cam/depth", IMAGE, 0, depth_image(0))], "only depth"),
        ([("/cam/camera_info", INFO, 0, camera_info(0))], "no image: /cam/camera_info"),
        ([("/image", IMAGE, 0, image(0, encoding="fancy42"))], "no picture that can be used.*fancy42"),
        ([("/image", IMAGE, 0, image(0, step=7))], "step is 7"),
        ([("/image", IMAGE, 0, image(0, height=0))], "cannot be read"),
        ([], "no image: no topic at all"),
    ],
)
def test_recordings_without_a_usable_picture_say_what_they_hold(
    tmp_path: Path, messages: Messages, sentence: str
) -> None:
    path = write_mcap(tmp_path / "bag.mcap", messages)
    with pytest.raises(InputError, match=sentence):
        list(frames(path, say=lambda line: None))


def test_service_events_and_other_topics_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "bag.mcap"
    kind = "std_msgs/msg/Header"
    write_mcap(path, [("/srv/_service_event", kind, 0, header(0)), ("/image", IMAGE, 1, image(1))])
    assert [frame.camera for frame in frames(path)] == ["/image"]
    write_mcap(path, [("/srv/_service_event", kind, 0, header(0))])
    with pytest.raises(InputError, match=r"no image: /srv/_service_event \(std_msgs/msg/Header\)"):
        list(frames(path))


def test_topics_and_rate_choose_what_is_read(tmp_path: Path) -> None:
    path = write_mcap(tmp_path / "bag.mcap", images(30, "/left") + images(30, "/right"))
    said: list[str] = []
    found = list(frames(path, topics=["/right", "/wrong"], max_rate=10, say=said.append))
    assert {frame.camera for frame in found} == {"/right"}
    assert [number_of(frame.stamp) for frame in found] == list(range(0, 30, 3))
    assert said == [f"{path} has no topic /wrong"]
    with pytest.raises(InputError, match="no image of the given topics"):
        list(frames(path, topics=["/wrong"], say=said.append))


def test_a_picture_that_cannot_be_read_is_counted_and_the_others_come(tmp_path: Path) -> None:
    messages = images(5)
    messages[2] = (*messages[2][:3], image(2, step=1))
    said: list[str] = []
    found = list(frames(write_mcap(tmp_path / "bag.mcap", messages), say=said.append))
    assert [number_of(frame.stamp) for frame in found] == [0, 1, 3, 4]
    assert len(said) == 1
    assert "1 images of /camera/image_raw cannot be read (step is 1 bytes" in said[0]


def test_ros1_pictures_and_intrinsics(tmp_path: Path) -> None:
    messages: Messages = [("/cam/camera_info", INFO, 0, camera_info(0, ROS1)), *images(3, "/cam/image", ROS1)]
    found = list(frames(write_ros1(tmp_path / "bag.bag", messages)))
    assert [frame.stamp for frame in found] == [stamp_of(number) for number in range(3)]
    assert all(np.array_equal(frame.pixels, picture(i)) for i, frame in enumerate(found))
    assert found[0].info is not None
    assert found[0].info.k == tuple(range(9))


def test_memory_does_not_grow_with_the_recording(tmp_path: Path) -> None:
    pixels = np.zeros((480, 640, 3), np.uint8)
    messages: Messages = [("/image", IMAGE, number, image(number, pixels)) for number in range(400)]  # 370 MB decoded
    path = write_mcap(tmp_path / "bag.mcap", messages, chunk=4_000_000)
    program = (
        "import sys\nfrom pathlib import Path\nfrom hassod_ros.footage.bags import frames\n"
        "count = sum(1 for _ in frames(sys.argv[1]))\n"
        "(peak,) = [line for line in Path('/proc/self/status').read_text().splitlines() if line.startswith('VmHWM')]\n"
        "print(count, peak.split()[1])"  # not ru_maxrss, which begins with the memory of the process that forked
    )
    printed = subprocess.run([sys.executable, "-c", program, path], capture_output=True, text=True, check=True).stdout
    count, kilobytes = map(int, printed.split())
    assert count == 400
    assert kilobytes < 300_000
