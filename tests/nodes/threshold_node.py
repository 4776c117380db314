"""perception_node around a segmenter whose answer is known: nested regions by brightness."""

import sys
import time
from pathlib import Path

import cv2
import numpy as np

from hassod_ros.instances import Instances
from hassod_ros.nodes import camera
from hassod_ros.nodes.perception_node import PerceptionNode
from hassod_ros.nodes.run import run
from hassod_ros.runtime.selection import Selection
from hassod_ros.runtime.tracking import Tracker

BRIGHTNESS = (50, 120, 200)  # of whole, part and subpart


class Threshold:
    """Whole, part and subpart are where it is brighter than `BRIGHTNESS`; the score is the red of the region's corner.

    An image that is white all over makes it fail, one that is nearly white takes for ever.
    """

    info = None
    backend = ""
    batch = 1

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds

    def configure(self, selection: Selection) -> None:
        pass

    def __call__(self, image: np.ndarray, *, color_order: str = "RGB") -> Instances:
        time.sleep(self.seconds)
        if image.min() == 255:
            raise RuntimeError("white")
        if image.min() == 254:
            time.sleep(1000)
        red = image[..., 0 if color_order == "RGB" else 2]
        gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY if color_order == "RGB" else cv2.COLOR_BGR2GRAY)
        masks = [mask for mask in (gray > value for value in BRIGHTNESS) if mask.any()]
        corners = [np.argwhere(mask)[0] + 4 for mask in masks]
        n = len(masks)
        return Instances.from_dense(
            np.array(masks).reshape(n, *gray.shape),
            image_size=gray.shape,
            levels=np.arange(n, dtype=np.uint8),
            parents=np.arange(-1, n - 1, dtype=np.int32),
            scores=np.array([red[y, x] / 255 for y, x in corners], np.float32),
        )

    def segment(self, images: list[np.ndarray], *, color_order: str = "RGB") -> list[Instances]:
        return [self(image, color_order=color_order) for image in images]

    def warm_up(self) -> None:
        pass

    def close(self) -> None:
        pass


class Broken(Threshold):
    def __call__(self, image: np.ndarray, *, color_order: str = "RGB") -> Instances:
        raise RuntimeError("white")


class Leaping(Tracker):
    """After the first thing, the ids go on at 65,536, as after an hour of new things."""

    def update(self, instances: Instances, time: float, image: np.ndarray | None = None) -> Instances:
        found = super().update(instances, time, image)
        self._next_id = max(self._next_id, 65_536 if self._next_id > 1 else 1)
        return found


def open_model(model: str) -> Threshold:
    """`threshold`, `threshold:SECONDS` for a slow one, `slow_to_load:SECONDS`, `load_with:FILE`, `broken`; `leaping`:
    with a tracker that is.
    """
    name, _, seconds = model.partition(":")
    if name == "load_with":
        while not Path(seconds).exists():
            time.sleep(0.01)
        return Threshold()
    if name == "leaping":
        camera.Tracker = Leaping
    if name == "broken":
        return Broken()
    if name == "slow_to_load":
        time.sleep(float(seconds))
        return Threshold()
    return Threshold(float(seconds or 0))


if __name__ == "__main__":
    sys.exit(run(lambda: PerceptionNode(open_model)))
