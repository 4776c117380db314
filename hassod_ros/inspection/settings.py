"""What may be set about an inspection."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from hassod_ros.errors import InputError

METHODS = ("aligned", "texture")
Polygon = tuple[tuple[float, float], ...]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How parts are taught and judged.

    Attributes:
        method: "aligned": a part that looks the same each time. "texture": a surface whose pattern never repeats.
        roi: x, y, width, height in pixels of the picture that is looked at; None = all of it.
        ignore: Polygons of x, y in picture pixels that are not looked at; they lie where they lie in the reference.
        position: Pixels that edges may lie off, and components, beyond what good pictures show.
        angle: Degrees that the part may be turned.
        margin: How much worse than the worst good picture a part may be.
        least_area: Pixels; smaller spots are no finding.

    Raises:
        InputError: A value cannot be.

    """

    method: str = "aligned"
    roi: tuple[int, int, int, int] | None = None
    ignore: tuple[Polygon, ...] = ()
    position: float = 3.0
    angle: float = 30.0
    margin: float = 1.5
    least_area: int = 10

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise InputError(f"method is {self.method!r}; choose one of {', '.join(METHODS)}")
        if self.roi is not None and (len(self.roi) != 4 or min(self.roi) < 0 or min(self.roi[2:]) < 16):
            raise InputError(f"roi is {self.roi}; give x, y, width and height, at least 16 pixels each way")
        if any(len(polygon) < 3 for polygon in self.ignore):
            raise InputError("a polygon to ignore has fewer than 3 corners; give x and y of at least 3")
        for name, low, high in (("position", 0, 50), ("angle", 0, 180), ("margin", 1, 20), ("least_area", 1, 1e6)):
            if not low <= getattr(self, name) <= high:
                raise InputError(f"{name} is {getattr(self, name)}; it must lie between {low} and {high:g}")

    def window(self, size: tuple[int, int]) -> tuple[int, int, int, int]:
        """x, y, width, height of the region of a picture (H, W) that is looked at.

        Raises:
            InputError: It does not lie in the picture.

        """
        height, width = size
        if self.roi is None:
            return 0, 0, width, height
        x, y, columns, rows = self.roi
        if x + columns > width or y + rows > height:
            raise InputError(f"the roi {self.roi} reaches beyond a picture of {width} x {height}; make it smaller")
        return self.roi

    def mask(self, size: tuple[int, int]) -> np.ndarray:
        """(rows, columns) uint8 of the window of a picture (H, W), 0 where it is ignored, else 255.

        Raises:
            InputError: Nothing is left.

        """
        x, y, columns, rows = self.window(size)
        mask = np.full((rows, columns), 255, np.uint8)
        for polygon in self.ignore:
            corners = np.round(np.array(polygon) - (x, y)).astype(np.int32)
            cv2.fillPoly(mask, [corners], 0)
        if np.count_nonzero(mask) < 256:
            raise InputError("the polygons to ignore leave nothing to look at; make them smaller")
        return mask


def parse_polygons(texts: Sequence[str]) -> tuple[Polygon, ...]:
    """Polygons of texts such as "10,10 60,10 60,40".

    Raises:
        InputError: A text is not of this form.

    """
    polygons = []
    for text in filter(str.strip, texts):
        try:
            corners = tuple((float(x), float(y)) for x, y in (pair.split(",") for pair in text.split()))
        except ValueError as error:
            raise InputError(f'{text!r} is no polygon; write x,y pairs such as "10,10 60,10 60,40"') from error
        polygons.append(corners)
    return tuple(polygons)
