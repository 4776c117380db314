"""The topic that a camera's images come on: subscribed while there is a use for them, explained while none come."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image

from hassod_ros.nodes.image_bytes import AnyImage, read_image
from hassod_ros.nodes.outputs import QOS_OVERRIDES

SILENCE = 5.0  # s without a first image after which the reason is looked for
KEPT = 2.0  # s that a subscription is kept after its last use: tools come and go
_OURS = "hassod_msgs/"  # cameras publish nothing of it
_UNKNOWN = "_NODE_NAME_UNKNOWN_"  # of a node that was just seen for the first time
_TYPES = {"sensor_msgs/msg/Image": "raw", "sensor_msgs/msg/CompressedImage": "compressed"}


class ImageInput:
    """One camera's image topic.

    Args:
        node: Subscribes.
        topic: Of the raw images, as the node calls it.
        transport: "raw", or "compressed" for `TOPIC/compressed`.
        qos: Where no override says otherwise.
        receive: Gets the messages, in the thread that spins; see `image_bytes`.

    Attributes:
        heard: When the last image came or waiting for the first one began, s, time.perf_counter.
        advice: Why no image comes, as far as that can be seen from here; "" where they come.

    """

    def __init__(
        self, node: Node, topic: str, transport: str, qos: QoSProfile, receive: Callable[[AnyImage], None]
    ) -> None:
        self.heard = 0.0
        self.advice = ""
        self._node = node
        self._transport = transport
        self._kind = Image if transport == "raw" else CompressedImage
        self._name = topic if transport == "raw" else f"{topic}/compressed"
        self._qos = qos
        self._receive = receive
        self._subscription: Any = None
        self._silent = True  # since the subscription
        self._asked = 0.0  # when the reason for that was last looked for
        self._used = 0.0

    @property
    def subscribed(self) -> bool:
        """Whether images can come."""
        return self._subscription is not None

    @property
    def silence(self) -> float:
        """Seconds since the last image or the subscription; 0 where there is none."""
        return time.perf_counter() - self.heard if self.subscribed else 0.0

    @property
    def topic(self) -> str:
        """Full name of the topic after remapping; "" while it is not subscribed."""
        return self._subscription.topic_name if self._subscription is not None else ""

    def open(self) -> None:
        """Subscribe, and say to what."""
        self.heard = self._asked = self._used = time.perf_counter()
        self._silent = True
        self._subscription = self._node.create_subscription(
            self._kind, self._name, self._take, self._qos, qos_overriding_options=QOS_OVERRIDES, raw=True
        )

    def describe(self) -> str:
        """The topic, its transport and its quality of service, in words."""
        if self._subscription is None:
            return self._name
        qos = self._subscription.qos_profile
        reliability = "reliable" if qos.reliability == ReliabilityPolicy.RELIABLE else "best effort"
        return f"{self.topic} ({self._transport}, {reliability}, depth {qos.depth})"

    def close(self) -> None:
        """Unsubscribe."""
        if self._subscription is not None:
            self._node.destroy_subscription(self._subscription)
        self._subscription = None
        self.advice = ""

    def follow(self, *, used: bool) -> None:
        """Subscribe or unsubscribe by whether there is a `use` now; to be called a few times a second."""
        now = time.perf_counter()
        if used and not self.subscribed:
            self.open()
        elif used:
            self._used = now
            if self._silent and now - self._asked > SILENCE:
                self._asked, self.advice = now, self.explain()
        elif self.subscribed and now - self._used > KEPT:
            self.close()

    def _take(self, sent: bytes) -> None:
        self.heard, self._silent, self.advice = time.perf_counter(), False, ""
        self._receive(read_image(self._kind, sent))

    def explain(self) -> str:
        """Why no image comes to the subscription, as far as that can be seen from here."""
        topic, wanted = self.topic, "raw" if self._transport == "raw" else "compressed"
        offered = self._node.get_publishers_info_by_topic(topic)
        kinds = {_TYPES.get(each.topic_type, each.topic_type) for each in offered}
        if offered and wanted not in kinds:
            (kind, *_) = sorted(kinds)
            return f"no image comes on {topic}: {self._other_kind(topic, kind)}"
        reliable = self._subscription.qos_profile.reliability == ReliabilityPolicy.RELIABLE
        if reliable and any(each.qos_profile.reliability == ReliabilityPolicy.BEST_EFFORT for each in offered):
            return f"no image comes on {topic}: its publisher is best effort; set input_reliability to best_effort"
        if offered:
            return (
                f"no image comes on {topic}, though it has a publisher: does it publish, and is it started with "
                "this package's Fast DDS profile? See docs/no_images.md"
            )
        other = f"{topic}/compressed" if wanted == "raw" else topic.removesuffix("/compressed")
        if self._node.count_publishers(other):
            advice = "compressed" if wanted == "raw" else "raw"
            return f"nobody publishes {topic}, but there is {other}; set image_transport to {advice}"
        return f"nobody publishes {topic}; {self._others(topic)}"

    def _other_kind(self, topic: str, kind: str) -> str:
        if kind == "compressed":
            base = topic.removesuffix("/compressed")
            remedy = f"and the topic {base}" if base != topic else "and the topic without /compressed"
            return f"its publisher sends compressed images; set image_transport to compressed, {remedy}"
        if kind == "raw":
            return "its publisher sends raw images; set image_transport to raw"
        return f"its publisher sends {kind}, which are no images; {self._others(topic)}"

    def _others(self, topic: str) -> str:
        """The other image topics that there are, without the results of nodes of this package."""
        offered = [(name, set(kinds)) for name, kinds in self._node.get_topic_names_and_types() if name != topic]
        ours = {self._node.get_fully_qualified_name()}
        for name, kinds in offered:
            if any(kind.startswith(_OURS) for kind in kinds):
                ours |= {node for node in self._publishers(name) if not node.endswith(_UNKNOWN)}
        found = sorted(name for name, kinds in offered if kinds & set(_TYPES) and self._publishers(name) - ours)
        return f"there is {', '.join(found)}" if found else "there is no image topic at all; start the camera"

    def _publishers(self, topic: str) -> set[str]:
        """Full names of the nodes that publish a topic."""
        offered = self._node.get_publishers_info_by_topic(topic)
        return {f"{each.node_namespace.rstrip('/')}/{each.node_name}" for each in offered}
