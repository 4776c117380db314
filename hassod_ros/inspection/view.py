"""A picture as it is compared: laid over the reference, under its light, with what the network sees in it."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np

from hassod_ros.inspection.align import Aligner, Alignment, lay_over
from hassod_ros.inspection.light import Light, match_light
from hassod_ros.instances import Instances

_BESIDE = ThreadPoolExecutor(1, "network")  # the network runs beside what does not need it
_RIM = 2  # pixels at the picture's border that are not looked at
FINE = 4  # pixels that colours are kept of
CELLS = 44  # of the longer side where there is no network to say how many
Observe = Callable[[np.ndarray], "tuple[Instances, np.ndarray | None]"]  # (H, W, 3) uint8 RGB -> as Segmenter.observe


@dataclass(frozen=True)
class View:
    """A picture laid over the reference of size (H, W).

    Attributes:
        pixels: (H, W, 3) uint8 RGB, under the reference's light, lightly smoothed against noise.
        covered: (H, W) bool, where the picture shows the part and it may be looked at.
        alignment: How it lay.
        light: What its light was changed by.
        instances: What the detector finds; None without one.
        network: (C, h, w) float32 features of cells; None without them.
        picture_size: (H', W') of the picture as it came.
        fine: See `fine_colours`.
        colours: (4, h, w) float32 of the same cells: mean L*, a*, b* (0 to 255 each) and deviation of L*.

    """

    pixels: np.ndarray
    covered: np.ndarray
    alignment: Alignment
    light: Light
    instances: Instances | None
    network: np.ndarray | None
    picture_size: tuple[int, int]
    fine: np.ndarray
    colours: np.ndarray

    @property
    def covered_cells(self) -> np.ndarray:
        """(h, w) bool: cells that are covered whole."""
        height, width = self.colours.shape[1:]
        cells = cv2.resize(self.covered.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA)
        whole: np.ndarray = cells > 0.98
        return whole


def look(picture: np.ndarray, aligner: Aligner, ideal: np.ndarray, mask: np.ndarray, observe: Observe | None) -> View:
    """Align a (H', W', 3) uint8 RGB picture to the reference picture `ideal` (H, W, 3) and let the network see it."""
    alignment = aligner(picture)
    return see(picture, alignment, ideal, mask, observe)


def see(
    picture: np.ndarray, alignment: Alignment, ideal: np.ndarray, mask: np.ndarray, observe: Observe | None
) -> View:
    """As `look`, where the alignment is known."""
    moved, covers = lay_over(picture, alignment.matrix, mask.shape)
    covers = cv2.erode(covers, np.ones((2 * _RIM + 1,) * 2, np.uint8), borderValue=255) & mask
    # The network sees the picture under the light it was taken in: it has learned to see past light.
    seen = None if observe is None else _BESIDE.submit(observe, moved)
    light = match_light(moved, ideal, covers)
    lit = light.apply(moved)
    pixels, fine = cv2.GaussianBlur(lit, (3, 3), 0), fine_colours(lit)
    instances, features = (None, None) if seen is None else seen.result()
    network = None if features is None else halve(features)
    size = cells_of(mask.shape) if network is None else (network.shape[1], network.shape[2])
    colours = to_cells(fine, size)
    return View(pixels, covers > 0, alignment, light, instances, network, picture.shape[:2], fine, colours)


def halve(features: np.ndarray) -> np.ndarray:
    """(C, h, w) -> (C, h // 2, w // 2) float32 means of two by two."""
    channels, height, width = features.shape
    even = features[:, : height // 2 * 2, : width // 2 * 2].astype(np.float32)
    return even.reshape(channels, height // 2, 2, width // 2, 2).mean(axis=(2, 4))


def cells_of(size: tuple[int, ...]) -> tuple[int, int]:
    """Rows and columns of cells of a picture (H, W) without a network."""
    scale = CELLS / max(size[:2])
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def colour_cells(pixels: np.ndarray, cells: tuple[int, int]) -> np.ndarray:
    """See `View.colours`; `cells` are their rows and columns."""
    return to_cells(fine_colours(pixels), cells)


def fine_colours(pixels: np.ndarray) -> np.ndarray:
    """(H / FINE, W / FINE, 4) float32: means of L*, a*, b* (0 to 255 each) and of the square of L*."""
    lab = cv2.cvtColor(pixels, cv2.COLOR_RGB2LAB)
    light = lab[..., 0]
    four = cv2.merge([lab.astype(np.float32), cv2.multiply(light, light, dtype=cv2.CV_32F)])
    height, width = pixels.shape[:2]
    size = (max(1, round(width / FINE)), max(1, round(height / FINE)))
    return np.asarray(cv2.resize(four, size, interpolation=cv2.INTER_AREA), np.float32)


def to_cells(fine: np.ndarray, cells: tuple[int, int], shift: tuple[float, float] = (0, 0)) -> np.ndarray:
    """`View.colours` of what `fine_colours` gave, of a picture moved by `shift` x y pixels."""
    if shift != (0, 0):
        matrix = np.array([[1, 0, shift[0] / FINE], [0, 1, shift[1] / FINE]], np.float64)
        size = (fine.shape[1], fine.shape[0])
        fine = cv2.warpAffine(fine, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    colours = np.asarray(cv2.resize(fine, (cells[1], cells[0]), interpolation=cv2.INTER_AREA), np.float32)
    colours[..., 3] = np.sqrt(np.maximum(colours[..., 3] - colours[..., 0] ** 2, 0))
    return np.ascontiguousarray(colours.transpose(2, 0, 1))
