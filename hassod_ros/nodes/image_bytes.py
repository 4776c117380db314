"""`sensor_msgs/Image` read and written straight as it is sent, and `CompressedImage` read: pixels stay where they are.

rclpy makes Python objects of every message before anybody can look at it: milliseconds for an image of 1920x1080, which
is then dropped because a newer one came. What is of another layout than that of `cdr` is left to rclpy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from hassod_ros.nodes.cdr import FRONT, Reader, header_bytes, number_bytes, padded, text_bytes
from hassod_ros.nodes.convert import check_layout

_ORDERS = {b"\0\0": ">", b"\0\1": "<"}  # by the first two bytes of what stands in front of a message


@dataclass(frozen=True)
class SentImage:
    """The fields of sensor_msgs/Image; `data` is (n,) uint8, to be read only."""

    header: Header
    height: int
    width: int
    encoding: str
    is_bigendian: int
    step: int
    data: np.ndarray


@dataclass(frozen=True)
class SentCompressedImage:
    """The fields of sensor_msgs/CompressedImage; `data` is (n,) uint8, to be read only."""

    header: Header
    format: str
    data: np.ndarray


AnyImage: TypeAlias = Image | CompressedImage | SentImage | SentCompressedImage


def read_image(kind: type, sent: bytes) -> AnyImage:
    """The message that a raw subscription received.

    Args:
        kind: Image or CompressedImage of sensor_msgs.
        sent: As rclpy gives it; its memory becomes that of `data`.

    """
    order = _ORDERS.get(sent[:2])
    if order is None:
        message: AnyImage = deserialize_message(sent, kind)
        return message
    reader = Reader(sent, order)
    header = reader.header("replace")
    if kind is CompressedImage:
        return SentCompressedImage(header, reader.text("replace"), reader.array("u1", 1))
    height, width, encoding = reader.number(), reader.number(), reader.text("replace")
    return SentImage(header, height, width, encoding, reader.byte(), reader.number(), reader.array("u1", 1))


def image_bytes(pixels: np.ndarray, encoding: str, header: Header) -> bytes:
    """What `array_to_image` makes of the same arguments, as rclpy's publishers take it."""
    pixels = check_layout(pixels, encoding)
    height, width = pixels.shape[:2]
    front = [FRONT, header_bytes(header), number_bytes(height), number_bytes(width)]
    text = padded(text_bytes(encoding) + b"\0")  # and is_bigendian
    step = number_bytes(pixels.nbytes // height)
    return b"".join([*front, text, step, number_bytes(pixels.nbytes), pixels.data.cast("B")])
