"""/tf and /tf_static into a TransformBuffer, where tf2_msgs is installed; else `INSTALLED` is False."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile

from hassod_ros.errors import InputError
from hassod_ros.geometry.transforms import TransformBuffer, TransformError
from hassod_ros.nodes.depth_messages import nanoseconds
from hassod_ros.nodes.diagnostics import Notices

try:
    from tf2_msgs.msg import TFMessage
except ImportError:
    INSTALLED = False
else:
    INSTALLED = True

MISSING = "tf2_msgs is not installed, so no transform is known; install it: sudo apt install ros-$ROS_DISTRO-tf2-msgs"


class TransformListener:
    """Listens from its construction on.

    Args:
        node: Whose subscriptions these are.
        notices: Gets what is wrong with transforms.

    """

    def __init__(self, node: Node, notices: Notices) -> None:
        self._node, self._notices = node, notices
        self._buffer = TransformBuffer()
        self._changed = threading.Condition()
        self._subscriptions: list[Any] = []
        if INSTALLED:
            moving = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=100)
            fixed = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=100, durability=DurabilityPolicy.TRANSIENT_LOCAL)
            self._subscriptions = [
                node.create_subscription(TFMessage, "/tf", lambda message: self._take(message, fixed=False), moving),
                node.create_subscription(
                    TFMessage, "/tf_static", lambda message: self._take(message, fixed=True), fixed
                ),
            ]

    def find(self, target: str, source: str, stamp: int, wait: float) -> np.ndarray:
        """(4, 4) from frame `source` to `target` at a stamp in ns; waits up to `wait` seconds for it.

        Raises:
            InputError: It is not known.

        """
        if target == source:
            return np.eye(4)
        if not INSTALLED:
            raise InputError(MISSING)
        end = time.monotonic() + wait
        with self._changed:
            while True:
                try:
                    return self._buffer.find(target, source, stamp)
                except TransformError as error:  # noqa: PERF203
                    left = end - time.monotonic()
                    if not error.early or left <= 0:
                        raise
                    self._changed.wait(left)

    def destroy(self) -> None:
        """Stop listening."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self._subscriptions = []

    def _take(self, message: Any, *, fixed: bool) -> None:
        with self._changed:
            for each in message.transforms:
                place, turn = each.transform.translation, each.transform.rotation
                try:
                    self._buffer.add(
                        each.header.frame_id,
                        each.child_frame_id,
                        nanoseconds(each.header.stamp),
                        (place.x, place.y, place.z),
                        (turn.x, turn.y, turn.z, turn.w),
                        fixed=fixed,
                    )
                except InputError as error:
                    self._notices.warn(str(error))
            self._changed.notify_all()
