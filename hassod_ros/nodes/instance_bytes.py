"""`hassod_msgs/InstanceArray` written straight as it is sent.

rclpy makes a Python object of every field of every instance and copies them one by one: milliseconds for a hundred
instances.
"""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO

import numpy as np
from std_msgs.msg import Header

from hassod_ros.instances import Instances
from hassod_ros.nodes.cdr import FRONT, header_bytes, number_bytes, padded, text_bytes
from hassod_ros.nodes.messages import MASK_ENCODINGS, numbers, outline_fields
from hassod_ros.runtime.mask_encoding import run_lengths

_NONE = b"\0\0\0\0"  # a sequence without elements
_HEAD = [  # the fields of an Instance up to its mask
    *(("id", "<u4"), ("label", "<u2"), ("pad_0", "V2"), ("parent_id", "<u4"), ("level", "u1"), ("scene", "u1")),
    *(("pad_1", "V2"), ("score", "<f4"), ("x", "<u4"), ("y", "<u4"), ("height", "<u4"), ("width", "<u4")),
    *(("do_rectify", "u1"), ("mask_encoding", "u1"), ("pad_2", "V2")),
]


def instance_bytes(
    instances: Instances, header: Header, *, model_name: str, model_sha256: str, mask_encoding: str = "crop"
) -> bytes:
    """What `instance_array` makes of the same arguments, as rclpy's publishers take it."""
    start = header_bytes(header) + np.array(instances.image_size, "<u4").tobytes()
    start = padded(padded(start + text_bytes(model_name)) + text_bytes(model_sha256)) + number_bytes(len(instances))
    parts: list[bytes | memoryview] = [FRONT, start]
    if mask_encoding == "crop":
        heads = _heads(instances, mask_encoding, _mask_head(header_bytes(header), "mono8"))
        return _with_crops(FRONT + start, heads, instances.masks)
    heads = _heads(instances, mask_encoding, _mask_head(header_bytes(Header()), ""))
    if mask_encoding == "rle":
        for head, runs in zip(heads, run_lengths(instances.masks), strict=True):
            parts += [head, number_bytes(len(runs)), runs.data.cast("B"), 2 * _NONE]
    else:
        for head, mask, corner in zip(heads, instances.masks, instances.regions[:, :2], strict=True):
            points, ends = outline_fields(mask, corner)
            parts += [
                head,
                _NONE,
                number_bytes(points.size),
                points.tobytes(),
                number_bytes(ends.size),
                ends.tobytes(),
            ]
    return b"".join(parts)


def _with_crops(start: bytes, heads: Sequence[memoryview], masks: Sequence[np.ndarray]) -> bytes:
    """The message that begins with `start`, in which a mask follows each head: 255 where it is 1.

    Every pixel is written once, at its place.
    """
    sizes = [mask.size for mask in masks]
    rest = 3 * len(_NONE)  # the sequences that follow a mask
    total = len(start) + sum(size + -size % 4 + rest for size in sizes) + sum(map(len, heads))
    message = BytesIO(bytes(total))
    with message.getbuffer() as written:
        written[: len(start)] = start
        place, pixels = len(start), np.frombuffer(written, np.uint8)
        for head, mask, size in zip(heads, masks, sizes, strict=True):
            written[place : place + len(head)] = head
            place += len(head)
            np.multiply(mask, np.uint8(255), out=pixels[place : place + size].reshape(mask.shape))
            place += size + -size % 4 + rest
        del pixels
    return message.getvalue()


def _heads(instances: Instances, mask_encoding: str, mask_head: np.ndarray) -> Sequence[memoryview]:
    """What comes before the data of each instance's mask; `mask_head` () is that of the mask itself."""
    heads = np.zeros(len(instances), [*_HEAD, ("mask", mask_head.dtype)])
    ids, parent_ids = numbers(instances)
    x0, y0, x1, y1 = instances.regions.T if len(instances) else np.zeros((4, 0), np.int64)
    heads["id"], heads["parent_id"], heads["label"] = ids, parent_ids, instances.labels()
    heads["level"], heads["scene"], heads["score"] = instances.levels, instances.scene, instances.scores
    heads["x"], heads["y"], heads["height"], heads["width"] = x0, y0, y1 - y0, x1 - x0
    heads["mask_encoding"], heads["mask"] = MASK_ENCODINGS[mask_encoding], mask_head
    if mask_encoding == "crop":
        mask = heads["mask"]
        mask["height"], mask["width"], mask["step"], mask["size"] = y1 - y0, x1 - x0, x1 - x0, (x1 - x0) * (y1 - y0)
    step, written = heads.dtype.itemsize, memoryview(heads.tobytes())
    return [written[start : start + step] for start in range(0, len(written), step)]


def _mask_head(header: bytes, encoding: str) -> np.ndarray:
    """() record of an Image's fields up to its data."""
    text = padded(text_bytes(encoding) + b"\0")  # and is_bigendian
    fields = [("header", f"V{len(header)}"), ("height", "<u4"), ("width", "<u4"), ("encoding", f"V{len(text)}")]
    head = np.zeros((), [*fields, ("step", "<u4"), ("size", "<u4")])
    head["header"], head["encoding"] = np.void(header), np.void(text)
    return head
