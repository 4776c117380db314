import pytest

pytest.importorskip("sensor_msgs.msg", reason="ROS 2 is missing: source scripts/env.sh")

import struct

import numpy as np
from builtin_interfaces.msg import Time
from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from hassod_ros.nodes import image_bytes
from hassod_ros.nodes.convert import array_to_image
from hassod_ros.nodes.image_bytes import SentCompressedImage, SentImage, read_image


@pytest.mark.parametrize("frame", ["", "a", "ab", "abc", "abcd", "camera_größe"])
@pytest.mark.parametrize("encoding", ["", "rgb8", "mono8", "yuv422_yuy2"])
@pytest.mark.parametrize("count", [0, 1, 7])
def test_an_image_is_read_as_rclpy_reads_it(frame, encoding, count):
    message = Image(height=2**32 - 1, width=3, encoding=encoding, is_bigendian=1, step=9)
    message.header = Header(stamp=Time(sec=-5, nanosec=4_000_000_000), frame_id=frame)
    message.data = np.arange(count, dtype=np.uint8)
    found = read_image(Image, serialize_message(message))
    assert isinstance(found, SentImage)
    for name in ("header", "height", "width", "encoding", "is_bigendian", "step"):
        assert getattr(found, name) == getattr(message, name)
    assert found.data.tolist() == message.data.tolist()
    compressed = CompressedImage(header=message.header, format=encoding, data=message.data)
    found = read_image(CompressedImage, serialize_message(compressed))
    assert isinstance(found, SentCompressedImage)
    assert (found.header, found.format, found.data.tolist()) == (message.header, encoding, message.data.tolist())


def test_the_other_order_of_bytes():
    text = struct.pack(">I", 5) + b"rgb8\0"
    sent = b"\0\0\0\0" + struct.pack(">iII", 7, 8, 2) + b"a\0\0\0" + struct.pack(">II", 1, 2) + text
    sent += b"\1" + bytes(2) + struct.pack(">II", 6, 6) + bytes(range(6))
    found = read_image(Image, sent)
    assert found.header == Header(stamp=Time(sec=7, nanosec=8), frame_id="a")
    assert (found.height, found.width, found.encoding, found.is_bigendian, found.step) == (1, 2, "rgb8", 1, 6)
    assert found.data.tolist() == list(range(6))


def test_another_layout_is_left_to_rclpy(monkeypatch):
    asked = []
    monkeypatch.setattr(image_bytes, "deserialize_message", lambda *given: asked.append(given))
    read_image(Image, b"\0\7\0\0rest")
    assert asked == [(b"\0\7\0\0rest", Image)]


def test_the_pixels_are_not_copied():
    sent = serialize_message(Image(data=np.full(1000, 7, np.uint8)))
    assert np.shares_memory(read_image(Image, sent).data, np.frombuffer(sent, np.uint8))


@pytest.mark.parametrize("frame", ["", "ab", "camera"])
@pytest.mark.parametrize(
    ("encoding", "pixels"),
    [
        ("16UC1", np.arange(70, dtype=np.uint16).reshape(7, 10)),
        ("rgb8", np.arange(105, dtype=np.uint8).reshape(5, 7, 3)),
        ("mono8", np.arange(24, dtype=np.uint8).reshape(4, 6)[:, ::2]),
    ],
)
def test_an_image_is_written_as_rclpy_writes_it(encoding, pixels, frame):
    header = Header(stamp=Time(sec=-5, nanosec=6), frame_id=frame)
    message = array_to_image(pixels, encoding, header)
    written = image_bytes.image_bytes(pixels, encoding, header)
    assert deserialize_message(written, Image) == message
    assert len(written) == len(serialize_message(message))
    with pytest.raises(ValueError, match="is not an image of encoding"):
        image_bytes.image_bytes(pixels.astype(np.float32), encoding, header)
