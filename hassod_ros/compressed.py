"""Compressed pictures of cameras: judged before they are decoded, and seen to be whole afterwards."""

from __future__ import annotations

import io
from typing import Any

import cv2
import numpy as np
from PIL import Image

from hassod_ros.errors import InputError

MAX_SIDE = 16_384  # pixels; beyond it a header is more likely damaged than true
_MAX_PIXELS = 2**27  # of a picture: 400 MB as RGB
_MOST_PER_BYTE = {"JPEG": 1024, "PNG": 8 * 1032}  # pixels that a byte can stand for, all of one colour

_VIDEO = {
    "h264": "H.264",
    "x264": "H.264",
    "avc": "H.264",
    "h265": "H.265",
    "hevc": "H.265",
    "av1": "AV1",
    "vp9": "VP9",
}
_START_CODES = (b"\x00\x00\x00\x01", b"\x00\x00\x01")  # of H.264 and H.265

_JPEG = b"\xff\xd8"
_END = b"\xff\xd9"
_SIZE_MARKERS = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})
_SCAN = 0xDA
_NOISE = bytes(1 + i * 97 % 251 for i in range(96))  # no byte of it is 0xff, with which a marker begins
_BLOCK = 8  # rows and columns of pixels that a JPEG without its end leaves in one colour
_SIDE = 4  # rows and columns of the last block that are looked at
_SEQUENTIAL = frozenset({0xC0, 0xC1})  # size markers of JPEGs whose pixels come in one go, from the top to the end
_KEPT_ZEROS = 4  # of those behind a JPEG without an end, in case they are its own


def source_encoding(format_: str) -> str:
    """The encoding that a picture had before it was compressed: "bgr8" of "bgr8; jpeg compressed bgr8", or ""."""
    encoding, semicolon, _ = format_.partition(";")
    return encoding.strip() if semicolon else ""


def decode(data: Any, format_: str = "", *, color: bool = True) -> np.ndarray:
    """Pixels of a compressed picture, without regard to an orientation in its EXIF data.

    Args:
        data: Bytes, or a buffer of them.
        format_: As in sensor_msgs/CompressedImage.
        color: Make three channels of a grey picture, and drop alpha.

    Returns:
        (H, W, 3) in the order BGR, or without `color` (H, W) or (H, W, C) as it is stored; uint8 or uint16.

    Raises:
        InputError: No picture, a damaged one, a depth image, a video, or one too large to be true.

    """
    content = bytes(memoryview(data).cast("B")) if not isinstance(data, bytes | list) else bytes(data)
    if not content:
        raise InputError("the compressed image is empty; check the camera driver")
    _refuse_format(content, format_)
    flags = cv2.IMREAD_ANYDEPTH | cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION if color else cv2.IMREAD_UNCHANGED
    if content.startswith(_JPEG):
        (height, width), scan, kind = _read_jpeg_header(content)
        _refuse_size(height, width, len(content), "JPEG")
        return _decode_jpeg(content, scan, kind in _SEQUENTIAL, flags)
    try:
        with Image.open(io.BytesIO(content)) as file:  # reads the header only
            _refuse_size(file.height, file.width, len(content), file.format or "")
    except Image.DecompressionBombError as error:
        raise InputError(f"the compressed image is too large to be true ({error}); its header is damaged") from error
    except (OSError, SyntaxError, ValueError) as error:
        raise InputError(f"the compressed image is no picture that can be read, or damaged ({error})") from error
    return _imdecode(content, flags)


def _refuse_format(content: bytes, format_: str) -> None:
    text = format_.lower().replace(".", "")
    if "compresseddepth" in text:
        raise InputError(f"format {format_!r} is a depth image; connect `image` to the camera's colour or grey image")
    video = next((name for word, name in _VIDEO.items() if word in text), "")
    if not video and content.startswith(_START_CODES):
        video = "H.264 or H.265"
    if video:
        raise InputError(
            f"the compressed images are {video} video (format {format_!r}), whose pictures cannot be read one by one; "
            "decode it first, for example with `ros2 run image_transport republish ffmpeg raw`"
        )


def _refuse_size(height: int, width: int, count: int, kind: str) -> None:
    if not 0 < height <= MAX_SIDE or not 0 < width <= MAX_SIDE or height * width > _MAX_PIXELS:
        raise InputError(
            f"the compressed image claims {width} x {height} pixels; each side must be 1 to {MAX_SIDE}, and their "
            f"product at most {_MAX_PIXELS // 10**6} million: its header is damaged"
        )
    if height * width > count * _MOST_PER_BYTE.get(kind, _MAX_PIXELS):
        raise InputError(f"{count} bytes of {kind} cannot hold {width} x {height} pixels: its header is damaged")


def _imdecode(content: bytes, flags: int) -> np.ndarray:
    try:
        pixels = cv2.imdecode(np.frombuffer(content, np.uint8), flags)
    except cv2.error as error:
        raise InputError(f"the compressed image is damaged ({error.err or error})") from error
    if pixels is None:
        raise InputError(
            "the compressed image is damaged, or of a kind that OpenCV does not read; jpeg and png are safe"
        )
    return pixels


def _read_jpeg_header(content: bytes) -> tuple[tuple[int, int], int, int]:
    """(height, width) that a JPEG claims, where its first scan begins, and the marker that tells its kind."""
    size, kind, place = None, 0, len(_JPEG)
    while place + 4 <= len(content) and content[place] == 0xFF:
        marker = content[place + 1]
        if marker == 0xFF:  # a marker may be filled up in front
            place += 1
            continue
        if marker in _SIZE_MARKERS:
            kind, size = (
                marker,
                (
                    int.from_bytes(content[place + 5 : place + 7], "big"),
                    int.from_bytes(content[place + 7 : place + 9], "big"),
                ),
            )
        place += 2 + int.from_bytes(content[place + 2 : place + 4], "big")
        if marker == _SCAN and size:
            return size, place, kind
    raise InputError("the compressed image is a JPEG whose header is damaged or cut short; check the camera driver")


def _decode_jpeg(content: bytes, scan: int, sequential: bool, flags: int) -> np.ndarray:
    """Pixels of a JPEG that is seen to be whole: decoders say nothing where data are missing and invent the rest.

    What they invent is of one colour. Looking closer costs more than decoding, and is left out where the last pixels
    differ; of a progressive JPEG every pixel can be there without all of its data.
    """
    end = content.rfind(_END, scan)
    if end >= 0:
        body = content[:end]
    else:  # drivers with a buffer of fixed size fill it up with zeros; others forget the end marker
        body = content.rstrip(b"\x00")
        body = content[: min(len(content), len(body) + _KEPT_ZEROS)]
    pixels = _imdecode(body + _END, flags)
    last = pixels[-_BLOCK:] if end >= 0 else _last_corner(pixels)
    if (end < 0 and not sequential) or not last.size or (last == last[0, 0]).all():
        _refuse_cut(body)
    return pixels


def _last_corner(pixels: np.ndarray) -> np.ndarray:
    """Pixels of the last block that take no colour from the blocks beside it, as its first row and column do."""
    rows, columns = (min(_SIDE, (side - 1) % _BLOCK) for side in pixels.shape[:2])
    return pixels[len(pixels) - rows :, pixels.shape[1] - columns :]


def _refuse_cut(body: bytes) -> None:
    """Raise InputError where a JPEG without its end marker lacks more than that.

    Bytes that do not belong to the picture, put before its end, change it only if the decoder still waited for some.
    Pillow decodes at an eighth of the size, and without a word on stderr about these bytes.
    """
    try:
        plain, disturbed = (_decode_small(body + tail) for tail in (_END, _NOISE + _END))
    except (OSError, ValueError) as error:
        raise InputError(f"the compressed image is a damaged JPEG ({error}); check the camera driver") from error
    if not np.array_equal(plain, disturbed):
        raise InputError("the compressed image is a JPEG that was cut short; check camera driver and network")


def _decode_small(content: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(content)) as file:
        file.draft(file.mode, (file.width // 8, file.height // 8))
        return np.asarray(file)
