"""Things in space as messages."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from geometry_msgs.msg import Point, Pose, Quaternion, Vector3
from sensor_msgs.msg import PointCloud2, PointField
from std_msgs.msg import Header

from hassod_msgs.msg import Grasp3D, Grasp3DArray, Object3D, Object3DArray, Support
from hassod_ros.geometry.boxes import axes_around
from hassod_ros.geometry.cloud import POINT, CloudMaker
from hassod_ros.geometry.depth import quantiles
from hassod_ros.geometry.grasps import Grasp, find_grasps
from hassod_ros.geometry.objects import Flag, Scene
from hassod_ros.geometry.planes import CELL
from hassod_ros.geometry.transforms import quaternions
from hassod_ros.instances import Instances, Level
from hassod_ros.nodes.objects_3d_parameters import gripper
from hassod_ros.nodes.perception_parameters import LEVEL_NAMES

_EXTENT_POINTS = 500  # of a support, that its extent is measured with
_PIXELS = CELL**2  # of the image, that a cell of the grid stands for
_FIELDS = [
    PointField(name=name, offset=offset, datatype=kind, count=1)
    for name, offset, kind in (
        ("x", 0, PointField.FLOAT32),
        ("y", 4, PointField.FLOAT32),
        ("z", 8, PointField.FLOAT32),
        ("rgb", 12, PointField.FLOAT32),  # the type that rviz and PCL expect of these bits
        ("label", 16, PointField.UINT32),
    )
]


@dataclass(frozen=True)
class Located:
    """What became of an image and its depth.

    Attributes:
        header: Stamp of the image, frame that everything is published in.
        camera_header: Stamp and frame of the image.
        transform: (4, 4) from the camera's frame to the published one.
        instances: Of the image.
        scene: Their places in the camera's frame.
        colors: (H, W, 3) uint8 of the image and their order; None where it was not received.
        options: The node's parameters by name.
        started: When the node began to work on it, s, time.perf_counter.
        give_way: Called before the grasps of each thing, which take milliseconds: waits for what is more urgent.

    """

    header: Header
    camera_header: Header
    transform: np.ndarray
    instances: Instances
    scene: Scene
    colors: tuple[np.ndarray, str] | None
    options: dict[str, Any]
    started: float
    give_way: Callable[[], object] = lambda: None

    @cached_property
    def published(self) -> np.ndarray:
        """(K,) places among the objects of those that are published."""
        objects = self.scene.objects
        wanted = np.array([name in self.options["levels"] for name in LEVEL_NAMES])
        keep: np.ndarray = np.flatnonzero(wanted[objects.levels] | objects.is_support)
        return keep

    @cached_property
    def ids(self) -> np.ndarray:
        """(M,) uint32 id of each object."""
        result: np.ndarray = self.instances.ids[self.scene.objects.index]
        return result

    @cached_property
    def grasps(self) -> dict[int, list[Grasp]]:
        """Grasps by place among the objects."""
        fingers = gripper(self.options)
        if not fingers.opening:
            return {}
        objects = self.scene.objects
        # A part of a part is held as little as a mask of two things.
        held = (objects.levels < Level.SUBPART) & (objects.flags & Flag.MIXED == 0)
        result = {}
        for i in self.published[held[self.published]].tolist():
            self.give_way()
            result[i] = find_grasps(self.scene, i, fingers)
        return result

    @cached_property
    def poses(self) -> list[Pose]:
        """Of all objects' boxes, in the published frame."""
        objects = self.scene.objects
        return poses(self.transform, objects.rotations, objects.centers)


def poses(transform: np.ndarray, rotations: np.ndarray, places: np.ndarray) -> list[Pose]:
    """Poses of (N, 3, 3) and (N, 3), moved by a (4, 4)."""
    turn = transform[:3, :3]
    moved = places @ turn.T + transform[:3, 3]
    return [
        Pose(position=Point(x=x, y=y, z=z), orientation=Quaternion(x=qx, y=qy, z=qz, w=qw))
        for (x, y, z), (qx, qy, qz, qw) in zip(moved.tolist(), quaternions(turn @ rotations).tolist(), strict=True)
    ]


def object_array(result: Located) -> Object3DArray:
    """`~/objects`."""
    objects = result.scene.objects
    turn, move = result.transform[:3, :3], result.transform[:3, 3]
    centroids, normals = (objects.centroids @ turn.T + move).tolist(), (objects.normals @ turn.T).tolist()
    sizes = objects.sizes.tolist()
    message = Object3DArray(header=result.header, camera_frame=result.camera_header.frame_id)
    parents = _published_parents(objects.parents, result.published)
    for i in result.published.tolist():
        message.objects.append(
            Object3D(
                id=int(result.ids[i]),
                parent_id=int(result.ids[parents[i]]) if parents[i] >= 0 else 0,
                level=int(objects.levels[i]),
                score=float(result.instances.scores[objects.index[i]]),
                flags=int(objects.flags[i]),
                is_support=bool(objects.is_support[i]),
                support=int(objects.supports[i]),
                pose=result.poses[i],
                size=_vector(sizes[i]),
                centroid=Point(**dict(zip("xyz", centroids[i], strict=True))),
                normal=_vector(normals[i]),
                coverage=float(objects.coverage[i]),
                points=int(objects.counts[i]),
            )
        )
    message.supports = _supports(result)
    return message


def grasp_array(result: Located) -> Grasp3DArray:
    """`~/grasps`."""
    found = [(i, grasp) for i, grasps in result.grasps.items() for grasp in grasps]
    message = Grasp3DArray(header=result.header)
    if found:
        frames = np.array([grasp.pose for _, grasp in found])
        placed = poses(result.transform, frames[:, :3, :3], frames[:, :3, 3])
        message.grasps = [
            Grasp3D(id=int(result.ids[i]), pose=pose, width=each.width, clearance=each.clearance, score=each.score)
            for (i, each), pose in zip(found, placed, strict=True)
        ]
    return message


def _published_parents(parents: np.ndarray, published: np.ndarray) -> np.ndarray:
    """The nearest ancestor that is published, or -1."""
    known = np.zeros(len(parents), bool)
    known[published] = True
    for _ in range(len(parents)):
        hidden = (parents >= 0) & ~known[parents]
        if not hidden.any():
            break
        parents = np.where(hidden, parents[parents], parents)
    return parents


def _supports(result: Located) -> list[Support]:
    """The planes, each with the rectangle that its points fill."""
    grid, objects, turn = result.scene.grid, result.scene.objects, result.transform[:3, :3]
    if not grid.planes:
        return []
    rotations = axes_around(np.array([plane.normal for plane in grid.planes])).transpose(0, 2, 1)  # z is the normal
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
    sides = (high - low).tolist()
    supports = []
    placed = poses(result.transform, rotations, centers)
    for k, plane in enumerate(grid.planes):
        owners = np.flatnonzero(objects.is_support & (objects.supports == k))
        normal = turn @ plane.normal
        supports.append(
            Support(
                id=int(result.ids[owners[np.argmax(objects.counts[owners])]]) if len(owners) else 0,
                normal=_vector(normal.tolist()),
                distance=float(plane.distance + normal @ result.transform[:3, 3]),
                pose=placed[k],
                size_x=sides[k][0],
                size_y=sides[k][1],
                points=plane.cells * _PIXELS,
            )
        )
    return supports


def _vector(values: list[float]) -> Vector3:
    return Vector3(**dict(zip("xyz", values, strict=True)))


def cloud(result: Located, maker: CloudMaker) -> PointCloud2:
    """`~/cloud`: organised, in the camera's frame, as its pixels are."""
    colors, order = result.colors or (None, "RGB")
    labels = label_map(result)
    points = maker(result.scene.depth, result.scene.rays, colors, labels, order)
    return _cloud_message(points, result.camera_header)


def label_map(result: Located) -> np.ndarray:
    """(H, W) uint32: the id of the smallest object at each pixel, supports below all others; 0 = none."""
    objects = result.scene.objects
    labels = np.zeros(result.scene.depth.shape, np.uint32)
    published = result.published
    for i in published[np.lexsort((-objects.counts[published], ~objects.is_support[published]))]:
        x, y = objects.corners[i].tolist()
        height, width = objects.masks[i].shape
        np.copyto(labels[y : y + height, x : x + width], result.ids[i], where=objects.masks[i].view(bool))
    return labels


def object_cloud(result: Located, i: int) -> PointCloud2:
    """The points of object i, in the published frame."""
    pixels = result.scene.pixels(i)
    points = result.scene.points(pixels).astype(np.float64) @ result.transform[:3, :3].T + result.transform[:3, 3]
    cloud = np.zeros((1, len(points)), POINT)
    for k, name in enumerate("xyz"):
        cloud[name] = points[:, k]
    if result.colors is not None:
        pixel_colors = result.colors[0].reshape(-1, 3)[pixels].astype(np.uint32)
        red, blue = (0, 2) if result.colors[1] == "RGB" else (2, 0)
        cloud["rgb"] = pixel_colors[:, red] << 16 | pixel_colors[:, 1] << 8 | pixel_colors[:, blue]
    cloud["label"] = result.ids[i]
    return _cloud_message(cloud, result.header)


def _cloud_message(points: np.ndarray, header: Header) -> PointCloud2:
    height, width = points.shape
    message = PointCloud2(header=header, height=height, width=width, fields=_FIELDS, is_dense=height == 1)
    message.point_step, message.row_step = POINT.itemsize, POINT.itemsize * width
    message.data.frombytes(points.view(np.uint8).data.cast("B"))
    return message
