"""`hassod_msgs/InstanceArray` read straight as it was sent.

rclpy makes a Python object of every field of every instance, with five messages inside each. What is read here has the
fields that are used, by the same names. The layout: see `instance_bytes`, which writes it.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

import numpy as np
from rclpy.serialization import deserialize_message
from std_msgs.msg import Header

from hassod_msgs.msg import InstanceArray
from hassod_ros.errors import InputError

_PLAIN_CDR = b"\0\1"  # little-endian; the two bytes after it are options
_FIELDS = struct.Struct("<IHxxIBBxxfIIIIBB")  # of an Instance up to its mask
_NUMBER, _PAIR = struct.Struct("<I"), struct.Struct("<II")
_STAMP = struct.Struct("<iI")


class Region(NamedTuple):
    """As sensor_msgs/RegionOfInterest."""

    x_offset: int
    y_offset: int
    height: int
    width: int


class Mask(NamedTuple):
    """As sensor_msgs/Image of one byte for each pixel."""

    height: int
    width: int
    step: int
    data: np.ndarray


class ReadInstance(NamedTuple):
    """As hassod_msgs/Instance."""

    id: int
    parent_id: int
    level: int
    scene: bool
    score: float
    roi: Region
    mask_encoding: int
    mask: Mask
    runs: np.ndarray
    outlines: np.ndarray
    outline_ends: np.ndarray


class ReadArray(NamedTuple):
    """As hassod_msgs/InstanceArray."""

    header: Header
    height: int
    width: int
    instances: list[ReadInstance]


def read_instance_array(data: bytes) -> ReadArray | InstanceArray:
    """The message that was sent.

    Args:
        data: As a raw subscription hands it over.

    Raises:
        InputError: It ends too early, or is no such message.

    """
    if data[:2] != _PLAIN_CDR:
        message: InstanceArray = deserialize_message(data, InstanceArray)
        return message
    reader = _Reader(data)
    try:
        header = Header()
        header.stamp.sec, header.stamp.nanosec = reader.take(_STAMP)
        header.frame_id = reader.text()
        height, width = reader.take(_PAIR)
        reader.text()  # the model's name
        reader.text()  # and its checksum
        return ReadArray(header, height, width, [reader.instance() for _ in range(reader.take(_NUMBER)[0])])
    except (struct.error, ValueError) as error:
        raise InputError(f"the instance array is damaged: {error}; check the node that publishes it") from error


class _Reader:
    """Goes through a message; numbers of four bytes lie at multiples of four from its beginning."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 4

    def take(self, layout: struct.Struct) -> tuple[int, ...]:
        start = self._at + -self._at % 4
        self._at = start + layout.size
        return layout.unpack_from(self._data, start)

    def array(self, dtype: str, size: int) -> np.ndarray:
        (count,) = self.take(_NUMBER)
        start = self._at
        self._at += count * size
        if not count:
            return np.zeros(0, dtype)
        return np.frombuffer(self._data, dtype, count, start)  # ValueError where it ends before

    def text(self) -> str:
        return self.array("u1", 1)[:-1].tobytes().decode()

    def instance(self) -> ReadInstance:
        number, _, parent, level, scene, score, x, y, height, width, _, encoding = self.take(_FIELDS)
        return ReadInstance(
            number,
            parent,
            level,
            bool(scene),
            score,
            Region(x, y, height, width),
            encoding,
            self._mask(),
            self.array("<u4", 4),
            self.array("<u2", 2),
            self.array("<u4", 4),
        )

    def _mask(self) -> Mask:
        self.take(_PAIR)  # stamp
        self._skip()  # frame_id
        height, width = self.take(_PAIR)
        self._skip()  # encoding
        self._at += 1  # is_bigendian
        (step,) = self.take(_NUMBER)
        return Mask(height, width, step, self.array("u1", 1))

    def _skip(self) -> None:
        """Go past a text."""
        (count,) = self.take(_NUMBER)
        self._at += count
