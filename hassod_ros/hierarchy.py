"""Coverage forest: which mask is part of which (HASSOD, section 3.2)."""

from typing import Any

import numpy as np

from hassod_ros.instances import Level
from hassod_ros.masks import common_pixels, mask_areas

ANY = 1e-9  # coverage that asks for nothing
_RELATED = 0.5  # probability above which one mask is another's ancestor
_SAME = 0.7  # what fills so much of a mask is the same thing once more, not a part of it


class Candidates:
    """Which masks may cover which; two are compared only when it is asked for, on their common pixels.

    B covers A, which is smaller, when |A & B| / |A| >= cover and |A & B| / |B| < cover (`same` where cover is less:
    what fills so much of B is the same thing once more).

    Args:
        regions: (N, 4) integers, x0 y0 x1 y1 of the masks' pixel rectangles.
        masks: N uint8 0/1 arrays of those shapes, none empty.
        cover: Coverage threshold in (0, 1].
        same: See above, where cover is less.
        levels: (N,) uint8; only a mask of a higher level can cover. Default: any.
        allowed: (N, N) bool, whether each mask (row) may be covered by each other (column). Default: all may.

    Attributes:
        order: All masks, the largest first: whatever covers a mask comes before it.
        of: For each mask what may cover it: the smallest first, then the first index.

    """

    def __init__(
        self,
        regions: np.ndarray,
        masks: tuple[np.ndarray, ...] | list[np.ndarray],
        *,
        cover: float,
        same: float = _SAME,
        levels: np.ndarray | None = None,
        allowed: np.ndarray | None = None,
    ) -> None:
        n = len(masks)
        regions = np.asarray(regions, np.int64).reshape(n, 4)
        self._masks = masks
        areas = mask_areas(masks)
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
        order = np.argsort(-areas, kind="stable")
        by_size = np.argsort(areas, kind="stable")
        covered, places = np.divmod(np.flatnonzero(possible[order][:, by_size]), max(n, 1))
        self.order: list[int] = order.tolist()
        self.of: list[list[int]] = [[] for _ in range(n)]
        for child, parent in zip(order[covered].tolist(), by_size[places].tolist(), strict=True):
            self.of[child].append(parent)
        self._boxes: Any = regions.tolist()  # faster to index than an array
        self._areas: list[int] = areas.tolist()
        self._cover, self._same = cover, max(cover, same)

    def share(self, child: int, parent: int) -> float:
        """Share of a mask that one of its candidates contains; 0 where this does not cover it."""
        common = common_pixels(self._boxes[child], self._masks[child], self._boxes[parent], self._masks[parent])
        share = common / self._areas[child]
        return share if share >= self._cover and common / self._areas[parent] < self._same else 0.0

    def depths(self, parents: list[int]) -> np.ndarray:
        """(N,) uint8 levels that follow from each mask's parent or -1: roots are wholes, their children parts."""
        depth = [0] * len(parents)
        for child in self.order:
            if parents[child] >= 0:
                depth[child] = depth[parents[child]] + 1
        return np.minimum(depth, Level.SUBPART).astype(np.uint8)


def coverage_forest(
    regions: np.ndarray,
    masks: tuple[np.ndarray, ...] | list[np.ndarray],
    *,
    cover: float = 0.9,
    levels: np.ndarray | None = None,
    allowed: np.ndarray | None = None,
    same: float = _SAME,
) -> tuple[np.ndarray, np.ndarray]:
    """Arrange masks into trees of wholes, parts and subparts.

    The parent of a mask is the smallest one that covers it (see `Candidates`; the first one on ties). Roots are wholes,
    their children parts, all deeper descendants subparts, also of each other.

    Args:
        regions: (N, 4) integers, x0 y0 x1 y1 of the masks' pixel rectangles.
        masks: N uint8 0/1 arrays of those shapes, none empty.
        cover: Coverage threshold in (0, 1]; 0.9 for labels, 0.75 for the teacher's masks.
        levels: (N,) uint8 levels that are known already, from a level head: they stand, and only a mask of a higher
            level can be a parent. Default: levels follow from the depth in the trees.
        allowed: (N, N) bool, whether each mask (row) may have each other (column) as parent. Default: all may.
        same: See `Candidates`.

    Returns:
        parents (N,) int32, index or -1, and levels (N,) uint8.

    Example:
        >>> whole, part = np.ones((2, 2), np.uint8), np.ones((1, 1), np.uint8)
        >>> coverage_forest(np.array([[0, 0, 2, 2], [0, 0, 1, 1]]), [whole, part])
        (array([-1,  0], dtype=int32), array([0, 1], dtype=uint8))

    """
    candidates = Candidates(regions, masks, cover=cover, same=same, levels=levels, allowed=allowed)
    parents = [
        next((parent for parent in candidates.of[child] if candidates.share(child, parent)), -1)
        for child in range(len(masks))
    ]
    return np.array(parents, np.int32), candidates.depths(parents) if levels is None else levels


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
