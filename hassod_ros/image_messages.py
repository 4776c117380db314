"""Image messages to numpy arrays: of rclpy, or of a bag read without ROS.

cv_bridge is not needed: its builds break with NumPy 2, and it copies. Where it can be imported it reads the encodings
that are not in the table here.
"""

from __future__ import annotations

import array
from typing import Any

import cv2
import numpy as np

from hassod_ros.errors import InputError
from hassod_ros.images import read_image

MAX_SIDE = 16_384  # pixels; beyond it a header is more likely damaged than true

# encoding -> (dtype, channels, cv2 code that makes it RGB, or the order of three channels that can stay as they are)
_ENCODINGS: dict[str, tuple[str, int, int | str]] = {
    "rgb8": ("u1", 3, "RGB"),
    "bgr8": ("u1", 3, "BGR"),
    "rgba8": ("u1", 4, cv2.COLOR_RGBA2RGB),
    "bgra8": ("u1", 4, cv2.COLOR_BGRA2RGB),
    "mono8": ("u1", 1, cv2.COLOR_GRAY2RGB),
    "rgb16": ("u2", 3, "RGB"),
    "bgr16": ("u2", 3, "BGR"),
    "rgba16": ("u2", 4, cv2.COLOR_RGBA2RGB),
    "bgra16": ("u2", 4, cv2.COLOR_BGRA2RGB),
    "mono16": ("u2", 1, cv2.COLOR_GRAY2RGB),
    # Nameless channels come from OpenCV programs, which hold colours in the order BGR.
    "8uc1": ("u1", 1, cv2.COLOR_GRAY2RGB),
    "8uc3": ("u1", 3, "BGR"),
    "8uc4": ("u1", 4, cv2.COLOR_BGRA2RGB),
    "yuv422": ("u1", 2, cv2.COLOR_YUV2RGB_UYVY),
    "uyvy": ("u1", 2, cv2.COLOR_YUV2RGB_UYVY),
    "yuv422_yuy2": ("u1", 2, cv2.COLOR_YUV2RGB_YUYV),
    "yuyv": ("u1", 2, cv2.COLOR_YUV2RGB_YUYV),
    # ROS names the first two pixels of the first two rows; OpenCV's codes start one row and column later.
    "bayer_rggb8": ("u1", 1, cv2.COLOR_BayerBG2RGB),
    "bayer_bggr8": ("u1", 1, cv2.COLOR_BayerRG2RGB),
    "bayer_gbrg8": ("u1", 1, cv2.COLOR_BayerGR2RGB),
    "bayer_grbg8": ("u1", 1, cv2.COLOR_BayerGB2RGB),
    "bayer_rggb16": ("u2", 1, cv2.COLOR_BayerBG2RGB),
    "bayer_bggr16": ("u2", 1, cv2.COLOR_BayerRG2RGB),
    "bayer_gbrg16": ("u2", 1, cv2.COLOR_BayerGR2RGB),
    "bayer_grbg16": ("u2", 1, cv2.COLOR_BayerGB2RGB),
}
ENCODINGS = tuple(sorted(_ENCODINGS))
_DEPTH_ENCODINGS = frozenset({"16uc1", "32fc1", "64fc1"})


def image_to_array(message: Any) -> tuple[np.ndarray, str]:
    """(H, W, 3) uint8 pixels of a sensor_msgs/Image, and their order "RGB" or "BGR".

    Contiguous `rgb8`, `bgr8` and `8UC3` data are not copied: the array shares the message's memory, so treat it as
    read-only. 16-bit values are scaled to 8 bits (65535 -> 255), alpha is dropped, `step` padding and big-endian data
    are understood.

    Raises:
        InputError: The encoding is not a colour or grey image, or size, `step` and data do not fit together.

    """
    height, width, encoding = message.height, message.width, message.encoding
    name = encoding.lower()
    if name in _DEPTH_ENCODINGS:
        raise InputError(f"encoding {encoding} is a depth image; connect `image` to the camera's colour or grey image")
    if not 0 < height <= MAX_SIDE or not 0 < width <= MAX_SIDE:
        raise InputError(f"an image of {width} x {height} pixels cannot be read; each side must be 1 to {MAX_SIDE}")
    if name not in _ENCODINGS:
        return _read_with_cv_bridge(message), "RGB"
    kind, channels, code = _ENCODINGS[name]
    if channels == 2 and width % 2:
        raise InputError(f"a {encoding} image must have an even width, got {width}; crop a column in the camera driver")
    dtype = np.dtype(kind).newbyteorder(">" if message.is_bigendian else "<")
    row = width * channels * dtype.itemsize
    if message.step < row:
        raise InputError(
            f"step is {message.step} bytes, {width} pixels of {encoding} need {row}; fix the camera driver"
        )
    needed = message.step * (height - 1) + row  # the last row may come without its padding
    if len(message.data) < needed:
        raise InputError(
            f"the image holds {len(message.data)} bytes, {width} x {height} pixels of {encoding} with step "
            f"{message.step} need {needed}; it was cut short on the way or the driver fills it wrongly"
        )
    data = message.data if isinstance(message.data, array.array | bytes | np.ndarray) else bytes(message.data)
    pixels = np.ndarray(
        (height, width, channels), dtype, data, strides=(message.step, channels * dtype.itemsize, dtype.itemsize)
    )
    if isinstance(code, str):
        return _as_uint8(pixels), code
    if "bayer" not in name:
        return cv2.cvtColor(_as_uint8(pixels), code), "RGB"
    if min(height, width) < 4:
        raise InputError(f"a {encoding} image of {width} x {height} is too small to interpolate; 4 x 4 is the least")
    return cv2.cvtColor(_as_uint8(pixels)[..., 0], code), "RGB"


def _read_with_cv_bridge(message: Any) -> np.ndarray:
    unknown = f"encoding {message.encoding!r} is not known; use one of {', '.join(ENCODINGS)}"
    try:
        import cv_bridge.boost.cv_bridge_boost
    except Exception as error:  # a build for another NumPy fails with whatever it likes
        raise InputError(unknown) from error
    try:
        pixels = cv_bridge.CvBridge().imgmsg_to_cv2(message, "rgb8")
    except Exception as error:
        raise InputError(f"{unknown}; cv_bridge cannot read it either: {error}") from error
    return np.ascontiguousarray(pixels)


def _as_uint8(pixels: np.ndarray) -> np.ndarray:
    """Contiguous uint8 of (H, W, C) uint8 or uint16 of any byte order; no copy where it is that already."""
    if pixels.dtype.itemsize == 1:
        return np.ascontiguousarray(pixels)
    return cv2.convertScaleAbs(np.ascontiguousarray(pixels, np.uint16), alpha=255 / 65535).reshape(pixels.shape)


def compressed_to_array(message: Any) -> tuple[np.ndarray, str]:
    """(H, W, 3) uint8 pixels of a sensor_msgs/CompressedImage (jpeg, png, ...), and their order "RGB" or "BGR".

    Raises:
        InputError: The data are no image or cut short.

    """
    data = np.frombuffer(message.data, np.uint8)
    if not data.size:
        raise InputError("the compressed image is empty; check the camera driver")
    # OpenCV is several times faster than Pillow, but fills the missing half of a cut JPEG with grey and says nothing.
    if data[:2].tobytes() != b"\xff\xd8" or b"\xff\xd9" in data[-64:].tobytes():
        decoded = cv2.imdecode(data, cv2.IMREAD_COLOR)
        if decoded is not None:
            return decoded, "BGR"
    return read_image(data.tobytes()), "RGB"


def to_rgb(pixels: np.ndarray, color_order: str) -> np.ndarray:
    """The (H, W, 3) uint8 pixels in the order RGB; no copy where they are."""
    return pixels if color_order == "RGB" else cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)
