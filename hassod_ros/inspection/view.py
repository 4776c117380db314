"""A picture as it is compared: laid over the reference, under its light, with what the network sees in it."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np

from hassod_ros.inspection.align import Alignment, lay_over
from hassod_ros.inspection.inventory import Detector
from hassod_ros.inspection.light import Light, match_light
from hassod_ros.instances import Instances

_BESIDE = ThreadPoolExecutor(1, "network")  # the network runs beside what does not need it
_RIM = 2  # pixels at the picture's border that are not looked at
FINE = 4  # pixels that colours are kept of
CELLS = 44  # of the longer side where there is no network to say how many
_BLANK = 3.0  # grey levels of deviation
Seen = tuple[Instances, "np.ndarray | None"]
Observe = Callable[[np.ndarray], Seen]  # (H, W, 3) uint8 RGB -> as Segmenter.observe


@dataclass(frozen=True)
class View:
    """A picture laid over the reference of size (H, W).

    Attributes:
        pixels: (H, W, 3) uint8 RGB, under the reference's light, lightly smoothed against noise.
        covered: (H, W) bool, where the picture shows the part and it may be looked at.
        alignment: How it lay.
        light: What its light was changed by.
        picture_size: (H', W') of the picture as it came.
        fine: See `fine_colours`.
        seen: What the network will have seen, once it has; None without a network.
        known_cells: Rows and columns of its cells where they are known before it has.

    """

    pixels: np.ndarray
    covered: np.ndarray
    alignment: Alignment
    light: Light
    picture_size: tuple[int, int]
    fine: np.ndarray
    seen: Future[Seen] | None
    known_cells: tuple[int, ...] | None = None

    @property
    def instances(self) -> Instances | None:
        """What the detector finds; None without one. Waits for the network."""
        return None if self.seen is None else self.seen.result()[0]

    @cached_property
    def detector(self) -> Detector:
        """The same, to be asked about places."""
        return Detector(self.instances)

    @cached_property
    def network(self) -> np.ndarray | None:
        """(C, h, w) float32 features of cells; None without them. Waits for the network."""
        features = None if self.seen is None else self.seen.result()[1]
        return None if features is None else halve(features)

    @cached_property
    def cells(self) -> tuple[int, int]:
        """Rows and columns of cells. Waits for the network where they are not known."""
        size = self.known_cells or (cells_of(self.covered.shape) if self.network is None else self.network.shape[1:])
        return size[0], size[1]

    @cached_property
    def colours(self) -> np.ndarray:
        """(4, h, w) float32 of the same cells: mean L*, a*, b* (0 to 255 each) and deviation of L*."""
        return to_cells(self.fine, self.cells)

    @cached_property
    def covered_cells(self) -> np.ndarray:
        """(h, w) bool: cells that are covered whole."""
        height, width = self.cells
        cells = cv2.resize(self.covered.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA)
        whole: np.ndarray = cells > 0.98
        return whole


def smoothed(pixels: np.ndarray) -> np.ndarray:
    """Pixels as they are compared, with less noise."""
    return cv2.GaussianBlur(pixels, (3, 3), 0)


def blank(picture: np.ndarray) -> bool:
    """Whether a (H, W, 3) uint8 picture is of nearly one grey level throughout."""
    mean, deviation = cv2.meanStdDev(picture)
    return bool((deviation**2 + mean**2).mean() - mean.mean() ** 2 < _BLANK**2)


def see(
    picture: np.ndarray,
    alignment: Alignment,
    ideal: np.ndarray,
    mask: np.ndarray,
    observe: Observe | None,
    cells: tuple[int, ...] | None = None,
) -> View:
    """A picture as it is compared; the network goes on beside what does not need it.

    Args:
        picture: (H', W', 3) uint8 RGB.
        alignment: How it lies over the reference.
        ideal: (H, W, 3) uint8 RGB of the reference.
        mask: (H, W) uint8, 0 where it is not looked at.
        observe: The network; None without one.
        cells: Rows and columns of its cells, where they are known.

    """
    moved, covers = lay_over(picture, alignment.matrix, mask.shape)
    # The network sees the picture under the light it was taken in: it has learned to see past light.
    seen = None if observe is None else _BESIDE.submit(observe, moved)
    covers = cv2.erode(covers, np.ones((2 * _RIM + 1,) * 2, np.uint8), borderValue=255) & mask
    light = match_light(moved, ideal, covers)
    lit = light.apply(moved)
    size = (picture.shape[0], picture.shape[1])
    return View(smoothed(lit), covers > 0, alignment, light, size, fine_colours(lit), seen, cells)


def halve(features: np.ndarray) -> np.ndarray:
    """(C, h, w) -> (C, h // 2, w // 2) float32 means of two by two."""
    height, width = features.shape[1:]
    even = features[:, : height // 2 * 2, : width // 2 * 2].astype(np.float32, copy=False)
    rows = even[:, ::2] + even[:, 1::2]
    halved: np.ndarray = (rows[..., ::2] + rows[..., 1::2]) * np.float32(0.25)
    return halved


def cells_of(size: tuple[int, ...]) -> tuple[int, int]:
    """Rows and columns of cells of a picture (H, W) without a network."""
    scale = CELLS / max(size[:2])
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def colour_cells(pixels: np.ndarray, cells: tuple[int, int]) -> np.ndarray:
    """See `View.colours`; `cells` are their rows and columns."""
    return to_cells(fine_colours(pixels), cells)


def fine_colours(pixels: np.ndarray) -> np.ndarray:
    """(H / FINE, W / FINE, 4) float32: mean L*, a*, b* (0 to 255 each), and the mean square of the light."""
    height, width = pixels.shape[:2]
    size = (max(1, round(width / FINE)), max(1, round(height / FINE)))
    lab = cv2.cvtColor(_means(pixels, size).astype(np.float32) / np.float32(255), cv2.COLOR_RGB2LAB)
    light, a, b = cv2.split(lab)
    light *= np.float32(2.55)
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY).astype(np.float32)
    spread = _means(cv2.multiply(grey, grey), size) - _means(grey, size) ** 2
    return np.asarray(cv2.merge([light, a + 128, b + 128, light**2 + np.maximum(spread, 0)]), np.float32)


def _means(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA))


def to_cells(fine: np.ndarray, cells: tuple[int, int], shift: tuple[float, float] = (0, 0)) -> np.ndarray:
    """`View.colours` of what `fine_colours` gave, of a picture moved by `shift` x y pixels."""
    if shift != (0, 0):
        matrix = np.array([[1, 0, shift[0] / FINE], [0, 1, shift[1] / FINE]], np.float64)
        size = (fine.shape[1], fine.shape[0])
        fine = cv2.warpAffine(fine, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    colours = np.asarray(cv2.resize(fine, (cells[1], cells[0]), interpolation=cv2.INTER_AREA), np.float32)
    colours[..., 3] = np.sqrt(np.maximum(colours[..., 3] - colours[..., 0] ** 2, 0))
    return np.ascontiguousarray(colours.transpose(2, 0, 1))
