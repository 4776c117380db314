"""Instances to messages, and masks back."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from sensor_msgs.msg import RegionOfInterest
from std_msgs.msg import Header

from hassod_msgs.msg import Instance, InstanceArray
from hassod_ros.errors import InputError
from hassod_ros.instances import Instances
from hassod_ros.nodes.convert import array_to_image
from hassod_ros.runtime.mask_encoding import fill_outlines, fill_runs, outlines, run_lengths

MASK_ENCODINGS = {"crop": Instance.CROP, "rle": Instance.RLE, "polygon": Instance.POLYGON}


def instance_array(
    instances: Instances, header: Header, *, model_name: str, model_sha256: str, mask_encoding: str = "crop"
) -> InstanceArray:
    """The hassod_msgs/InstanceArray of one image.

    Untracked instances get their place in the array, counted from 1, as id.

    Args:
        instances: Of the image that `header` belongs to; all tracked (ids > 0) or none.
        header: Of the input image, taken over as it is.
        model_name: Name to be shown.
        model_sha256: Lower-case hex, or "" where the model has no file.
        mask_encoding: One of `MASK_ENCODINGS`.

    """
    ids, parent_ids = numbers(instances)
    message = InstanceArray(header=header, model_name=model_name, model_sha256=model_sha256)
    message.height, message.width = instances.image_size
    message.instances = [
        Instance(
            id=instance_id,
            label=label,
            parent_id=parent_id,
            level=level,
            scene=scene,
            score=score,
            roi=RegionOfInterest(x_offset=x0, y_offset=y0, width=x1 - x0, height=y1 - y0),
            mask_encoding=MASK_ENCODINGS[mask_encoding],
        )
        for instance_id, label, parent_id, level, scene, score, (x0, y0, x1, y1) in zip(
            ids.tolist(),
            instances.labels().tolist(),
            parent_ids.tolist(),
            instances.levels.tolist(),
            instances.scene.tolist(),
            instances.scores.tolist(),
            instances.regions.tolist(),
            strict=True,
        )
    ]
    _write_masks(message, instances, mask_encoding)
    return message


def numbers(instances: Instances) -> tuple[np.ndarray, np.ndarray]:
    """(N,) uint32 `id` and `parent_id` of instances in a message."""
    ids = np.where(instances.ids > 0, instances.ids, np.arange(1, len(instances) + 1, dtype=np.uint32))
    return ids, np.where(instances.parents >= 0, ids[instances.parents], 0) if len(instances) else ids


def outline_fields(mask: np.ndarray, corner: Sequence[int] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """uint16 `outlines` and uint32 `outline_ends` of a mask whose top left corner is at (x, y) of the image."""
    lines = outlines(mask)
    points = np.add(np.concatenate(lines), corner).astype(np.uint16).ravel()
    return points, np.cumsum([line.size for line in lines]).astype(np.uint32)


def _write_masks(message: InstanceArray, instances: Instances, mask_encoding: str) -> None:
    if mask_encoding == "crop":
        for found, mask in zip(message.instances, instances.masks, strict=True):
            found.mask = array_to_image(mask * np.uint8(255), "mono8", message.header)
    elif mask_encoding == "rle":
        for found, runs in zip(message.instances, run_lengths(instances.masks), strict=True):
            found.runs.frombytes(runs.data.cast("B"))
    else:
        for found, mask in zip(message.instances, instances.masks, strict=True):
            points, ends = outline_fields(mask, (found.roi.x_offset, found.roi.y_offset))
            found.outlines.frombytes(points.data.cast("B"))
            found.outline_ends.frombytes(ends.data.cast("B"))


def mask_of(found: Instance) -> np.ndarray:
    """(roi.height, roi.width) uint8 mask of 0 and 1, whatever the `mask_encoding`; do not write into it.

    Raises:
        InputError: The fields of the instance do not fit together.

    """
    size = (found.roi.height, found.roi.width)
    if found.mask_encoding == Instance.RLE:
        try:
            return fill_runs(np.asarray(found.runs, np.uint32), size)
        except ValueError as error:
            raise InputError(f"the mask of instance {found.id} is damaged: {error}") from error
    if found.mask_encoding == Instance.POLYGON:
        points = np.asarray(found.outlines, np.int64)
        ends = np.asarray(found.outline_ends, np.int64)
        if len(points) % 2 or (ends % 2).any() or (np.diff(ends, prepend=0) < 0).any() or ends[-1:] != len(points):
            raise InputError(f"the mask of instance {found.id} is damaged: outline_ends does not fit the outlines")
        points = points.reshape(-1, 2) - (found.roi.x_offset, found.roi.y_offset)
        return fill_outlines(np.split(points, ends[:-1] // 2), size)
    image = found.mask
    if found.mask_encoding != Instance.CROP or (image.height, image.width) != size:
        raise InputError(f"the mask of instance {found.id} is of an unknown encoding; update hassod_msgs")
    rows = np.frombuffer(image.data, np.uint8)
    if image.step < image.width or rows.size != image.height * image.step:
        raise InputError(f"the mask of instance {found.id} is damaged: its image does not fit its roi")
    return rows.reshape(image.height, image.step)[:, : image.width] >> 7
