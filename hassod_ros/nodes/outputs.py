"""What a node publishes about each image, as a table: name, type, builder, and whether robots act on it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Generic, NamedTuple, TypeVar

import cv2
import numpy as np
from rclpy.node import Node
from rclpy.qos import QoSPolicyKind, QoSProfile
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Float64, Header

from hassod_msgs.msg import InstanceArray
from hassod_ros.drawing import draw
from hassod_ros.instances import Instances, Level
from hassod_ros.nodes import foxglove, vision
from hassod_ros.nodes.convert import to_rgb
from hassod_ros.nodes.image_bytes import image_bytes
from hassod_ros.nodes.instance_bytes import instance_bytes
from hassod_ros.nodes.messages import instance_array
from hassod_ros.runtime.model_slot import Model

QOS_OVERRIDES = QoSOverridingOptions(
    (QoSPolicyKind.HISTORY, QoSPolicyKind.DEPTH, QoSPolicyKind.RELIABILITY, QoSPolicyKind.DURABILITY)
)

Source = TypeVar("Source")


class Output(NamedTuple, Generic[Source]):
    """One kind of message that is made of a result.

    Attributes:
        name: Of the topic, below the node's name and the camera's.
        kind: Its type.
        build: Makes the message, also as bytes, or None where there is nothing to be said.
        urgent: True where robots act on it. The others are made after those, in a thread that may fall behind.
        drawn: A picture for people, of which few a second are enough.

    """

    name: str
    kind: type
    build: Callable[[Source], Any]
    urgent: bool = True
    drawn: bool = False


class Outputs(Generic[Source]):
    """The publishers of a table, which only make what somebody subscribes to.

    Args:
        node: Whose they are.
        table: In the order of publishing.
        prefix: Of the topics, "" or ending in "/".
        qos: Where no override says otherwise.

    """

    def __init__(self, node: Node, table: Sequence[Output[Source]], prefix: str, qos: QoSProfile) -> None:
        self._node = node
        self._table = table
        self._publishers: dict[str, Any] = {}
        for output in table:
            self._publishers[output.name] = node.create_publisher(
                output.kind, f"~/{prefix}{output.name}", qos, qos_overriding_options=QOS_OVERRIDES
            )

    def wanted(self, *, urgent: bool | None = None) -> bool:
        """Whether somebody subscribes to an output, or to one of those that are (not) `urgent`."""
        return any(
            self._publishers[output.name].get_subscription_count()
            for output in self._table
            if urgent is None or output.urgent == urgent
        )

    def watched(self, name: str) -> bool:
        """Whether somebody subscribes to this output."""
        return bool(self._publishers[name].get_subscription_count())

    def publish(
        self, result: Source, *, urgent: bool, drawn: bool = True, before: Callable[[], object] | None = None
    ) -> None:
        """Make and publish what is (not) `urgent`, one after the other, with or without what is `drawn`.

        `before` is called before each of them is made.
        """
        for output in self._table:
            publisher = self._publishers[output.name]
            if output.urgent == urgent and (drawn or not output.drawn) and publisher.get_subscription_count():
                if before is not None:
                    before()
                message = output.build(result)
                if message is not None:
                    publisher.publish(message)

    def send(self, name: str, message: Any) -> None:
        """Publish a message that is not made of a result."""
        self._publishers[name].publish(message)

    def destroy(self) -> None:
        """Take the topics away."""
        for publisher in self._publishers.values():
            self._node.destroy_publisher(publisher)
        self._publishers = {}


@dataclass(frozen=True)
class Result:
    """What became of an image.

    Attributes:
        header: Of the image.
        pixels: (H, W, 3) uint8.
        color_order: Of the pixels, "RGB" or "BGR".
        instances: What is published of them.
        model: What found them.
        options: The node's parameters by name.
        started: When the node began to work on the image, s, time.perf_counter.
        stamped: When its stamp was by the same clock; None where the camera does not stamp.

    """

    header: Header
    pixels: np.ndarray
    color_order: str
    instances: Instances
    model: Model
    options: dict[str, Any]
    started: float
    stamped: float | None = None

    @cached_property
    def picture(self) -> np.ndarray:
        """(H, W, 3) uint8 RGB: the image with coloured masks."""
        style = {"alpha": self.options["overlay.opacity"], "outline": self.options["overlay.outline"]}
        return draw(to_rgb(self.pixels, self.color_order), self.instances, **style)


def instances_message(result: Result) -> InstanceArray:
    """`~/instances`."""
    return instance_array(result.instances, result.header, **_array_options(result))


def instances_bytes(result: Result) -> bytes:
    """The same message as it is sent."""
    return instance_bytes(result.instances, result.header, **_array_options(result))


def _array_options(result: Result) -> dict[str, Any]:
    return {
        "model_name": result.model.name,
        "model_sha256": result.model.sha256,
        "mask_encoding": result.options["mask_encoding"],
    }


def _labels(level: Level, result: Result) -> bytes:
    return image_bytes(result.instances.to_label_map(level), "16UC1", result.header)


def _detections(result: Result) -> Any:
    return vision.detection_array(result.instances, result.header)


def _annotations(result: Result) -> Any:
    return foxglove.image_annotations(result.instances, result.header)


def _overlay(result: Result) -> bytes:
    return image_bytes(result.picture, "rgb8", result.header)


def _compressed_overlay(result: Result) -> CompressedImage:
    quality = [cv2.IMWRITE_JPEG_QUALITY, result.options["overlay.jpeg_quality"]]
    bgr = cv2.cvtColor(result.picture, cv2.COLOR_RGB2BGR)
    message = CompressedImage(header=result.header, format="rgb8; jpeg compressed bgr8")
    message.data.frombytes(cv2.imencode(".jpg", bgr, quality)[1].data.cast("B"))
    return message


def _processing_time(result: Result) -> Float64:
    return Float64(data=(time.perf_counter() - result.started) * 1e3)


def _pipeline_latency(result: Result) -> Float64 | None:
    return None if result.stamped is None else Float64(data=(time.perf_counter() - result.stamped) * 1e3)


DETECTIONS: list[Output[Result]] = []
if vision.INSTALLED:
    DETECTIONS.append(Output("detections", vision.Detection2DArray, _detections))  # type: ignore[attr-defined]
ANNOTATIONS: list[Output[Result]] = []
if foxglove.INSTALLED:
    kind = foxglove.ImageAnnotations  # type: ignore[attr-defined]
    ANNOTATIONS.append(Output("annotations", kind, _annotations, urgent=False, drawn=True))
OUTPUTS: tuple[Output[Result], ...] = (
    Output("instances", InstanceArray, instances_bytes),
    *DETECTIONS,
    Output("debug/processing_time_ms", Float64, _processing_time),
    Output("debug/pipeline_latency_ms", Float64, _pipeline_latency),
    *(Output(f"labels/{level.name.lower()}", Image, partial(_labels, level), urgent=False) for level in Level),
    *ANNOTATIONS,
    Output("overlay", Image, _overlay, urgent=False, drawn=True),
    Output("overlay/compressed", CompressedImage, _compressed_overlay, urgent=False, drawn=True),
)
