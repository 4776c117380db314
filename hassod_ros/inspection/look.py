"""How each component looks as a whole: colour and features against its surroundings.

A mean over a component, less that of what surrounds it, is the same where the part lies some pixels off, seen from
elsewhere or under other light: what single pixels and cells are not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from hassod_ros.inspection.inventory import Component

_RING = 0.5  # width of the surroundings, of the square root of the component's area
_SHIFTS = ((0, 0), (0, 1), (1, 0), (0, -1), (-1, 0))  # cells that a component may lie off


@dataclass(frozen=True)
class ComponentBand:
    """How the N components of K good pictures look.

    Attributes:
        inside: (N, h, w) float32, weights of cells for each component; each sums to 1.
        around: (N, h, w) float32, likewise for its surroundings.
        bank: (K, N, D) float32, how they look.
        scale: (N,) float32, distance that is usual.
        scores: (K,) float32, largest distance of each good picture to the others, in `scale`.

    """

    inside: np.ndarray
    around: np.ndarray
    bank: np.ndarray
    scale: np.ndarray
    scores: np.ndarray

    @classmethod
    def learn(cls, good: Sequence[np.ndarray], components: Sequence[Component], size: tuple[int, int]) -> ComponentBand:
        """From K maps (C, h, w) and at least one component of a reference of `size` (H, W)."""
        shape = (good[0].shape[2], good[0].shape[1])
        inside, around = [], []
        for component in components:
            mask = component.full(size).view(np.uint8)
            width = max(3, round(_RING * np.sqrt(component.area)))
            kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * width + 1, 2 * width + 1))
            ring = cv2.dilate(mask, kernel) - mask
            inside.append(_weights(mask, shape))
            around.append(_weights(ring if ring.any() else mask, shape))
        weights = np.stack(inside), np.stack(around)
        bank = np.stack([_describe(each, *weights) for each in good])
        distances = np.stack(
            [_distances(each, *weights, np.delete(bank, k, axis=0)) for k, each in enumerate(good)]
        )  # (K, N)
        usual = distances.mean(axis=0)
        scale = ((usual + max(float(np.median(usual)), 1e-3)) / 2).astype(np.float32)
        return cls(*weights, bank, scale, (distances / scale).max(axis=1).astype(np.float32))

    def measure(self, cells: np.ndarray) -> np.ndarray:
        """(N,) float32: how far each component of a map (C, h, w) is from the nearest good one, in what is usual."""
        measured: np.ndarray = _distances(cells, self.inside, self.around, self.bank) / self.scale
        return measured


def _weights(mask: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    cells = cv2.resize(mask.astype(np.float32), shape, interpolation=cv2.INTER_AREA)
    weights: np.ndarray = cells / max(float(cells.sum()), 1e-6)
    return weights


def _describe(cells: np.ndarray, inside: np.ndarray, around: np.ndarray) -> np.ndarray:
    """(N, C): mean of each component less that of its surroundings."""
    flat = cells.reshape(len(cells), -1).T
    difference: np.ndarray = (inside - around).reshape(len(inside), -1) @ flat
    return difference


def _distances(cells: np.ndarray, inside: np.ndarray, around: np.ndarray, bank: np.ndarray) -> np.ndarray:
    """(N,) distance of each component of a map (C, h, w) to the nearest of (K, N, C), a cell off or not."""
    tried = [_nearest(_describe(np.roll(cells, shift, axis=(1, 2)), inside, around), bank) for shift in _SHIFTS]
    nearest: np.ndarray = np.min(tried, axis=0)
    return nearest


def _nearest(looks: np.ndarray, bank: np.ndarray) -> np.ndarray:
    """(N,) distance of looks (N, D) to the nearest of (K, N, D)."""
    return np.sqrt(((looks - bank) ** 2).sum(axis=2).min(axis=0))
