"""Which detection is part of which: for what a detector draws several times and cuts off at boxes."""

from __future__ import annotations

import numpy as np

from hassod_ros.hierarchy import Candidates
from hassod_ros.masks import pixel_regions

_CUT = 0.9  # a mask that fills a whole side of its box counts so much less as an ancestor: some things do
_HALF_CELL = 56  # of a box's side, with maps of 28 cells


def find_parents(
    boxes: np.ndarray, masks: list[np.ndarray], levels: np.ndarray | None, cover: float
) -> tuple[np.ndarray, np.ndarray]:
    """(n,) int32 index of each mask's parent, or -1, and (n,) uint8 levels, which follow where none are given.

    The parent ends the best line of ancestors (see `best_lines`), in which a mask counts the less the more of a side of
    its box it fills: it was cut off there, and is hardly a whole thing.
    """
    worth = 1 - _CUT * np.array([_longest_cut(mask) for mask in masks])
    return best_lines(pixel_regions(boxes), masks, worth, cover=cover, levels=levels)


def best_lines(
    regions: np.ndarray,
    masks: tuple[np.ndarray, ...] | list[np.ndarray],
    worth: np.ndarray,
    *,
    cover: float = 0.9,
    levels: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """`hierarchy.coverage_forest` with another choice of parents among the masks that cover one.

    The parent is the covering mask at the end of the best line of ancestors: that with the largest sum of coverage
    times worth. A detector draws one thing several times; a mask between two of them that has left the line would
    otherwise cut off all that lies in it.

    Args:
        regions: See `coverage_forest`.
        masks: Likewise.
        worth: (N,) of each mask as an ancestor, not negative.
        cover: See `coverage_forest`.
        levels: Likewise.

    Returns:
        parents (N,) int32, index or -1, and levels (N,) uint8.

    """
    candidates = Candidates(regions, masks, cover=cover, levels=levels)
    n, gains = len(masks), np.asarray(worth, np.float64).tolist()
    found, lines = [-1] * n, [0.0] * n
    for child in candidates.order:  # tried in the order of what they could be worth at most
        for parent in sorted(candidates.of[child], key=lambda parent: -(lines[parent] + gains[parent])):
            if found[child] >= 0 and lines[parent] + gains[parent] <= lines[child]:
                break
            share = candidates.share(child, parent)
            line = lines[parent] + share * gains[parent]
            if share and (found[child] < 0 or line > lines[child]):
                found[child], lines[child] = parent, line
    return np.array(found, np.int32), candidates.depths(found) if levels is None else levels


def _longest_cut(mask: np.ndarray) -> float:
    """Largest share of a side of its rectangle that a mask (h, w) fills, half a cell of its map inside: rims fade."""
    height, width = mask.shape
    y, x = height // _HALF_CELL, width // _HALF_CELL
    rows = max(np.count_nonzero(mask[y]), np.count_nonzero(mask[-1 - y]))
    columns = max(np.count_nonzero(mask[:, x]), np.count_nonzero(mask[:, -1 - x]))
    return max(rows / width, columns / height)
