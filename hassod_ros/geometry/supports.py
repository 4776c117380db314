"""Which instance stands on which plane, which one is a support itself, and the part hierarchy without the supports."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from hassod_ros.geometry.depth import noise, quantiles
from hassod_ros.geometry.planes import CELL, Grid, Plane
from hassod_ros.hierarchy import coverage_forest
from hassod_ros.instances import Instances

_CONTACT = 0.03  # m between a thing's rim and the plane's pixels next to it where they meet
_LOW = 0.03  # m above the plane that the lowest seen points of a standing thing are at most
_BELOW = 0.1  # share of the points that may lie below the plane, by more than the noise
_FLAT = 0.6  # share of the points of a support, without the things on it, that lie on its plane
_LEAST_SURFACE = 0.05  # share of the cells with depth, of a support; smaller planes are faces of things
_LEVEL = 0.94  # cosine between the normals of two supports of one scene
_IN_PLANE = 0.003  # m, median height of what is in a plane and not on it
_GAP = 0.012  # m between two things that stand apart; points are some 5 mm from each other
_SAME_THING = 0.85  # of a mask's area: what is as large is the same thing once more
_MOSTLY = 0.75  # share of a thing in a group that lies in the group's mask
_APART = 0.2  # share of a thing in a group that may lie in the others' masks
_FILLED = 0.7  # share of a group's mask, without the support, that its things fill
_LOOSE = 0.25  # share of a mask on the plane that the thing inside it stands on
_LEAST_REST = 0.15  # share of a support's mask that is not covered by the things on it
_LEAST_CARRIED = 6  # cells of things inside its outline
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
        planes: (N,) int64, index of the plane that it stands on or, of a support, is; -1 = none.
        bases: (N,) int64, index of the plane that it stands on, also of a support.
        touches: (N,) bool, it was seen to reach down to that plane.
        is_support: (N,) bool, it is a surface that other things stand on, or a piece of one.
        is_mixed: (N,) bool, it holds a thing and something that is no part of it: another one, or a piece of plane.
        occluded: (N,) bool, something nearer covers a part of its rim.
        cut_off: (N,) bool, it reaches the border of the image.

    """

    planes: np.ndarray
    bases: np.ndarray
    touches: np.ndarray
    is_support: np.ndarray
    is_mixed: np.ndarray
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
    occluded, visible = np.zeros(n, bool), np.zeros(n, bool)
    met = np.zeros((n, len(planes)), np.int64)  # cells of each plane that touch the rim
    low = np.full((n, len(planes)), np.inf)  # height of the lowest points
    below = np.ones((n, len(planes)))  # share of the points
    faces = np.zeros((n, len(planes)), bool)  # the plane is a face of the thing itself, which carries nothing of it
    windows = [_cells(instances, i, grid.valid.shape) for i in range(n)]
    heights = np.array([plane.heights(grid.points) for plane in planes]).reshape(len(planes), *grid.valid.shape)
    limits = noise(grid.points[..., 2])
    cells = np.array([plane.cells for plane in planes])
    for i, (mask, edges) in enumerate(windows):
        window = _slices(edges)
        z = grid.points[window][..., 2]
        seen = mask & grid.valid[window]
        if not seen.any():
            continue
        visible[i] = True
        contact, hidden, rim = _rim(seen, mask, z, jump)
        occluded[i] = int(np.count_nonzero(hidden)) > _HIDDEN * max(int(np.count_nonzero(rim)), 1)
        labels, limit = grid.labels[window], limits[window][seen]
        met[i] = np.bincount(labels[contact & (labels >= 0)], minlength=len(planes))
        inside = np.bincount(labels[seen & (labels >= 0)], minlength=len(planes))
        own = heights[:, window[0], window[1]][:, seen]  # (P, n)
        low[i] = quantiles(own, 0.05)[0] - limit.max() / 2
        below[i] = np.count_nonzero(own < -2 * limit, axis=1) / own.shape[1]
        faces[i] = inside >= 0.5 * cells
    above = (below < _BELOW) & ~faces
    standing = above & (low < _LOW)
    level = _level_planes(planes, np.count_nonzero(standing & (met > 0), axis=0))
    level &= cells >= _LEAST_SURFACE * np.count_nonzero(grid.valid)
    feet = np.where(standing & level, met, 0)
    hidden_foot = above & level & (low < np.where(occluded, _HIDDEN_FOOT, _LOW)[:, None])
    on = np.full(n, -1, np.int64)
    if planes:  # the plane that is touched most, else the largest one below
        on = np.where(hidden_foot.any(1), np.where(hidden_foot, cells, 0).argmax(1), on)
        on = np.where(feet.any(1), feet.argmax(1), on)
    touches = on >= 0
    piece_of = _supports(windows, on, touches, level, grid, instances.scene)
    is_support = piece_of >= 0
    bases = np.where(is_support & (piece_of == on), -1, on)
    on = np.where(is_support, piece_of, on)
    is_mixed = _mixed(windows, on, touches & feet.any(1) & ~is_support, is_support, below, grid)
    return Stand(on, bases, bases >= 0, is_support, is_mixed, occluded, cut_off)


def _level_planes(planes: tuple[Plane, ...], votes: np.ndarray) -> np.ndarray:
    """(P,) bool: planes that are as level as the one that most things stand on; the others are walls and slopes."""
    if not planes:
        return np.zeros(0, bool)
    normals = np.array([plane.normal for plane in planes])
    alike = normals @ normals.T > _LEVEL
    cells = np.array([plane.cells for plane in planes])
    chosen = np.lexsort((cells, alike @ votes))[-1]
    result: np.ndarray = alike[chosen]
    return result


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
    level: np.ndarray,
    grid: Grid,
    scene: np.ndarray,
) -> np.ndarray:
    """(N,) index of the plane that an instance is a piece of, perhaps with things on it in its mask; -1 = of none."""
    result = np.full(len(windows), -1, np.int64)
    areas = np.array([np.count_nonzero(mask) for mask, _ in windows])
    # Cells of the things that stand on each plane. Small ones first: what holds them and plane around them is a piece.
    standing = np.zeros((len(grid.planes), *grid.valid.shape), bool)
    for i in np.argsort(areas, kind="stable").tolist():
        mask, edges = windows[i]
        window = _slices(edges)
        seen, labels = mask & grid.valid[window], grid.labels[window]
        counts = np.bincount(labels[seen & (labels >= 0)], minlength=1)
        k = int(np.argmax(counts))
        if counts[k] and level[k]:
            plane, carried = grid.planes[k], standing[k][window]
            rest = seen & ~carried
            left = int(np.count_nonzero(rest))
            on_plane = labels[rest] == k
            on_planes = level[labels[rest]] & (labels[rest] >= 0)  # a mask may hold a table and the floor behind it
            share = np.count_nonzero(on_plane) / max(left, 1)
            if left > _LEAST_REST * areas[i] and on_planes.mean() > _FLAT and standing[k].any():
                heights = plane.heights(grid.points[window][rest])
                middle, high = quantiles(heights[on_plane], 0.5)[0], quantiles(heights, 0.9)[0]
                inside = np.count_nonzero(_filled(mask) & carried) > _LEAST_CARRIED
                patch = left > _LEAST_PATCH * plane.cells and share > _PATCH and high < _NO_HEIGHT
                # Thin things that lie on the plane are near it too, but not in it.
                if patch or (abs(middle) < _IN_PLANE and (inside or scene[i])):
                    result[i] = k
        if result[i] < 0 and touches[i]:
            standing[on[i]][window] |= mask
    return result


def _mixed(
    windows: list[tuple[np.ndarray, tuple[int, int, int, int]]],
    on: np.ndarray,
    stands: np.ndarray,
    is_support: np.ndarray,
    below: np.ndarray,
    grid: Grid,
) -> np.ndarray:
    """(N,) bool: masks of a thing that stands on a plane and of what cannot be one with it.

    Of several things that stand apart and fill the mask; of a thing and much of its plane; of a thing and something
    that reaches below the plane.
    """
    result = np.zeros(len(windows), bool)
    areas = np.array([np.count_nonzero(mask) for mask, _ in windows])
    order = np.argsort(areas, kind="stable")
    full = np.zeros((len(windows), *grid.valid.shape), bool)
    for i, (mask, edges) in enumerate(windows):
        full[i][_slices(edges)] = mask
    points = {i: _sample(windows[i], grid) for i in np.flatnonzero(stands).tolist()}
    for place, i in enumerate(order.tolist()):
        if is_support[i] or not areas[i]:
            continue
        inside: list[int] = []
        covered = np.zeros(grid.valid.shape, bool)
        window = _slices(windows[i][1])
        for j in order[:place][::-1].tolist():  # the large ones first
            if not stands[j] or result[j] or areas[j] > _SAME_THING * areas[i]:
                continue
            own = full[j][window]
            if np.count_nonzero(own & windows[i][0]) < _MOSTLY * areas[j]:
                continue
            if np.count_nonzero(own & covered[window]) < _APART * areas[j]:
                inside.append(j)
                covered |= full[j]
        if not inside:
            continue
        plane = on[inside[0]]
        on_plane = full[i] & (grid.labels == plane)
        rest = full[i] & ~on_plane & grid.valid
        reaches_below = below[i, plane] > _BELOW
        loose = np.count_nonzero(on_plane) > _LOOSE * np.count_nonzero(full[i] & grid.valid)
        # A thin thing that lies on the plane is near it all over.
        loose = loose and abs(quantiles(grid.planes[plane].heights(grid.points[on_plane]), 0.5)[0]) < _IN_PLANE
        filled = np.count_nonzero(covered & rest) > _FILLED * np.count_nonzero(rest)
        result[i] = reaches_below or loose or (filled and _any_gap([points[j] for j in inside]))
    return result


def _any_gap(things: list[np.ndarray]) -> bool:
    return any(_gap(first, second) > _GAP for k, first in enumerate(things) for second in things[k + 1 :])


def _sample(window: tuple[np.ndarray, tuple[int, int, int, int]], grid: Grid, most: int = 80) -> np.ndarray:
    mask, edges = window
    points = grid.points[_slices(edges)][mask & grid.valid[_slices(edges)]]
    sample: np.ndarray = points[:: 1 + len(points) // most]
    return sample


def _gap(points: np.ndarray, others: np.ndarray) -> float:
    """Distance of two sets of points, m, but for a few wrong ones."""
    if not len(points) or not len(others):
        return 0.0
    squares = np.square(points[:, None] - others[None]).sum(2).min(1)
    return float(np.sqrt(quantiles(squares, 0.03)[0]))


def _filled(mask: np.ndarray) -> np.ndarray:
    """The convex outline of a mask, filled."""
    rows = np.flatnonzero(mask.any(1))  # a row's first and last pixels are all that an outline rests on
    first, last = mask[rows].argmax(1), mask.shape[1] - 1 - mask[rows, ::-1].argmax(1)
    hull = cv2.convexHull(
        np.concatenate([np.stack([first, rows], axis=1), np.stack([last, rows], axis=1)]).astype(np.int32)
    )
    return cv2.fillConvexPoly(np.zeros(mask.shape, np.uint8), hull, 1).view(bool)


def mend_hierarchy(instances: Instances, stands: Stand) -> tuple[np.ndarray, np.ndarray]:
    """Levels and parents without supports and mixed masks: a table is no whole with the things on it as its parts.

    Trees without any stay as they are. In the others all that is left is arranged anew among itself, and what then has
    nothing above it is a whole.

    Returns:
        levels (N,) uint8 and parents (N,) int64, index or -1. Supports and mixed masks are roots and nobody's parent.

    """
    levels, parents = instances.levels.copy(), instances.parents.astype(np.int64)
    supports = np.flatnonzero(stands.is_support | stands.is_mixed)
    if not len(supports):
        return levels, parents
    roots = np.arange(len(instances))
    for _ in range(len(instances)):
        up = parents[roots]
        if (up < 0).all():
            break
        roots = np.where(up >= 0, up, roots)
    touched = np.isin(roots, np.unique(roots[supports]))
    redo = np.flatnonzero(touched & ~stands.is_support & ~stands.is_mixed)
    levels[supports], parents[supports] = 0, -1
    if len(redo):
        regions = instances.regions
        new_parents, new_levels = coverage_forest(regions[redo], [instances.masks[i] for i in redo], cover=_COVER)
        parents[redo] = np.where(new_parents >= 0, redo[new_parents], -1)
        levels[redo] = new_levels
    return levels, parents
