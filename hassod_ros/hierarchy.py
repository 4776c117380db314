"""Coverage forest: which mask is part of which (HASSOD, section 3.2)."""

import numpy as np

from hassod_ros.instances import Level
from hassod_ros.masks import common_pixels

_SAME = 0.7  # what fills so much of a mask is the same thing once more, not a part of it


def coverage_forest(
    regions: np.ndarray,
    masks: tuple[np.ndarray, ...] | list[np.ndarray],
    *,
    cover: float = 0.9,
    levels: np.ndarray | None = None,
    worth: np.ndarray | None = None,
    allowed: np.ndarray | None = None,
    same: float = _SAME,
) -> tuple[np.ndarray, np.ndarray]:
    """Arrange masks into trees of wholes, parts and subparts.

    B covers A, which is smaller, when |A & B| / |A| >= cover and |A & B| / |B| < cover (`same` where cover is less:
    what fills so much of B is the same thing once more); the parent of A is the smallest mask that covers it (the
    first one on ties). Roots are wholes, their children parts, all deeper descendants subparts, also of each other.

    Only pairs whose regions overlap enough are compared, on their common pixels: exact, without full-size masks.

    Args:
        regions: (N, 4) integers, x0 y0 x1 y1 of the masks' pixel rectangles.
        masks: N uint8 0/1 arrays of those shapes, none empty.
        cover: Coverage threshold in (0, 1]; 0.9 for labels, 0.75 for the teacher's masks.
        levels: (N,) uint8 levels that are known already, from a level head: they stand, and only a mask of a higher
            level can be a parent. Default: levels follow from the depth in the trees.
        worth: (N,) of each mask as an ancestor, not negative. The parent is then the covering mask at the end of the
            best line of ancestors instead: that with the largest sum of coverage times worth. A detector draws one
            thing several times; a mask between two of them that has left the line would otherwise cut off all that
            lies in it.
        allowed: (N, N) bool, whether each mask (row) may have each other (column) as parent. Default: all may.
        same: See above, where cover is less.

    Returns:
        parents (N,) int32, index or -1, and levels (N,) uint8.

    Example:
        >>> whole, part = np.ones((2, 2), np.uint8), np.ones((1, 1), np.uint8)
        >>> coverage_forest(np.array([[0, 0, 2, 2], [0, 0, 1, 1]]), [whole, part])
        (array([-1,  0], dtype=int32), array([0, 1], dtype=uint8))

    """
    n = len(masks)
    parents = np.full(n, -1, np.int32)
    if n < 2:
        return parents, np.zeros(n, np.uint8) if levels is None else levels
    regions = np.asarray(regions, np.int64)
    boxes = regions.tolist()
    masks = [mask.view(bool) for mask in masks]  # numpy counts bools several times faster
    areas = np.array([np.count_nonzero(mask) for mask in masks], np.int64)

    low = np.maximum(regions[:, None, :2], regions[None, :, :2])  # (N, N, 2)
    high = np.minimum(regions[:, None, 2:], regions[None, :, 2:])
    overlap = np.prod(np.maximum(high - low, 0), axis=2)
    # The common rectangle bounds the intersection.
    possible = (areas[:, None] < areas[None, :]) & (
        np.minimum(overlap, areas[:, None]) >= cover * areas[:, None] - 1e-6
    )
    if levels is not None:
        possible &= levels[None, :] < levels[:, None]
    if allowed is not None:
        possible &= allowed
    # Parents come first: they are larger. Candidates are tried in the order of what they could be worth at most, the
    # smallest first on ties, then the first index.
    same = max(cover, same)
    depth, lines = np.zeros(n, np.int64), np.zeros(n)
    gains = np.zeros(n) if worth is None else np.asarray(worth, np.float64)
    for child in np.argsort(-areas, kind="stable"):
        candidates = np.flatnonzero(possible[child])
        bound = lines[candidates] + gains[candidates]
        order = np.lexsort((areas[candidates], -bound))
        for parent, most in zip(candidates[order].tolist(), bound[order].tolist(), strict=True):
            if parents[child] >= 0 and most <= lines[child]:
                break
            common = common_pixels(boxes[child], masks[child], boxes[parent], masks[parent])
            share = common / areas[child]
            if share < cover or common / areas[parent] >= same:
                continue
            if parents[child] < 0 or lines[parent] + share * gains[parent] > lines[child]:
                parents[child], depth[child] = parent, depth[parent] + 1
                lines[child] = lines[parent] + share * gains[parent]
    return parents, np.minimum(depth, Level.SUBPART).astype(np.uint8) if levels is None else levels
