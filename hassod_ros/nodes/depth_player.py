"""Depth, its intrinsics and transforms for camera_player."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

from hassod_ros.footage.frame import CameraInfo as RecordedInfo
from hassod_ros.footage.kinds import is_bag
from hassod_ros.footage.rgbd import Link, Shot, static_transforms
from hassod_ros.geometry.transforms import quaternions
from hassod_ros.nodes.convert import array_to_image

try:
    from geometry_msgs.msg import TransformStamped
    from tf2_msgs.msg import TFMessage
except ImportError:
    INSTALLED = False
else:
    INSTALLED = True

WORLD = "map"
_LARGEST = 65.535  # m that 16 bits of millimetres hold


class DepthPublisher:
    """Publishes `depth` (16UC1), `depth/camera_info`, and `/tf` or `/tf_static` where the source has poses.

    Args:
        node: Whose publishers these are.
        qos: Of the images.
        source: Recording, folder or index; a recording's /tf_static is published at once.

    """

    def __init__(self, node: Node, qos: QoSProfile, source: str | os.PathLike) -> None:
        self._image = node.create_publisher(Image, "depth", qos)
        self._info = node.create_publisher(CameraInfo, "depth/camera_info", qos)
        self._moving: Any = None
        links = static_transforms(source, node.get_logger().warning) if is_bag(source) else []
        if not INSTALLED:
            node.get_logger().info("tf2_msgs is not installed: no transforms are published")
            return
        self._moving = node.create_publisher(TFMessage, "/tf", 100)
        if links:
            latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
            self._fixed = node.create_publisher(TFMessage, "/tf_static", latched)
            stamp = node.get_clock().now().to_msg()
            self._fixed.publish(TFMessage(transforms=[_transform(link, stamp) for link in links]))

    def publish(self, shot: Shot, info: CameraInfo) -> None:
        """Publish what a shot has beside its image, with the stamp of the image's `info`."""
        if shot.pose is not None and self._moving is not None:
            (turn,) = quaternions(shot.pose[None, :3, :3]).tolist()
            link = Link(WORLD, info.header.frame_id, tuple(shot.pose[:3, 3].tolist()), tuple(turn))
            self._moving.publish(TFMessage(transforms=[_transform(link, info.header.stamp)]))
        if shot.frame.depth is None:
            return
        lens = shot.frame.depth_info
        frame_id = (lens.frame_id if lens is not None else "") or info.header.frame_id
        header = Header(stamp=info.header.stamp, frame_id=frame_id)
        metres = np.nan_to_num(shot.frame.depth, nan=0.0, posinf=0.0, neginf=0.0)
        metres[(metres < 0) | (metres > _LARGEST)] = 0
        self._image.publish(array_to_image(np.round(metres * 1000).astype(np.uint16), "16UC1", header))
        if lens is not None:
            self._info.publish(recorded_info(lens, header))
        elif metres.shape == (info.height, info.width):
            self._info.publish(info)


def recorded_info(info: RecordedInfo, header: Header) -> CameraInfo:
    """camera_info as it was recorded, with another header."""
    height, width = info.size
    message = CameraInfo(header=header, height=height, width=width, distortion_model=info.distortion_model)
    message.k, message.d, message.r, message.p = list(info.k), list(info.d), list(info.r), list(info.p)
    return message


def _transform(link: Link, stamp: Any) -> Any:
    message = TransformStamped(header=Header(stamp=stamp, frame_id=link.parent), child_frame_id=link.child)
    place, turn = message.transform.translation, message.transform.rotation
    place.x, place.y, place.z = link.translation
    turn.x, turn.y, turn.z, turn.w = link.rotation
    return message
