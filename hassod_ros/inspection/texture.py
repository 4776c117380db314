"""Surfaces whose pattern never repeats: every cell must look like some cell of the good pictures, wherever that was.

After PatchCore (Roth et al., 2022): distance to the nearest cells of a memory of good ones. The memory is a random
part of them, which costs nothing to choose; the features are those of the detector, or colours where there is none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from hassod_ros.inspection.view import Observe, cells_of, colour_cells, halve

_MEMORY = 4000  # cells; more found no more defects, measured on magnetic tiles
_NEIGHBOURS = 3  # nearest cells that a distance is the mean of
_WIDE = 6.0  # cells; a defect is rarely one cell: half of what is measured is smoothed so
_SEED = 0


@dataclass(frozen=True)
class Texture:
    """What cells of a good surface look like.

    Attributes:
        memory: (M, C) float32 evened cells.
        channels: (2, C) float32 mean and deviation that cells are evened out with.
        network: 1 where the cells are the detector's features, 0 where they are colours.
        scores: (K,) float32, largest distance of each good picture to the others.

    """

    memory: np.ndarray
    channels: np.ndarray
    network: int
    scores: np.ndarray

    @classmethod
    def learn(cls, regions: Sequence[tuple[np.ndarray, np.ndarray]], observe: Observe | None) -> Texture:
        """From K pictures (H, W, 3) uint8 RGB of any size and their masks (H, W) uint8."""
        maps = [_cells(picture, observe) for picture, _ in regions]
        used = [_covered(mask, each) for (_, mask), each in zip(regions, maps, strict=True)]
        every = np.concatenate([each[:, use].T for each, use in zip(maps, used, strict=True)])
        deviation = (every.std(axis=0) + 1e-3) * np.sqrt(every.shape[1])
        channels = np.stack([every.mean(axis=0), deviation]).astype(np.float32)
        cells = [((each[:, use].T - channels[0]) / channels[1]) for each, use in zip(maps, used, strict=True)]
        owners = np.repeat(np.arange(len(cells)), [len(each) for each in cells])
        chosen = np.sort(np.random.default_rng(_SEED).permutation(len(owners))[:_MEMORY])
        memory = np.concatenate(cells)[chosen].astype(np.float32)
        owners = owners[chosen]
        scores = []
        for k, (each, use) in enumerate(zip(maps, used, strict=True)):
            distances = _distances(each, channels, memory[owners != k])
            scores.append(float((distances * use).max()))
        return cls(memory, channels, int(observe is not None), np.array(scores, np.float32))

    def measure(self, picture: np.ndarray, mask: np.ndarray, observe: Observe | None) -> np.ndarray:
        """(H, W) float32: distance at each pixel of (H, W, 3) uint8 RGB where `mask` (H, W) uint8 is not 0."""
        cells = _cells(picture, observe if self.network else None)
        distances = _distances(cells, self.channels, self.memory) * _covered(mask, cells)
        wide = cv2.resize(distances, (mask.shape[1], mask.shape[0]), interpolation=cv2.INTER_LINEAR)
        return wide * (mask > 0)


def _cells(picture: np.ndarray, observe: Observe | None) -> np.ndarray:
    """(C, h, w) float32."""
    features = None if observe is None else observe(picture)[1]
    return colour_cells(picture, cells_of(picture.shape)) if features is None else halve(features)


def _covered(mask: np.ndarray, cells: np.ndarray) -> np.ndarray:
    """(h, w) bool: cells that may be looked at."""
    share = cv2.resize(mask, (cells.shape[2], cells.shape[1]), interpolation=cv2.INTER_AREA)
    covered: np.ndarray = share > 250
    return covered


def _distances(cells: np.ndarray, channels: np.ndarray, memory: np.ndarray) -> np.ndarray:
    """(h, w) float32 mean distance of cells (C, h, w) to their nearest in memory, half of it smoothed."""
    evened = (cells.reshape(len(cells), -1).T - channels[0]) / channels[1]
    squares = (evened**2).sum(axis=1)[:, None] + (memory**2).sum(axis=1) - 2 * evened @ memory.T
    count = min(_NEIGHBOURS, len(memory))
    nearest = np.partition(squares, count - 1, axis=1)[:, :count].mean(axis=1)
    sharp = np.sqrt(np.maximum(nearest, 0)).reshape(cells.shape[1:]).astype(np.float32)
    wide = cv2.GaussianBlur(sharp, (0, 0), _WIDE, borderType=cv2.BORDER_REFLECT)
    mixed: np.ndarray = (sharp + wide) / 2
    return mixed
