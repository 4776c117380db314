"""Surfaces whose pattern never repeats: every cell must look like some cell of the good pictures, wherever that was.

After PatchCore (Roth et al., 2022): distance to the nearest cells of a memory of good ones, of each cell and of the
mean of those around it. The memory is a random part of them, which costs nothing to choose; the features are those of
the detector, or colours where there is none. Near a picture's border good cells differ more, as the network sees less
there: distances are taken in what is usual so far from it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from hassod_ros.inspection.view import Observe, cells_of, colour_cells, halve

_MEMORY = 4000  # cells; more found no more defects, measured on magnetic tiles
_NEIGHBOURS = 3  # nearest cells that a distance is the mean of
_AROUND = 5  # cells each way, that a mean is taken of
_RIM = 7  # cells from the border, from which on all places are alike
_WIDE = 6.0  # cells; a defect is rarely one cell: half of what is measured is smoothed so
_SEED = 0


@dataclass(frozen=True)
class Texture:
    """What cells of a good surface look like: by themselves, and by the mean of those around them.

    Attributes:
        memory: (2, M, C) float32 evened cells, and means.
        channels: (2, 2, C) float32 of both, mean and deviation that they are evened out with.
        rim: (_RIM + 1,) float32, distance that is usual so many cells from the border, over what is in the middle.
        network: 1 where the cells are the detector's features, 0 where they are colours.
        scores: (K,) float32, largest distance of each good picture to the others.

    """

    memory: np.ndarray
    channels: np.ndarray
    rim: np.ndarray
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
        places = np.concatenate([_from_border(each.shape)[use] for each, use in zip(found, used, strict=True)])
        usual = np.concatenate([each[use] for each, use in zip(found, used, strict=True)])
        middle = float(usual[places == places.max()].mean())
        sums, counts = np.bincount(places, usual, _RIM + 1), np.bincount(places, minlength=_RIM + 1)
        rim = np.where(sums > 0, sums / np.maximum(counts, 1) / max(middle, 1e-6), 1).astype(np.float32)
        scores = [float((_smoothed(each, rim) * use).max()) for each, use in zip(found, used, strict=True)]
        return cls(memory, channels, rim, int(observe is not None), np.array(scores, np.float32))

    def measure(self, picture: np.ndarray, mask: np.ndarray, observe: Observe | None) -> np.ndarray:
        """(H, W) float32: distance at each pixel of (H, W, 3) uint8 RGB where `mask` (H, W) uint8 is not 0."""
        cells = _cells(picture, observe if self.network else None)
        distances = _smoothed(_distances(cells, self.channels, self.memory), self.rim) * _covered(mask, cells[0])
        wide = cv2.resize(distances, (mask.shape[1], mask.shape[0]), interpolation=cv2.INTER_LINEAR)
        return wide * (mask > 0)


def _cells(picture: np.ndarray, observe: Observe | None) -> np.ndarray:
    """(2, C, h, w) float32: cells, and the mean of those around each."""
    features = None if observe is None else observe(picture)[1]
    own = colour_cells(picture, cells_of(picture.shape)) if features is None else halve(features)
    around = [cv2.blur(each, (_AROUND, _AROUND), borderType=cv2.BORDER_REFLECT) for each in own]
    return np.stack([own, np.stack(around)])


def _covered(mask: np.ndarray, cells: np.ndarray) -> np.ndarray:
    """(h, w) bool: cells that may be looked at."""
    share = cv2.resize(mask, (cells.shape[2], cells.shape[1]), interpolation=cv2.INTER_AREA)
    covered: np.ndarray = share > 250
    return covered


def _evened(cells: np.ndarray, channels: np.ndarray) -> np.ndarray:
    """(2, N, C) float32 of cells (2, C, N)."""
    evened: np.ndarray = (cells.transpose(0, 2, 1) - channels[:, :1]) / channels[:, 1:]
    return evened


def _distances(cells: np.ndarray, channels: np.ndarray, memory: np.ndarray) -> np.ndarray:
    """(h, w) float32 mean distance of cells (2, C, h, w) to their nearest in memory."""
    total = np.zeros(cells.shape[2] * cells.shape[3], np.float32)
    for evened, known in zip(_evened(cells.reshape(*cells.shape[:2], -1), channels), memory, strict=True):
        squares = (evened**2).sum(axis=1)[:, None] + (known**2).sum(axis=1) - 2 * evened @ known.T
        count = min(_NEIGHBOURS, len(known))
        nearest = np.partition(squares, count - 1, axis=1)[:, :count].mean(axis=1)
        total += np.sqrt(np.maximum(nearest, 0)) / 2
    return total.reshape(cells.shape[2:])


def _from_border(shape: tuple[int, ...]) -> np.ndarray:
    """(h, w) how many cells from the border, at most `_RIM`."""
    rows, columns = (np.minimum(np.arange(side), np.arange(side)[::-1]) for side in shape)
    return np.minimum(np.minimum.outer(rows, columns), _RIM)


def _smoothed(distances: np.ndarray, rim: np.ndarray) -> np.ndarray:
    """(h, w) float32 in what is usual so far from the border, half of it smoothed."""
    sharp = distances / rim[_from_border(distances.shape)]
    wide = cv2.GaussianBlur(sharp, (0, 0), _WIDE, borderType=cv2.BORDER_REFLECT)
    mixed: np.ndarray = (sharp + wide) / 2
    return mixed
