"""What our conversion shares with cv_bridge; runs where cv_bridge is installed and can be imported."""

import pytest

pytest.importorskip("sensor_msgs.msg", reason="ROS 2 is missing: source scripts/env.sh")
pytest.importorskip(
    "cv_bridge.boost.cv_bridge_boost", reason="cv_bridge is not installed, or not for this NumPy", exc_type=ImportError
)

import numpy as np
from cv_bridge import CvBridge, CvBridgeError
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from hassod_ros.errors import InputError
from hassod_ros.nodes.convert import array_to_image, image_to_array, to_rgb

HEIGHT, WIDTH = 24, 32
# encoding -> channels, dtype, greatest difference: we scale 16-bit mosaics to 8 bits before they are interpolated.
SHARED = {
    "rgb8": (3, "u1", 0),
    "bgr8": (3, "u1", 0),
    "rgba8": (4, "u1", 0),
    "bgra8": (4, "u1", 0),
    "mono8": (1, "u1", 0),
    "rgb16": (3, "u2", 0),
    "bgr16": (3, "u2", 0),
    "rgba16": (4, "u2", 0),
    "bgra16": (4, "u2", 0),
    "mono16": (1, "u2", 0),
    "8UC3": (3, "u1", 0),
    "yuv422": (2, "u1", 0),
    "yuv422_yuy2": (2, "u1", 0),
    **{f"bayer_{pattern}8": (1, "u1", 0) for pattern in ("rggb", "bggr", "gbrg", "grbg")},
    **{f"bayer_{pattern}16": (1, "u2", 1) for pattern in ("rggb", "bggr", "gbrg", "grbg")},
}


def message(encoding: str, padding: int = 0) -> Image:
    channels, dtype, _ = SHARED[encoding]
    item = np.dtype(dtype).itemsize
    data = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH * channels * item + padding), np.uint8)
    image = Image(height=HEIGHT, width=WIDTH, encoding=encoding, step=data.shape[1])
    image.data.frombytes(data.tobytes())
    return image


@pytest.mark.parametrize("encoding", SHARED)
def test_colours_are_those_of_cv_bridge(encoding):
    image = message(encoding)
    # It converts no nameless channels; programs that pass them on take them as OpenCV's BGR.
    theirs = CvBridge().imgmsg_to_cv2(image, "passthrough" if encoding == "8UC3" else "bgr8")
    ours = to_rgb(*image_to_array(image))[..., ::-1]
    np.testing.assert_allclose(ours.astype(int), theirs.astype(int), rtol=0, atol=SHARED[encoding][2])


@pytest.mark.parametrize("encoding", ["rgb8", "mono8", "bgra8", "mono16"])
def test_padding_is_that_of_cv_bridge(encoding):
    channels, dtype, _ = SHARED[encoding]
    image = message(encoding, padding=2 * channels * np.dtype(dtype).itemsize)  # cv_bridge wants whole pixels
    theirs = CvBridge().imgmsg_to_cv2(image, "bgr8")
    np.testing.assert_array_equal(to_rgb(*image_to_array(image))[..., ::-1], theirs)


@pytest.mark.parametrize("encoding", ["rgb8", "bgr8", "mono8", "mono16", "16UC1"])
def test_our_messages_are_theirs(encoding):
    dtype = np.uint16 if "16" in encoding else np.uint8
    shape = (HEIGHT, WIDTH, 3) if encoding in ("rgb8", "bgr8") else (HEIGHT, WIDTH)
    pixels = np.random.default_rng(1).integers(0, np.iinfo(dtype).max + 1, shape, dtype)
    header = Header(frame_id="here")
    assert array_to_image(pixels, encoding, header) == CvBridge().cv2_to_imgmsg(pixels, encoding, header)


@pytest.mark.parametrize("encoding", ["16UC1", "32FC1", "rgb9", ""])
def test_both_refuse_what_is_no_picture(encoding):
    image = Image(height=HEIGHT, width=WIDTH, encoding=encoding, step=WIDTH * 4)
    image.data.frombytes(bytes(HEIGHT * WIDTH * 4))
    with pytest.raises(CvBridgeError):
        CvBridge().imgmsg_to_cv2(image, "bgr8")
    with pytest.raises(InputError):
        image_to_array(image)
