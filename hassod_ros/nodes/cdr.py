"""Messages as they are sent: plain CDR in little-endian byte order (OMG DDSI-RTPS, 10.5; OMG CORBA, 15.3).

Every middleware of ROS 2 sends it: numbers at multiples of their size, texts and sequences after their length. Each
function gives, and `Reader` takes, what stands at a place that is a multiple of four.
"""

from __future__ import annotations

import struct

import numpy as np
from builtin_interfaces.msg import Time
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


class Reader:
    """Takes one field of a message after the other.

    What is read beyond the end is a struct.error or a ValueError.

    Args:
        sent: The message.
        order: Of its bytes, as `struct` writes it.

    """

    def __init__(self, sent: bytes, order: str = "<") -> None:
        self._sent, self._at = sent, len(FRONT)
        self._number, self._stamp = struct.Struct(f"{order}I"), struct.Struct(f"{order}iI")

    def take(self, layout: struct.Struct) -> tuple[int, ...]:
        """Numbers of which none is larger than four bytes."""
        start = self._at + -self._at % 4
        self._at = start + layout.size
        return layout.unpack_from(self._sent, start)

    def number(self) -> int:
        """A uint32."""
        return self.take(self._number)[0]

    def byte(self) -> int:
        """A uint8."""
        (value,) = struct.unpack_from("B", self._sent, self._at)
        self._at += 1
        return int(value)

    def array(self, dtype: str, size: int) -> np.ndarray:
        """A sequence of numbers of `size` bytes, whose memory is the message's."""
        count = self.number()
        start = self._at
        self._at += count * size
        if not count:
            return np.zeros(0, dtype)
        return np.frombuffer(self._sent, dtype, count, start)  # ValueError where it ends before

    def text(self, errors: str = "strict") -> str:
        """A string; `errors` as of `bytes.decode`."""
        return self.array("u1", 1)[:-1].tobytes().decode(errors=errors)

    def skip(self) -> None:
        """Go past a string."""
        length = self.number()
        self._at += length

    def header(self, errors: str = "strict") -> Header:
        """A std_msgs/Header."""
        seconds, nanoseconds = self.take(self._stamp)
        return Header(stamp=Time(sec=seconds, nanosec=nanoseconds), frame_id=self.text(errors))
