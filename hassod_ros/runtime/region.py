"""The part of a camera's image that is looked at: a rectangle, and what in it does not count."""

from __future__ import annotations

import os
from collections.abc import Sequence

import cv2
import numpy as np

from hassod_ros.errors import InputError
from hassod_ros.images import read_image
from hassod_ros.instances import Instances

_WHITE = 128  # from here on a pixel of the ignore mask is white
_MOSTLY = 0.5  # share of an instance on white pixels above which it does not count


class Region:
    """Cuts images before they are segmented, and puts what was found in its place.

    Args:
        rectangle: x, y, width and height in pixels; with a width or height of 0 the image goes up to its edge.
        ignored: (H, W) bool of the whole image. Instances that lie mostly on it are left out: the robot's own gripper,
            a screen, a walkway behind the cell.

    """

    def __init__(self, rectangle: Sequence[int] = (0, 0, 0, 0), ignored: np.ndarray | None = None) -> None:
        self._x, self._y, self._width, self._height = rectangle
        self._ignored = ignored

    @classmethod
    def load(cls, rectangle: Sequence[int], mask: str | os.PathLike = "") -> Region:
        """A region with the ignore mask of an image file, in which white is ignored; "" = none.

        Raises:
            InputError: The file cannot be read, or the rectangle is not four numbers that make one.

        """
        if len(rectangle) != 4 or min(rectangle) < 0:
            raise InputError(f"a region is x, y, width and height in pixels, none below 0, not {list(rectangle)}")
        if not mask:
            return cls(rectangle)
        gray = cv2.cvtColor(read_image(os.path.expanduser(mask)), cv2.COLOR_RGB2GRAY)
        return cls(rectangle, gray >= _WHITE)

    def crop(self, pixels: np.ndarray) -> np.ndarray:
        """The part of (H, W, 3) uint8 pixels to be segmented; not a copy.

        Raises:
            InputError: The region does not lie in the image, or the ignore mask is of another size.

        """
        height, width = pixels.shape[:2]
        if self._ignored is not None and self._ignored.shape != (height, width):
            rows, columns = self._ignored.shape
            raise InputError(f"the ignore mask is {columns} x {rows}, the image {width} x {height}; draw it anew")
        right = self._x + self._width if self._width else width
        bottom = self._y + self._height if self._height else height
        if right > width or bottom > height or self._x >= right or self._y >= bottom:
            rectangle = [self._x, self._y, self._width, self._height]
            raise InputError(f"the region {rectangle} does not lie in the image of {width} x {height}; change it")
        return pixels[self._y : bottom, self._x : right]

    def place(self, instances: Instances, image_size: tuple[int, int]) -> Instances:
        """What was found in the cut of an image of `image_size` (H, W), in pixels of that image."""
        if instances.image_size != tuple(image_size):
            instances = self._shift(instances, image_size)
        if self._ignored is None or not len(instances):
            return instances
        shares = [
            self._ignored[y0:y1, x0:x1][mask.view(bool)].mean()
            for mask, (x0, y0, x1, y1) in zip(instances.masks, instances.regions.tolist(), strict=True)
        ]
        return instances.select(np.flatnonzero(np.array(shares) <= _MOSTLY))

    def _shift(self, instances: Instances, image_size: tuple[int, int]) -> Instances:
        offset = np.array([self._x, self._y] * 2)
        regions = (instances.regions + offset).astype(np.float32)
        boxes = (instances.boxes.astype(np.float64) + offset).astype(np.float32)
        # Far from the corner a float32 has fewer places behind the point: a box must stay inside its whole pixels.
        low, high = regions[:, :2], regions[:, 2:]
        boxes[:, :2] = np.clip(boxes[:, :2], low, np.nextafter(low + 1, low))
        boxes[:, 2:] = np.clip(boxes[:, 2:], np.nextafter(high - 1, high), high)
        return Instances(
            image_size=image_size,
            boxes=boxes,
            masks=instances.masks,
            scores=instances.scores,
            levels=instances.levels,
            parents=instances.parents,
            ids=instances.ids,
            scene=instances.scene,
        )
