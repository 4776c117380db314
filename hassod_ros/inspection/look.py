"""How each component looks as a whole: colour and features against its surroundings.

A mean over a component, less that of what surrounds it, is the same where the part lies some pixels off, seen from
elsewhere or under other light: what single pixels and cells are not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from hassod_ros.inspection.inventory import Component, Detector, surroundings

_RING = 0.5  # width of the surroundings, of the square root of the component's area
_SEEN = 0.2  # weight of what the detector overlooks: by itself no more than the limit
_USUAL = 0.2 / 1.5  # unlikeness that a component may always have, before the margin
# A good picture is strange where the detector hardly sees a component, and its features are so many times as unlike as
# is usual, and beyond `_USUAL` with its margin: either alone happens to good parts.
_OVERLOOKED, _ODD, _MARGIN = 0.5, 3.0, 1.5
_LEAST_CELLS = 4  # of a component; what is smaller changes its features where it lies some pixels off
_COVERED = 0.9  # share of a component that a picture must show to say how it looks
_SHIFTS = ((0, 0), (0, 1), (1, 0), (0, -1), (-1, 0))  # cells that a component may lie off


@dataclass(frozen=True)
class Looks:
    """How the N components of K good pictures look, on maps of h x w cells.

    Attributes:
        inside: (N, h, w) float32, weights of cells for each component; each sums to 1.
        around: (N, h, w) float32, likewise for its surroundings.
        bank: (K, N, ...) float32, how they look.
        scale: (N,) float32, how far off is usual.
        scores: (K,) float32, how far off each good picture is from the others at most, in `scale`.

    """

    inside: np.ndarray
    around: np.ndarray
    bank: np.ndarray
    scale: np.ndarray
    scores: np.ndarray


@dataclass(frozen=True)
class ComponentBand(Looks):
    """Components near one of those of the good pictures; the bank is (K, N, D), the scale a distance."""

    @classmethod
    def learn(cls, good: Sequence[np.ndarray], components: Sequence[Component], size: tuple[int, int]) -> ComponentBand:
        """From K maps (C, h, w) and at least one component of a reference of `size` (H, W)."""
        weights = _places(components, size, (good[0].shape[2], good[0].shape[1]))
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


@dataclass(frozen=True)
class Likeness(Looks):
    """Whether the N components of K good pictures are there, by the network's features and by what the detector sees.

    Unlikeness is 1 less the cosine of the features of a component with those of the good picture most like it (the mean
    of two: of what it looks like, and of what tells it from its surroundings), and 0.2 of what the detector sees less
    of it than in the worst good picture: what it overlooks in good parts says nothing. Unlikeness is 0 for what looks
    as taught, and means the same for every component, so that a few good pictures need not show how far off is too far:
    the scale is at least `_USUAL`. The bank is (K, N, 2, C), unit vectors; NaN where a picture does not show a
    component or seems to lack it, and for small components, which are always like enough.

    Attributes:
        sees: (N,) float32, 0 to 1, how well the detector sees each component at least, see `agreements`.

    """

    sees: np.ndarray

    @classmethod
    def learn(
        cls,
        good: Sequence[np.ndarray],
        covered: Sequence[np.ndarray],
        seen: Sequence[np.ndarray],
        components: Sequence[Component],
        size: tuple[int, int],
    ) -> Likeness:
        """From K maps (C, h, w) as the network gives them.

        Args:
            good: The maps.
            covered: K of (H, W) bool, what the pictures show.
            seen: K of (N,) float32, see `agreements`.
            components: At least one.
            size: (H, W) of the reference.

        """
        weights = _places(components, size, (good[0].shape[2], good[0].shape[1]))
        masks = [component.full(size) for component in components]
        shown = np.array([[here[mask].mean() >= _COVERED for mask in masks] for here in covered])  # (K, N)
        cell = size[0] * size[1] / (good[0].shape[1] * good[0].shape[2])
        shown &= np.array([component.area >= _LEAST_CELLS * cell for component in components])
        bank = np.stack([_directions(each, *weights) for each in good])
        bank[~shown] = np.nan
        unlike = np.stack([_unlikeness(each, *weights, np.delete(bank, k, axis=0)) for k, each in enumerate(good)])
        usual = [
            float(np.median(each[here])) if here.any() else 0.0 for each, here in zip(unlike.T, shown.T, strict=True)
        ]
        strange = shown & (np.array(seen) < _OVERLOOKED)
        strange &= unlike > np.maximum(_ODD * np.array(usual), _MARGIN * _USUAL)
        bank[strange] = np.nan
        sees = np.where(shown & ~strange, np.minimum(seen, 1), 1).min(axis=0).astype(np.float32)
        # What is usual, and the limit that follows from it, also count what the detector overlooks in good pictures.
        unlike = np.where(shown, unlike + _SEEN * (1 - np.minimum(seen, 1)), 0)
        odd = unlike > np.maximum(_ODD * np.median(unlike, axis=0), _MARGIN * _USUAL)
        scale = np.maximum(np.where(odd, 0, unlike).max(axis=0), _USUAL).astype(np.float32)
        scores = (unlike / scale).max(axis=1).astype(np.float32)
        return cls(*weights, bank.astype(np.float32), scale, scores, sees)

    def measure(self, cells: np.ndarray, seen: np.ndarray) -> np.ndarray:
        """(N,) float32: how unlike each component of a map (C, h, w) is, in `scale`; `seen` (N,) from `agreements`."""
        overlooked = np.maximum(self.sees - seen, 0) / np.maximum(self.sees, 1e-6)
        unlike = _unlikeness(cells, self.inside, self.around, self.bank)
        measured: np.ndarray = (unlike + np.float32(_SEEN) * overlooked) / self.scale
        return measured


def agreements(detector: Detector, masks: Sequence[np.ndarray], components: Sequence[Component]) -> np.ndarray:
    """(N,) float32, 0 to 1: how well the detector sees each component; `masks` are theirs, N of (H, W) bool."""
    return np.array(
        [detector.agreement(mask, each.overlap) for mask, each in zip(masks, components, strict=True)], np.float32
    )


def _unlikeness(cells: np.ndarray, inside: np.ndarray, around: np.ndarray, bank: np.ndarray) -> np.ndarray:
    """(N,) of the features of a map (C, h, w) to a bank (K, N, 2, C); 0 where the bank knows nothing of a component."""
    cosines = np.einsum("npc,knpc->knp", _directions(cells, inside, around), bank)
    unlike = 1 - np.fmax.reduce(cosines, axis=0).mean(axis=1)
    return np.where(np.isfinite(unlike), unlike, 0).astype(np.float32)


def _directions(cells: np.ndarray, inside: np.ndarray, around: np.ndarray) -> np.ndarray:
    """(N, 2, C) unit vectors: the mean of each component, and that less the mean of its surroundings."""
    flat = cells.reshape(len(cells), -1).T
    own = inside.reshape(len(inside), -1) @ flat
    both = np.stack([own, own - around.reshape(len(around), -1) @ flat], axis=1)
    unit: np.ndarray = both / np.maximum(np.linalg.norm(both, axis=2, keepdims=True), 1e-9)
    return unit


def _places(
    components: Sequence[Component], size: tuple[int, int], shape: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Weights (N, h, w) of the cells of components and of their surroundings; `shape` is w, h."""
    inside, around = [], []
    for component in components:
        mask = component.full(size)
        ring = surroundings(mask, max(3.0, _RING * np.sqrt(component.area)))
        inside.append(_weights(mask, shape))
        around.append(_weights(ring if ring.any() else mask, shape))
    return np.stack(inside), np.stack(around)


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
