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
from hassod_ros.nodes.cdr import FRONT, Reader

_FIELDS = struct.Struct("<IHxxIBBxxfIIIIBB")  # of an Instance up to its mask
_PAIR = struct.Struct("<II")


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
    if data[:2] != FRONT[:2]:  # the two bytes after these are options
        message: InstanceArray = deserialize_message(data, InstanceArray)
        return message
    reader = Reader(data)
    try:
        header = reader.header()
        height, width = reader.take(_PAIR)
        reader.text()  # the model's name
        reader.text()  # and its checksum
        return ReadArray(header, height, width, [_instance(reader) for _ in range(reader.number())])
    except (struct.error, ValueError) as error:
        raise InputError(f"the instance array is damaged: {error}; check the node that publishes it") from error


def _instance(reader: Reader) -> ReadInstance:
    number, _, parent, level, scene, score, x, y, height, width, _, encoding = reader.take(_FIELDS)
    return ReadInstance(
        number,
        parent,
        level,
        bool(scene),
        score,
        Region(x, y, height, width),
        encoding,
        _mask(reader),
        reader.array("<u4", 4),
        reader.array("<u2", 2),
        reader.array("<u4", 4),
    )


def _mask(reader: Reader) -> Mask:
    reader.take(_PAIR)  # stamp
    reader.skip()  # frame_id
    height, width = reader.take(_PAIR)
    reader.skip()  # encoding
    reader.byte()  # is_bigendian
    return Mask(height, width, reader.number(), reader.array("u1", 1))
