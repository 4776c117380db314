"""Depth images, intrinsics and instances: messages to what `hassod_ros.geometry` takes."""

from __future__ import annotations

import array

import numpy as np
from builtin_interfaces.msg import Time
from sensor_msgs.msg import CameraInfo, Image

from hassod_msgs.msg import InstanceArray
from hassod_ros.compressed import MAX_SIDE
from hassod_ros.errors import InputError
from hassod_ros.geometry.depth import UNITS, to_metres
from hassod_ros.geometry.rays import Calibration, calibration_of
from hassod_ros.instances import Instances
from hassod_ros.nodes.messages import mask_of
from hassod_ros.nodes.objects_instances import ReadArray

_DTYPES = {"16uc1": "u2", "mono16": "u2", "32fc1": "f4", "64fc1": "f8"}


def nanoseconds(stamp: Time) -> int:
    """A stamp as one number."""
    return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)


def depth_in_metres(message: Image, scale: float = 0.0) -> np.ndarray:
    """(H, W) float32 metres of a depth image, 0 = none; see `to_metres`.

    Raises:
        InputError: It is no depth image, or size, `step` and data do not fit together.

    """
    encoding, height, width = message.encoding.lower(), message.height, message.width
    if encoding not in _DTYPES:
        raise InputError(
            f"encoding {message.encoding!r} is not a depth image; connect `depth` to one of {', '.join(sorted(UNITS))}"
        )
    if not 0 < height <= MAX_SIDE or not 0 < width <= MAX_SIDE:
        raise InputError(
            f"a depth image of {width} x {height} pixels cannot be read; each side must be 1 to {MAX_SIDE}"
        )
    dtype = np.dtype(_DTYPES[encoding]).newbyteorder(">" if message.is_bigendian else "<")
    row = width * dtype.itemsize
    if message.step < row or len(message.data) < message.step * (height - 1) + row:
        raise InputError(
            f"the depth image holds {len(message.data)} bytes with step {message.step}, {width} x {height} pixels of "
            f"{message.encoding} need more; it was cut short on the way or the driver fills it wrongly"
        )
    data = message.data if isinstance(message.data, array.array | bytes | np.ndarray) else bytes(message.data)
    pixels = np.ndarray((height, width), dtype, data, strides=(message.step, dtype.itemsize))
    return to_metres(pixels, encoding, scale)


def calibration(message: CameraInfo, *, rectified: bool = False) -> Calibration:
    """The Calibration of a camera_info.

    Args:
        message: As the driver sends it.
        rectified: The images are rectified.

    Raises:
        InputError: It makes no camera.

    """
    roi = message.roi
    cut = bool(roi.width and roi.height)
    return calibration_of(
        (roi.height, roi.width) if cut else (message.height, message.width),
        message.k,
        message.d,
        message.distortion_model,
        p=message.p if rectified else None,
        binning=(message.binning_x, message.binning_y),
        offset=(roi.x_offset, roi.y_offset) if cut else (0, 0),
    )


def instances_of(message: InstanceArray | ReadArray) -> Instances:
    """The Instances of an InstanceArray, in its order.

    Raises:
        InputError: Its fields do not fit together.

    """
    found = message.instances
    size = (message.height, message.width)
    if not found:
        if min(size) < 1:
            raise InputError("the instance array says no image size; update the node that publishes it")
        return Instances.empty(size)
    boxes = np.array(
        [(r.x_offset, r.y_offset, r.x_offset + r.width, r.y_offset + r.height) for r in (each.roi for each in found)]
    )
    place = {each.id: i for i, each in enumerate(found)}
    try:
        return Instances(
            image_size=size,
            boxes=boxes,
            masks=[mask_of(each) for each in found],
            scores=np.array([each.score for each in found]),
            levels=np.array([each.level for each in found]),
            parents=np.array([place.get(each.parent_id, -1) if each.parent_id else -1 for each in found]),
            ids=np.array([each.id for each in found]),
            scene=np.array([each.scene for each in found], bool),
        )
    except ValueError as error:
        raise InputError(f"the instance array is damaged: {error}") from error
