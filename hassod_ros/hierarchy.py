"""Coverage forest: which mask is part of which (HASSOD, section 3.2)."""

import numpy as np

from hassod_ros.instances import Level
from hassod_ros.masks import common_pixels

ANY = 1e-9  # coverage that asks for nothing
_RELATED = 0.5  # probability above which one mask is another's ancestor
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
    if n < 2:
        return np.full(n, -1, np.int32), np.zeros(n, np.uint8) if levels is None else levels
    regions = np.asarray(regions, np.int64)
    masks = [mask.view(bool) for mask in masks]  # numpy counts bools several times faster
    areas = np.array([np.count_nonzero(mask) for mask in masks], np.int64)

    x0, y0, x1, y1 = np.ascontiguousarray(regions.T)
    across = np.minimum.outer(x1, x1) - np.maximum.outer(x0, x0)
    along = np.minimum.outer(y1, y1) - np.maximum.outer(y0, y0)
    # The common rectangle bounds the intersection.
    most = np.minimum(np.maximum(across, 0) * np.maximum(along, 0), areas[:, None])
    possible = (areas[:, None] < areas) & (most >= (cover * areas - 1e-6)[:, None])
    if levels is not None:
        possible &= levels < levels[:, None]
    if allowed is not None:
        possible &= allowed
    # Parents come first: they are larger. Candidates are tried in the order of what they could be worth at most, the
    # smallest first on ties, then the first index.
    same = max(cover, same)
    boxes, sizes = regions.tolist(), areas.tolist()
    found, depth, lines = [-1] * n, [0] * n, [0.0] * n
    gains = [0.0] * n if worth is None else np.asarray(worth, np.float64).tolist()
    order = np.argsort(-areas, kind="stable")
    by_size = np.argsort(areas, kind="stable")
    children, places = np.divmod(np.flatnonzero(possible[order][:, by_size]), n)
    candidates: list[list[int]] = [[] for _ in range(n)]
    for child, parent in zip(order[children].tolist(), by_size[places].tolist(), strict=True):
        candidates[child].append(parent)
    for child in order.tolist():
        tried = candidates[child]
        if worth is not None:
            tried = sorted(tried, key=lambda parent: -(lines[parent] + gains[parent]))
        for parent in tried:
            if found[child] >= 0 and lines[parent] + gains[parent] <= lines[child]:
                break
            common = common_pixels(boxes[child], masks[child], boxes[parent], masks[parent])
            share = common / sizes[child]
            if share < cover or common / sizes[parent] >= same:
                continue
            line = lines[parent] + share * gains[parent]
            if found[child] < 0 or line > lines[child]:
                found[child], depth[child], lines[child] = parent, depth[parent] + 1, line
    if levels is None:
        levels = np.minimum(depth, Level.SUBPART).astype(np.uint8)
    return np.array(found, np.int32), levels


def ancestor_forest(
    regions: np.ndarray, masks: tuple[np.ndarray, ...] | list[np.ndarray], ancestors: np.ndarray, *, cover: float
) -> tuple[np.ndarray, np.ndarray]:
    """Arrange masks into trees by what a detector says of each pair (SOHES, section 3.2).

    One is an ancestor of another where the detector says so, its mask is larger, and it contains a share of the other;
    the smallest ancestor is the parent. A line of parents grows in area, so that it always ends.

    Args:
        regions: See `coverage_forest`.
        masks: Likewise.
        ancestors: (N, N) float32, probability that the column is an ancestor of the row.
        cover: Share of a mask that its ancestor contains; 0: what the detector says is enough.

    Returns:
        See `coverage_forest`; levels are the depth, capped at SUBPART.

    """
    # Whoever fills its ancestor is related all the same if the detector says so: `same` is out of reach.
    return coverage_forest(regions, masks, cover=max(cover, ANY), allowed=ancestors > _RELATED, same=2.0)
