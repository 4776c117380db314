"""Surfaces whose pattern never repeats: every cell must look like some cell of the good pictures, wherever that was.

After PatchCore (Roth et al., 2022): distance to the nearest cells of a memory of good ones, of each cell and of the
means of those around it, near and far: a hole is one cell, a patch that was not ground is many. The memory is a random
part of them, which costs nothing to choose; the features are those of the detector, or colours where there is none.
Near a picture's border good cells differ more, as the network sees less there: distances are taken in what is usual so
far from it, then in the deviations of all, so that the worst of the scales counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from hassod_ros.inspection.view import Observe, cells_of, colour_cells, halve

_MEMORY = 4000  # cells; more found no more defects, measured on magnetic tiles
_NEIGHBOURS = 3  # nearest cells that a distance is the mean of
_SCALES = (1, 5, 9)  # cells each way, that a mean is taken of
_RIM = 7  # cells from the border, from which on all places are alike
_WIDE = 6.0  # cells; a defect is rarely one cell: half of what is measured is smoothed so
_FIRM = 0.03  # deviation that is added to that of distances: where all cells are alike, little is no defect
_SEED = 0


@dataclass(frozen=True)
class Texture:
    """What cells of a good surface look like, at S scales: by themselves, and by the means of those around them.

    Attributes:
        memory: (S, M, C) float32 evened cells.
        channels: (S, 2, C) float32, mean and deviation that they are evened out with.
        rim: (S, _RIM + 1) float32, distance that is usual so many cells from the border, over what is in the middle.
        usual: (S, 2) float32, mean and deviation of such distances over all cells.
        network: 1 where the cells are the detector's features, 0 where they are colours.
        scores: (K,) float32, largest distance of each good picture to the others.

    """

    memory: np.ndarray
    channels: np.ndarray
    rim: np.ndarray
    usual: np.ndarray
    network: int
    scores: np.ndarray

    @classmethod
    def learn(cls, regions: Sequence[tuple[np.ndarray, np.ndarray]], observe: Observe | None) -> Texture:
        """From K pictures (H, W, 3) uint8 RGB of any size and their masks (H, W) uint8."""
        maps = [_cells(picture, observe) for picture, _ in regions]
        used = [_covered(mask, each[0]) for (_, mask), each in zip(regions, maps, strict=True)]
        every = np.concatenate([each[:, :, use] for each, use in zip(maps, used, strict=True)], axis=2)
        deviation = (every.std(axis=2) + 1e-3) * np.sqrt(every.shape[1])
        channels = np.stack([every.mean(axis=2), deviation], axis=1).astype(np.float32)
        owners = np.repeat(np.arange(len(maps)), [np.count_nonzero(use) for use in used])
        chosen = np.sort(np.random.default_rng(_SEED).permutation(len(owners))[:_MEMORY])
        memory = _evened(every[:, :, chosen], channels)
        owners = owners[chosen]
        found = [_distances(each, channels, memory[:, owners != k]) for k, each in enumerate(maps)]
        places = np.concatenate([_from_border(each.shape[1:])[use] for each, use in zip(found, used, strict=True)])
        distances = np.concatenate([each[:, use] for each, use in zip(found, used, strict=True)], axis=1)
        rim = np.stack([_by_rim(places, each) for each in distances])
        distances /= rim[:, places]
        usual = np.stack([distances.mean(axis=1), distances.std(axis=1) + _FIRM], axis=1).astype(np.float32)
        scores = [float((_worst(each, rim, usual) * use).max()) for each, use in zip(found, used, strict=True)]
        return cls(memory, channels, rim, usual, int(observe is not None), np.array(scores, np.float32))

    def measure(self, picture: np.ndarray, mask: np.ndarray, observe: Observe | None) -> np.ndarray:
        """(H, W) float32: distance at each pixel of (H, W, 3) uint8 RGB where `mask` (H, W) uint8 is not 0.

        It is counted in deviations above what is usual, 0 below it.
        """
        cells = _cells(picture, observe if self.network else None)
        distances = _worst(_distances(cells, self.channels, self.memory), self.rim, self.usual)
        distances *= _covered(mask, cells[0])
        wide = cv2.resize(distances, (mask.shape[1], mask.shape[0]), interpolation=cv2.INTER_LINEAR)
        return wide * (mask > 0)


def _cells(picture: np.ndarray, observe: Observe | None) -> np.ndarray:
    """(S, C, h, w) float32: the means of cells at each scale."""
    features = None if observe is None else observe(picture)[1]
    own = colour_cells(picture, cells_of(picture.shape)) if features is None else halve(features)
    means = [[cv2.blur(each, (side, side), borderType=cv2.BORDER_REFLECT) for each in own] for side in _SCALES]
    return np.array(means)


def _covered(mask: np.ndarray, cells: np.ndarray) -> np.ndarray:
    """(h, w) bool: cells that may be looked at."""
    share = cv2.resize(mask, (cells.shape[2], cells.shape[1]), interpolation=cv2.INTER_AREA)
    covered: np.ndarray = share > 250
    return covered


def _evened(cells: np.ndarray, channels: np.ndarray) -> np.ndarray:
    """(S, N, C) float32 of cells (S, C, N)."""
    evened: np.ndarray = (cells.transpose(0, 2, 1) - channels[:, :1]) / channels[:, 1:]
    return evened


def _distances(cells: np.ndarray, channels: np.ndarray, memory: np.ndarray) -> np.ndarray:
    """(S, h, w) float32 mean distance of cells (S, C, h, w) to their nearest in memory."""
    found = []
    for evened, known in zip(_evened(cells.reshape(*cells.shape[:2], -1), channels), memory, strict=True):
        squares = (known**2).sum(axis=1) - 2 * evened @ known.T
        count = min(_NEIGHBOURS, len(known))
        nearest = np.partition(squares, count - 1, axis=1)[:, :count].mean(axis=1) + (evened**2).sum(axis=1)
        found.append(np.sqrt(np.maximum(nearest, 0)).reshape(cells.shape[2:]))
    return np.stack(found)


def _from_border(shape: tuple[int, ...]) -> np.ndarray:
    """(h, w) how many cells from the border, at most `_RIM`."""
    rows, columns = (np.minimum(np.arange(side), np.arange(side)[::-1]) for side in shape)
    return np.minimum(np.minimum.outer(rows, columns), _RIM)


def _by_rim(places: np.ndarray, distances: np.ndarray) -> np.ndarray:
    """(_RIM + 1,) float32: mean of distances (N,) at places (N,) from `_from_border`, over that of the innermost."""
    sums, counts = np.bincount(places, distances, _RIM + 1), np.bincount(places, minlength=_RIM + 1)
    middle = max(float(sums[places.max()] / counts[places.max()]), 1e-6)
    return np.where(sums > 0, sums / np.maximum(counts, 1) / middle, 1).astype(np.float32)


def _worst(distances: np.ndarray, rim: np.ndarray, usual: np.ndarray) -> np.ndarray:
    """(h, w) float32 of (S, h, w) distances: the worst of the scales in what is usual, half of it smoothed."""
    evened = distances / rim[:, _from_border(distances.shape[1:])]
    worst = ((evened - usual[:, :1, None]) / usual[:, 1:, None]).max(axis=0).clip(0)
    wide = cv2.GaussianBlur(worst, (0, 0), _WIDE, borderType=cv2.BORDER_REFLECT)
    mixed: np.ndarray = (worst + wide) / 2
    return mixed
