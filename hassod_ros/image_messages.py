"""Image messages to numpy arrays: of rclpy, or of a bag read without ROS.

cv_bridge is not needed: its builds break with NumPy 2, and it copies. Where it can be imported it reads the encodings
that are not in the table here.
"""

from __future__ import annotations

import array
from typing import Any

import cv2
import numpy as np

from hassod_ros.compressed import MAX_SIDE, decode, source_encoding
from hassod_ros.errors import InputError
from hassod_ros.pixel_range import PixelRange

# encoding, as ROS writes it -> dtype, channels, and what makes RGB of it: a code of OpenCV, or the order of three
# channels that can stay as they are
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
    "8UC1": ("u1", 1, cv2.COLOR_GRAY2RGB),
    "8UC3": ("u1", 3, "BGR"),
    "8UC4": ("u1", 4, cv2.COLOR_BGRA2RGB),
    "yuv422": ("u1", 2, cv2.COLOR_YUV2RGB_UYVY),
    "uyvy": ("u1", 2, cv2.COLOR_YUV2RGB_UYVY),
    "yuv422_yuy2": ("u1", 2, cv2.COLOR_YUV2RGB_YUYV),
    "yuyv": ("u1", 2, cv2.COLOR_YUV2RGB_YUYV),
    # A plane of brightness, and one of pairs of colour values below it.
    "nv12": ("u1", 1, cv2.COLOR_YUV2RGB_NV12),
    "nv21": ("u1", 1, cv2.COLOR_YUV2RGB_NV21),
    "nv24": ("u1", 1, cv2.COLOR_YUV2RGB_NV12),
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
ENCODINGS = tuple(_ENCODINGS)
_LOWER_CASE = {name.lower(): name for name in ENCODINGS}  # drivers write the names either way
_DEPTH_ENCODINGS = frozenset({"16uc1", "32fc1", "64fc1"})
_CHROMA_BYTES = {"nv12": 0.5, "nv21": 0.5, "nv24": 2.0}  # per pixel, below those of the brightness


def image_to_array(message: Any, pixel_range: PixelRange | None = None) -> tuple[np.ndarray, str]:
    """(H, W, 3) uint8 pixels of a sensor_msgs/Image, and their order "RGB" or "BGR".

    Contiguous `rgb8`, `bgr8` and `8UC3` data are not copied: the array shares the message's memory, so treat it as
    read-only. Alpha is dropped, `step` padding and big-endian data are understood.

    Args:
        message: Anything with the fields of the message.
        pixel_range: Brings values of 16 bits to 8, and remembers what it has seen of this camera. Default: a new one.

    Raises:
        InputError: The encoding is not a colour or grey image, or size, `step` and data do not fit together.

    """
    height, width, encoding = message.height, message.width, message.encoding
    _refuse_depth(encoding)
    if not 0 < height <= MAX_SIDE or not 0 < width <= MAX_SIDE:
        raise InputError(f"an image of {width} x {height} pixels cannot be read; each side must be 1 to {MAX_SIDE}")
    if encoding.lower() not in _LOWER_CASE:
        return _read_with_cv_bridge(message), "RGB"
    name = _LOWER_CASE[encoding.lower()]
    kind, channels, code = _ENCODINGS[name]
    chroma = _CHROMA_BYTES.get(name, 0.0)
    if width % 2 and (channels == 2 or chroma):
        raise InputError(f"a {encoding} image must have an even width, got {width}; crop a column in the camera driver")
    if height % 2 and chroma == 0.5:
        raise InputError(f"a {encoding} image must have an even height, got {height}; crop a row in the camera driver")
    dtype = np.dtype(kind).newbyteorder(">" if message.is_bigendian else "<")
    row = width * channels * dtype.itemsize
    if message.step < row:
        raise InputError(
            f"step is {message.step} bytes, {width} pixels of {encoding} need {row}; fix the camera driver"
        )
    needed = message.step * (height - 1) + row  # the last row may come without its padding
    if chroma:
        needed = int(message.step * height * (1 + chroma))
    if len(message.data) < needed:
        raise InputError(
            f"the image holds {len(message.data)} bytes, {width} x {height} pixels of {encoding} with step "
            f"{message.step} need {needed}; it was cut short on the way or the driver fills it wrongly"
        )
    data = message.data if isinstance(message.data, array.array | bytes | np.ndarray) else bytes(message.data)
    pixels = np.ndarray(
        (height, width, channels), dtype, data, strides=(message.step, channels * dtype.itemsize, dtype.itemsize)
    )
    if chroma:
        return _read_two_planes(name, pixels[..., 0], data, message.step), "RGB"
    pixels = _as_uint8(pixels, pixel_range)
    if isinstance(code, str):
        return pixels, code
    if "bayer" in name:
        return _demosaic(pixels[..., 0], name), "RGB"
    return cv2.cvtColor(pixels, code), "RGB"


def _refuse_depth(encoding: str) -> None:
    if encoding.lower() in _DEPTH_ENCODINGS:
        raise InputError(f"encoding {encoding} is a depth image; connect `image` to the camera's colour or grey image")


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


def _read_two_planes(name: str, luma: np.ndarray, data: Any, step: int) -> np.ndarray:
    """RGB of an image whose pairs of colour values (nv12 and nv24: U V, nv21: V U) lie below its brightness."""
    height, width = luma.shape
    if name == "nv24":  # a pair for each pixel; OpenCV reads one for four
        pairs = np.ndarray((height, width, 2), np.uint8, data, offset=step * height, strides=(2 * step, 2, 1))
        chroma = cv2.resize(pairs, (width // 2, max(1, height // 2)), interpolation=cv2.INTER_AREA)
        if height % 2:
            luma = np.vstack([luma, luma[-1:]])
            chroma = cv2.resize(pairs, (width // 2, len(luma) // 2), interpolation=cv2.INTER_AREA)
    else:
        chroma = np.ndarray((height // 2, width // 2, 2), np.uint8, data, offset=step * height, strides=(step, 2, 1))
    rgb = cv2.cvtColorTwoPlane(np.ascontiguousarray(luma), np.ascontiguousarray(chroma), int(_ENCODINGS[name][2]))
    return rgb[:height]


def _as_uint8(pixels: np.ndarray, pixel_range: PixelRange | None) -> np.ndarray:
    """Contiguous uint8 of (H, W, C) uint8 or uint16 of any byte order; no copy where it is that already."""
    if pixels.dtype.itemsize == 1:
        return np.ascontiguousarray(pixels)
    return (pixel_range or PixelRange()).to_uint8(np.ascontiguousarray(pixels, np.uint16))


def _demosaic(mosaic: np.ndarray, name: str) -> np.ndarray:
    """(H, W, 3) RGB of an (H, W) uint8 Bayer mosaic."""
    height, width = mosaic.shape
    if min(height, width) < 4:
        raise InputError(f"a {name} image of {width} x {height} is too small to interpolate; 4 x 4 is the least")
    return cv2.cvtColor(mosaic, int(_ENCODINGS[name][2]))


def compressed_to_array(message: Any, pixel_range: PixelRange | None = None) -> tuple[np.ndarray, str]:
    """(H, W, 3) uint8 pixels of a sensor_msgs/CompressedImage (jpeg, png, ...), and their order "RGB" or "BGR".

    The picture is taken as the camera saw it, so that it agrees with its camera_info: an orientation in its EXIF data
    is not applied. Bayer mosaics, which image_transport compresses as they are, become colours.

    Args:
        message: Anything with the fields of the message; `format` as image_transport writes it, or only `jpeg`.
        pixel_range: As in `image_to_array`.

    Raises:
        InputError: The data are no picture, damaged, a depth image or a video, or claim a size that they cannot hold.

    """
    encoding = source_encoding(message.format)
    _refuse_depth(encoding)
    name = _LOWER_CASE.get(encoding.lower(), "")
    mosaic = "bayer" in name
    pixels = decode(message.data, message.format, color=not mosaic)
    if pixels.dtype != np.uint8:
        pixels = (pixel_range or PixelRange()).to_uint8(pixels.reshape(*pixels.shape[:2], -1))
    if mosaic and pixels.size == pixels.shape[0] * pixels.shape[1]:
        return _demosaic(pixels.reshape(pixels.shape[:2]), name), "RGB"
    if mosaic:  # the driver made colours of it before it compressed them
        pixels = np.ascontiguousarray(pixels[..., :3])
    return pixels, "BGR"


def to_rgb(pixels: np.ndarray, color_order: str) -> np.ndarray:
    """The (H, W, 3) uint8 pixels in the order RGB; no copy where they are."""
    return pixels if color_order == "RGB" else cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)
