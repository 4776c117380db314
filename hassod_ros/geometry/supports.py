"""Which instance stands on which plane, which one is a support itself, and the part hierarchy without the supports."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from hassod_ros.geometry.depth import noise, quantiles
from hassod_ros.geometry.planes import CELL, Grid
from hassod_ros.hierarchy import coverage_forest
from hassod_ros.instances import Instances

_CONTACT = 0.03  # m between a thing's rim and the plane's pixels next to it where they meet
_LOW = 0.03  # m above the plane that the lowest seen points of a standing thing are at most
_BELOW = 0.1  # share of the points that may lie below the plane, by more than the noise
_FLAT = 0.6  # share of its points that lie on one plane, of a support
_PATCH = 0.85  # the same of a piece of one that nothing stands on
_LEAST_PATCH = 0.05  # of the plane's cells
_NO_HEIGHT = 0.004  # m above the plane that a patch of it reaches
_HIDDEN_FOOT = 0.1  # m, as _LOW, where something nearer hides the foot
_HIDDEN = 0.08  # share of the rim with something nearer in front, of an occluded thing
_COVER = 0.75  # as the detector's own hierarchy; see `coverage_forest`


@dataclass(frozen=True, eq=False)
class Stand:
    """What each of N instances stands on.

    Attributes:
        planes: (N,) int64, index of the plane that it stands on or is, -1 = none.
        touches: (N,) bool, it was seen to reach down to that plane.
        is_support: (N,) bool, it is a surface that other things stand on, or a piece of one.
        occluded: (N,) bool, something nearer covers a part of its rim.
        cut_off: (N,) bool, it reaches the border of the image.

    """

    planes: np.ndarray
    touches: np.ndarray
    is_support: np.ndarray
    occluded: np.ndarray
    cut_off: np.ndarray


def find_stands(instances: Instances, grid: Grid, jump: float = 0.02) -> Stand:
    """Find the plane below every instance.

    A thing stands on a plane when it lies above it and, along its rim, touches pixels of it. A support is an instance
    most of whose own pixels lie on a plane, where something else stands on that plane inside its outline; or, of such a
    plane, a patch without any height or what the detector calls scene.

    Args:
        instances: Of the image that the grid was made of.
        grid: Sampled points and planes.
        jump: Share of the depth by which a nearer neighbour hides something.

    """
    n, planes = len(instances), grid.planes
    height, width = instances.image_size
    regions = instances.regions
    cut_off = (regions[:, :2] <= 1).any(1) | (regions[:, 2] >= width - 1) | (regions[:, 3] >= height - 1)
    on, flat_on = np.full(n, -1, np.int64), np.full(n, -1, np.int64)
    touches, occluded = np.zeros(n, bool), np.zeros(n, bool)
    windows = [_cells(instances, i, grid.valid.shape) for i in range(n)]
    heights = [plane.heights(grid.points) for plane in planes]
    limits = noise(grid.points[..., 2])
    cells = np.array([plane.cells for plane in planes])
    for i, (mask, edges) in enumerate(windows):
        window = _slices(edges)
        z = grid.points[window][..., 2]
        seen = mask & grid.valid[window]
        if not seen.any():
            continue
        contact, hidden, rim = _rim(seen, mask, z, jump)
        occluded[i] = int(np.count_nonzero(hidden)) > _HIDDEN * max(int(np.count_nonzero(rim)), 1)
        if not planes:
            continue
        labels, limit = grid.labels[window], limits[window][seen]
        own = np.stack([above[window][seen] for above in heights])  # (P, k)
        below = np.count_nonzero(own < -2 * limit, axis=1) / own.shape[1]
        low = np.array([quantiles(heights_above, 0.05)[0] for heights_above in own])
        met = np.bincount(labels[contact & (labels >= 0)], minlength=len(planes))
        inside = np.bincount(labels[seen & (labels >= 0)], minlength=len(planes))
        share = inside / own.shape[1]
        if share.max() >= _FLAT:
            flat_on[i] = np.argmax(share)
        # A face of the thing itself carries nothing of it.
        above = (below < _BELOW) & (inside < 0.5 * cells)
        standing = above & (low < _LOW + limit.max() / 2)
        if (standing & (met > 0)).any():
            on[i], touches[i] = np.argmax(np.where(standing, met, 0)), True
        else:  # its foot is hidden or without depth
            near = above & (low < (_HIDDEN_FOOT if occluded[i] else _LOW))
            if near.any():
                on[i], touches[i] = np.argmax(np.where(near, cells, 0)), True
    is_support = _supports(windows, on, touches, flat_on, grid, instances.scene)
    on[is_support] = flat_on[is_support]
    return Stand(on, touches & ~is_support, is_support, occluded, cut_off)


def _cells(instances: Instances, i: int, shape: tuple[int, int]) -> tuple[np.ndarray, tuple[int, int, int, int]]:
    """Mask on the grid with a rim of two cells, and its window y0 x0 y1 x1 in the grid."""
    x0, y0, *_ = instances.regions[i].tolist()
    first_row, first_column = -(-(y0 - CELL // 2) // CELL), -(-(x0 - CELL // 2) // CELL)
    cells = instances.masks[i][
        first_row * CELL + CELL // 2 - y0 :: CELL, first_column * CELL + CELL // 2 - x0 :: CELL
    ].view(bool)
    top, left = max(first_row - 2, 0), max(first_column - 2, 0)
    bottom = min(first_row + cells.shape[0] + 2, shape[0])
    right = min(first_column + cells.shape[1] + 2, shape[1])
    window = np.zeros((bottom - top, right - left), bool)
    window[first_row - top :, first_column - left :][: cells.shape[0], : cells.shape[1]] = cells
    return window, (top, left, bottom, right)


def _slices(edges: tuple[int, int, int, int]) -> tuple[slice, slice]:
    y0, x0, y1, x1 = edges
    return slice(y0, y1), slice(x0, x1)


def _rim(seen: np.ndarray, mask: np.ndarray, z: np.ndarray, jump: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cells just outside a mask: those in contact with it in depth, those nearer than it, and all with depth."""
    kernel = np.ones((5, 5), np.uint8)
    rim = (cv2.dilate(mask.view(np.uint8), kernel) > 0) & ~mask & (z > 0)
    far = cv2.dilate(np.where(seen, z, np.float32(0)), kernel)
    near = cv2.erode(np.where(seen, z, np.float32(1e6)), kernel)
    contact = rim & (z < far + _CONTACT) & (z > near - _CONTACT)
    hidden = rim & (z < near * (1 - jump) - 0.01)
    return contact, hidden, rim


def _supports(
    windows: list[tuple[np.ndarray, tuple[int, int, int, int]]],
    on: np.ndarray,
    touches: np.ndarray,
    flat_on: np.ndarray,
    grid: Grid,
    scene: np.ndarray,
) -> np.ndarray:
    result = np.zeros(len(windows), bool)
    areas = [np.count_nonzero(mask) for mask, _ in windows]
    for i in np.flatnonzero(flat_on >= 0):
        plane = grid.planes[flat_on[i]]
        carried = np.flatnonzero((on == flat_on[i]) & touches & (flat_on != flat_on[i]))
        mask, (y0, x0, y1, x1) = windows[i]
        filled = _filled(mask)
        for j in carried.tolist():
            other, (v0, u0, v1, u1) = windows[j]
            top, bottom, left, right = max(y0, v0), min(y1, v1), max(x0, u0), min(x1, u1)
            if areas[j] < areas[i] and top < bottom and left < right:
                common = filled[top - y0 : bottom - y0, left - x0 : right - x0]
                common = common & other[top - v0 : bottom - v0, left - u0 : right - u0]
                result[i] |= np.count_nonzero(common) > 0.5 * areas[j]
        seen = mask & grid.valid[y0:y1, x0:x1]
        result[i] |= len(carried) > 0 and scene[i]
        if not result[i] and len(carried) and np.count_nonzero(seen) > _LEAST_PATCH * plane.cells:
            on_plane = grid.labels[y0:y1, x0:x1][seen] == flat_on[i]
            high = quantiles(plane.heights(grid.points[y0:y1, x0:x1][seen]), 0.9)[0]
            result[i] = on_plane.mean() > _PATCH and high < _NO_HEIGHT
    return result


def _filled(mask: np.ndarray) -> np.ndarray:
    """The convex outline of a mask, filled."""
    rows, columns = np.nonzero(mask)
    hull = cv2.convexHull(np.stack([columns, rows], axis=1).astype(np.int32))
    return cv2.fillConvexPoly(np.zeros(mask.shape, np.uint8), hull, 1).view(bool)


def mend_hierarchy(instances: Instances, stands: Stand) -> tuple[np.ndarray, np.ndarray]:
    """Levels and parents without the supports: a table is no whole with the things on it as its parts.

    Trees without a support stay as they are. In the others the things that stood on it are arranged anew among
    themselves, and what then has nothing above it is a whole.

    Returns:
        levels (N,) uint8 and parents (N,) int64, index or -1. Supports are roots and nobody's parent.

    """
    levels, parents = instances.levels.copy(), instances.parents.astype(np.int64)
    supports = np.flatnonzero(stands.is_support)
    if not len(supports):
        return levels, parents
    roots = np.arange(len(instances))
    for _ in range(len(instances)):
        up = parents[roots]
        if (up < 0).all():
            break
        roots = np.where(up >= 0, up, roots)
    touched = np.isin(roots, np.unique(roots[supports]))
    redo = np.flatnonzero(touched & ~stands.is_support)
    levels[supports], parents[supports] = 0, -1
    if len(redo):
        regions = instances.regions
        new_parents, new_levels = coverage_forest(regions[redo], [instances.masks[i] for i in redo], cover=_COVER)
        parents[redo] = np.where(new_parents >= 0, redo[new_parents], -1)
        levels[redo] = new_levels
    return levels, parents
