"""`~/objects` written straight as it is sent; see `instance_bytes` for why and for the layout."""

from __future__ import annotations

from typing import Any

import numpy as np
from rclpy.serialization import serialize_message

from hassod_msgs.msg import Object3DArray
from hassod_ros.geometry.boxes import axes_around
from hassod_ros.geometry.depth import quantiles
from hassod_ros.geometry.planes import CELL
from hassod_ros.instances import kept_parents
from hassod_ros.nodes.cdr import number_bytes
from hassod_ros.nodes.objects_messages import Located, pose_numbers

_EXTENT_POINTS = 500  # of a support, that its extent is measured with
_PIXELS = CELL**2  # of the image, that a cell of the grid stands for
_VECTOR, _POSE = ("<f8", (3,)), ("<f8", (7,))
_SUPPORT = np.dtype(
    [
        ("id", "<u4"),
        ("normal", *_VECTOR),
        ("distance", "<f4"),
        ("pose", *_POSE),
        ("sides", "<f4", (2,)),
        ("points", "<u4"),
    ]
)
_OBJECT = np.dtype(
    [
        *(
            ("id", "<u4"),
            ("parent_id", "<u4"),
            ("level", "u1"),
            ("score", "<f4"),
            ("flags", "u1"),
            ("is_support", "u1"),
        ),
        *(("support", "<i2"), ("pose", *_POSE), ("size", *_VECTOR), ("centroid", *_VECTOR), ("normal", *_VECTOR)),
        *(("coverage", "<f4"), ("points", "<u4")),
    ]
)


def object_bytes(result: Located) -> bytes:
    """The hassod_msgs/Object3DArray of a result, as rclpy's publishers take it."""
    empty = Object3DArray(header=result.header, camera_frame=result.camera_header.frame_id)
    written = serialize_message(empty)[:-8]  # without the numbers of supports and objects
    for rows in (_supports(result), _objects(result)):
        written += number_bytes(len(rows))
        written += _elements(rows, len(written) - 4)  # what is in front of every message does not count
    return written


def _elements(rows: np.ndarray, start: int) -> bytes:
    """Rows that begin at a multiple of four bytes."""
    first = np.zeros(len(rows[:1]), _aligned(rows.dtype, start))
    others = np.zeros(len(rows[1:]), _aligned(rows.dtype, start + first.itemsize))  # these begin all alike
    first[:], others[:] = rows[:1], rows[1:]
    return first.tobytes() + others.tobytes()


def _aligned(packed: np.dtype, start: int) -> np.dtype:
    """The same fields, each number at a multiple of its size from where the message begins."""
    names = list(packed.names or ())
    offset, offsets = 0, []
    for name in names:
        offset += -(start + offset) % packed[name].base.itemsize
        offsets.append(offset)
        offset += packed[name].itemsize
    fields: Any = {"names": names, "formats": [packed[name] for name in names], "offsets": offsets, "itemsize": offset}
    return np.dtype(fields)


def _objects(result: Located) -> np.ndarray:
    """(K,) of `_OBJECT`."""
    objects, kept = result.scene.objects, result.published
    turn, move = result.transform[:3, :3], result.transform[:3, 3]
    parents = kept_parents(objects.parents, kept)
    rows = np.zeros(len(kept), _OBJECT)
    rows["id"] = result.ids[kept]
    rows["parent_id"] = np.where(parents >= 0, rows["id"][parents], 0)
    rows["level"], rows["flags"] = objects.levels[kept], objects.flags[kept]
    rows["score"] = result.instances.scores[objects.index[kept]]
    rows["is_support"], rows["support"] = objects.is_support[kept], objects.supports[kept]
    rows["pose"] = result.pose_numbers[kept]
    rows["size"], rows["centroid"] = objects.sizes[kept], objects.centroids[kept] @ turn.T + move
    rows["normal"] = objects.normals[kept] @ turn.T
    rows["coverage"], rows["points"] = objects.coverage[kept], objects.counts[kept]
    return rows


def _supports(result: Located) -> np.ndarray:
    """(P,) of `_SUPPORT`: the planes, each with the rectangle that its points fill."""
    grid, objects = result.scene.grid, result.scene.objects
    rows = np.zeros(len(grid.planes), _SUPPORT)
    if not grid.planes:
        return rows
    normals = np.array([plane.normal for plane in grid.planes])
    rotations = axes_around(normals).transpose(0, 2, 1)  # z is the normal
    # The same number of points of each, so that one array holds them all.
    cells = np.argsort(grid.labels, axis=None, kind="stable")
    counts = np.array([[plane.cells] for plane in grid.planes])
    ends = len(cells) - counts.sum() + np.cumsum(counts, axis=0)  # those on no plane come first
    sample = cells.take(ends - counts + np.arange(_EXTENT_POINTS) * counts // _EXTENT_POINTS)
    points = grid.points.reshape(-1, 3).take(sample, axis=0).astype(np.float64)  # (P, S, 3)
    middles = points.mean(1)
    flat = (points - middles[:, None]) @ rotations[:, :, :2]
    moments = flat.transpose(0, 2, 1) @ flat
    angles = np.arctan2(2 * moments[:, 0, 1], moments[:, 0, 0] - moments[:, 1, 1]) / 2  # of the main directions
    cosine, sine = np.cos(angles), np.sin(angles)
    spin = np.stack([np.stack([cosine, -sine], axis=-1), np.stack([sine, cosine], axis=-1)], axis=-2)
    rotations[:, :, :2] = rotations[:, :, :2] @ spin
    low, high = quantiles((flat @ spin).transpose(0, 2, 1), 0.01, 0.99)  # (P, 2)
    centers = middles + (rotations[:, :, :2] @ ((low + high) / 2)[..., None])[..., 0]
    for k in range(len(rows)):  # the largest of the instances that are this surface
        owners = np.flatnonzero(objects.is_support & (objects.supports == k))
        rows["id"][k] = result.ids[owners[np.argmax(objects.counts[owners])]] if len(owners) else 0
    normals = normals @ result.transform[:3, :3].T
    rows["normal"], rows["sides"] = normals, high - low
    rows["distance"] = [plane.distance for plane in grid.planes] + normals @ result.transform[:3, 3]
    rows["pose"] = pose_numbers(result.transform, rotations, centers)
    rows["points"] = counts[:, 0] * _PIXELS
    return rows
