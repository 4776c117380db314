"""Messages as they are sent: plain CDR in little-endian byte order (OMG DDSI-RTPS, 10.5; OMG CORBA, 15.3).

Every middleware of ROS 2 sends it: numbers at multiples of their size, texts and sequences after their length. Each
function gives what stands at a place that is a multiple of four.
"""

from __future__ import annotations

import numpy as np
from std_msgs.msg import Header

FRONT = b"\0\1\0\0"  # of every message


def header_bytes(header: Header) -> bytes:
    """A std_msgs/Header, filled up to a multiple of four."""
    stamp = np.array(header.stamp.sec, "<i4").tobytes() + number_bytes(header.stamp.nanosec)
    return padded(stamp + text_bytes(header.frame_id))


def text_bytes(text: str) -> bytes:
    """A string."""
    written = text.encode() + b"\0"
    return number_bytes(len(written)) + written


def number_bytes(value: int) -> bytes:
    """A uint32."""
    return value.to_bytes(4, "little")


def padded(written: bytes) -> bytes:
    """Filled up to a multiple of four."""
    return written + bytes(-len(written) % 4)
