"""The processes around and inside a measurement: camera, perception_node with answers at once, a naive node, a load.

python benchmarks/roles.py camera --topic image --size 640x480 --rate 30
python benchmarks/roles.py node --ros-args -p autostart:=true
python benchmarks/roles.py busy
"""

from __future__ import annotations

import hassod_ros.nodes  # noqa: F401  # isort: skip  # sets NumPy's threads, before NumPy comes

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import cv2
import numpy as np
import rclpy
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from hassod_msgs.msg import Instance, InstanceArray
from hassod_ros.default_model import default_model
from hassod_ros.footage.sources import fill
from hassod_ros.images import read_image
from hassod_ros.instances import Instances, Level
from hassod_ros.nodes.convert import array_to_image
from hassod_ros.nodes.perception_node import PerceptionNode
from hassod_ros.nodes.run import run
from hassod_ros.runtime import segmenter
from hassod_ros.runtime.model_info import ModelInfo, read_model_info
from hassod_ros.runtime.postprocess import RawDetections
from hassod_ros.runtime.selection import Selection

ROLES = ("camera", "node", "outside", "naive", "watcher", "busy")
INSTANCES = 20  # that the null model finds


class NullModel:
    """Answers at once: instances of an eighth of the image's width, ten wholes with a part each."""

    info = None
    backend = ""
    batch = 1

    def __init__(self) -> None:
        self._answers: dict[tuple[int, int], Instances] = {}

    def __call__(self, image: np.ndarray, *, color_order: str = "RGB") -> Instances:
        """The same instances for every image of a size."""
        size = (image.shape[0], image.shape[1])
        if size not in self._answers:
            self._answers[size] = fixed_instances(size)
        return self._answers[size]

    def configure(self, selection: Selection) -> None:
        """Nothing can be asked for."""

    def segment(self, images: Sequence[np.ndarray], *, color_order: str = "RGB") -> list[Instances]:
        """One after the other."""
        return [self(image) for image in images]

    def warm_up(self) -> None:
        """Nothing to do."""

    def close(self) -> None:
        """Nothing to give back."""


class FailingModel(NullModel):
    """Passes the test that a node gives a new model, and fails on what a camera shows."""

    def segment(self, images: Sequence[np.ndarray], *, color_order: str = "RGB") -> list[Instances]:
        """Fail on every image of a camera's size."""
        if images[0].shape[0] > 120:
            raise RuntimeError("this model fails on real pictures")
        return super().segment(images, color_order=color_order)


def open_null(path: str) -> NullModel:
    """A model that answers at once; one that fails where the path is a file that begins with `fails`."""
    file = Path(path)
    return FailingModel() if file.is_file() and file.read_bytes().startswith(b"fails") else NullModel()


def fixed_instances(size: tuple[int, int]) -> Instances:
    """Discs on a grid, every second one the inner part of the one before."""
    height, width = size
    radius = width // 16
    rows, columns = np.ogrid[-radius:radius, -radius:radius]
    boxes, masks = np.empty((INSTANCES, 4), np.float32), []
    for i in range(INSTANCES):
        x, y, r = (2 * (i // 2 % 5) + 1.5) * width // 11, (1 + i // 10) * height // 3, radius // (1 + i % 2)
        boxes[i] = x - r, y - r, x + r, y + r
        masks.append(
            np.ascontiguousarray(
                (np.hypot(rows, columns) < r)[radius - r : radius + r, radius - r : radius + r], np.uint8
            )
        )
    boxes = np.round(boxes)
    odd = np.arange(INSTANCES) % 2
    return Instances(
        image_size=size,
        boxes=boxes,
        masks=masks,
        scores=np.linspace(1, 0.5, INSTANCES, dtype=np.float32),
        levels=odd,
        parents=np.where(odd == 1, np.arange(INSTANCES) - 1, -1),
    )


class NaiveNode(Node):
    """perception_node's message path as a first version of such a node often has it."""

    def __init__(self) -> None:
        super().__init__("perception_node")
        self._model = NullModel()
        self._publisher = self.create_publisher(InstanceArray, "~/instances", 10)
        self.create_subscription(Image, "image", self._on_image, qos_profile_sensor_data)

    def _on_image(self, message: Image) -> None:
        data = np.frombuffer(bytes(message.data), np.uint8)
        pixels = data.reshape(message.height, message.width, 3).copy()[..., ::-1].copy()
        instances = self._model(pixels)
        answer = InstanceArray(header=message.header, height=message.height, width=message.width, model_name="null")
        for i, mask in enumerate(instances.dense()):
            image = Image(header=message.header, height=message.height, width=message.width, encoding="mono8")
            image.step = message.width
            image.data = (mask * 255).astype(np.uint8).tobytes()
            found = Instance(id=i + 1, level=int(instances.levels[i]), score=float(instances.scores[i]), mask=image)
            found.parent_id = int(instances.parents[i]) + 1
            x0, y0, x1, y1 = instances.regions[i].tolist()
            found.roi.x_offset, found.roi.y_offset, found.roi.width, found.roi.height = x0, y0, x1 - x0, y1 - y0
            answer.instances.append(found)
        self._publisher.publish(answer)


def patches(size: tuple[int, int]) -> np.ndarray:
    """(H, W, 3) uint8: coloured rectangles, so that no size of it is blank for whatever looks for colour steps."""
    colors = np.random.default_rng(0).integers(0, 256, (18, 32, 3), np.uint8)
    return cv2.resize(colors, size[::-1], interpolation=cv2.INTER_NEAREST)


def play(topic: str, size: tuple[int, int], rate: float, count: int, photograph: str) -> int:
    """The camera process: `count` images at `rate` (Hz), numbered in frame_id, once somebody listens.

    Args:
        topic: Of the images.
        size: (H, W).
        rate: Hz.
        count: 0 = until it is stopped.
        photograph: What is shown; "" for a made-up picture.

    """
    pixels = fill(read_image(photograph), size) if photograph else patches(size)
    rclpy.init()
    node = rclpy.create_node("camera", use_global_arguments=False)
    publisher = node.create_publisher(Image, topic, qos_profile_sensor_data)
    message = array_to_image(np.ascontiguousarray(pixels), "rgb8", Header())
    while not publisher.get_subscription_count():
        time.sleep(0.05)
    time.sleep(1.0)  # until both sides know each other
    start, number = time.monotonic(), 0
    while rclpy.ok() and (number < count or not count):
        time.sleep(max(0.0, start + number / rate - time.monotonic()))
        message.header.frame_id = str(number)
        message.header.stamp.sec, message.header.stamp.nanosec = divmod(time.time_ns(), 1_000_000_000)
        try:
            publisher.publish(message)
        except RuntimeError:  # stopped just now
            break
        number += 1
    time.sleep(0.5)  # the last image is still on its way
    return 0


def spin_naive() -> int:
    """The naive node's process."""
    try:
        rclpy.init()
        rclpy.spin(NaiveNode())
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    return 0


class NullBackend:
    """A network of the default model's form that answers at once: discs in discs in discs.

    Args:
        info: Metadata of the model that it stands for.
        count: Detections in each image.

    """

    name = "null"

    def __init__(self, info: ModelInfo, count: int) -> None:
        self.info = info
        width = info.input_size[1]
        # Things on a grid that fills what an image of 16:9 fills of the input; in each a part, and in that another one.
        columns, level = 7, np.arange(count) % 3
        rows = -(-count // (3 * columns))
        cell = np.array([width / columns, 9 / 16 * width / rows])
        thing = np.arange(count) // 3
        centre = (np.stack([thing % columns, thing // columns], axis=1) + 0.5) * cell
        half = (0.45 * cell.min() / 2**level)[:, None]
        y, x = np.mgrid[-1:1:28j, -1:1:28j]
        disc = 1 / (1 + np.exp(8 * (np.hypot(x, y) - 0.9)))
        self._raw = RawDetections(
            boxes=np.concatenate([centre - half, centre + half], axis=1).astype(np.float32)[None],
            scores=np.linspace(1, 0.99, count, dtype=np.float32)[None],
            level_probabilities=np.eye(3, dtype=np.float32)[level][None],
            masks=np.repeat(disc[None, None].astype(np.float32), count, axis=1),
            count=np.array([count], np.int32),
            converged=np.array([True]),
        )

    def infer(self, images: np.ndarray) -> RawDetections:
        """The same for every image."""
        return replace(self._raw, masks=self._raw.masks.copy())

    def warm_up(self) -> None:
        """Nothing to do."""

    def close(self) -> None:
        """Nothing to give back."""


def run_outside(count: int, ros_arguments: list[str]) -> int:
    """perception_node with the whole path around the network, and no network; all that it finds are published."""
    for level in Level:
        ros_arguments = [*ros_arguments, "-p", f"score_thresholds.{level.name.lower()}:=0.0"]
    info = replace(read_model_info(default_model()), batch=1)
    with patch.object(segmenter, "open_backend", lambda *_, **__: NullBackend(info, count)):
        return run(PerceptionNode, [sys.argv[0], *ros_arguments])


def watch() -> int:
    """Listen to what people look at: label images and overlay."""
    try:
        rclpy.init()
        node = rclpy.create_node("watcher")
        for name in ("labels/whole", "labels/part", "labels/subpart", "overlay"):
            node.create_subscription(Image, f"/perception_node/{name}", lambda _: None, qos_profile_sensor_data)
        rclpy.spin(node)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    return 0


def keep_a_core_busy() -> int:
    """Compute until ended: what else runs on a robot."""
    values = np.random.default_rng(0).random((200, 200))
    while True:
        values = values @ values
        values /= values.max()


def parse_size(text: str) -> tuple[int, int]:
    """Read WIDTHxHEIGHT: 640x480 -> (480, 640)."""
    width, _, height = text.partition("x")
    if not (height.isdecimal() and width.isdecimal()):
        raise argparse.ArgumentTypeError(f"{text!r} is not WIDTHxHEIGHT, such as 640x480")
    return int(height), int(width)


def main(arguments: list[str] | None = None) -> int:
    """Be one of the processes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("role", choices=ROLES)
    parser.add_argument("--topic", default="image")
    parser.add_argument("--size", type=parse_size, default=(480, 640), metavar="WxH")
    parser.add_argument("--rate", type=float, default=30.0, help="Hz")
    parser.add_argument("--count", type=int, default=0, help="of images, 0 = until it is ended")
    parser.add_argument("--photograph", default="", help="what the camera shows")
    parser.add_argument("--instances", type=int, default=100, help="in each image, of the role outside")
    given, ros_arguments = parser.parse_known_args(arguments)
    if ros_arguments and ros_arguments[0] != "--ros-args":
        parser.error(f"unrecognized arguments: {' '.join(ros_arguments)}")
    if given.role == "camera":
        return play(given.topic, given.size, given.rate, given.count, given.photograph)
    if given.role == "naive":
        return spin_naive()
    if given.role == "watcher":
        return watch()
    if given.role == "busy":
        return keep_a_core_busy()
    if given.role == "outside":
        return run_outside(given.instances, ros_arguments)
    return run(lambda: PerceptionNode(open_null), [sys.argv[0], *ros_arguments])


if __name__ == "__main__":
    sys.exit(main())
