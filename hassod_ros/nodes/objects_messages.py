"""Things in space as messages."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from geometry_msgs.msg import Point, Pose, Quaternion
from sensor_msgs.msg import PointCloud2, PointField
from std_msgs.msg import Header

from hassod_msgs.msg import Grasp3D, Grasp3DArray
from hassod_ros.geometry.cloud import POINT, CloudMaker
from hassod_ros.geometry.grasps import Grasp, find_grasps
from hassod_ros.geometry.objects import Flag, Scene
from hassod_ros.geometry.transforms import quaternions
from hassod_ros.instances import Instances, Level
from hassod_ros.nodes.objects_3d_parameters import gripper
from hassod_ros.nodes.perception_parameters import LEVEL_NAMES

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
    def pose_numbers(self) -> np.ndarray:
        """(M, 7) position and quaternion of all objects' boxes, in the published frame."""
        objects = self.scene.objects
        return pose_numbers(self.transform, objects.rotations, objects.centers)

    @cached_property
    def poses(self) -> list[Pose]:
        """The same as messages."""
        return _poses(self.pose_numbers)


def poses(transform: np.ndarray, rotations: np.ndarray, places: np.ndarray) -> list[Pose]:
    """Poses of (N, 3, 3) and (N, 3), moved by a (4, 4)."""
    return _poses(pose_numbers(transform, rotations, places))


def _poses(numbers: np.ndarray) -> list[Pose]:
    return [
        Pose(position=Point(x=x, y=y, z=z), orientation=Quaternion(x=qx, y=qy, z=qz, w=qw))
        for x, y, z, qx, qy, qz, qw in numbers.tolist()
    ]


def pose_numbers(transform: np.ndarray, rotations: np.ndarray, places: np.ndarray) -> np.ndarray:
    """(N, 7) position and quaternion of (N, 3, 3) and (N, 3), moved by a (4, 4)."""
    turn = transform[:3, :3]
    return np.concatenate([places @ turn.T + transform[:3, 3], quaternions(turn @ rotations)], axis=1)


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
