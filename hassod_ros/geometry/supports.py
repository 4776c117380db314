"""Which instance stands on which plane, which one is a support itself, and the part hierarchy without the supports."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

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
_SAMPLE = 256  # points of each instance that are compared with the planes
_SURFACE_POINTS = 1000  # points of a support's surface whose heights are looked at
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
    windows = _windows(instances, regions, grid)
    cells = np.array([plane.cells for plane in planes], np.int64)
    low, below, inside = _heights(windows, grid)
    faces = inside >= 0.5 * cells  # the plane is a face of the thing itself, which carries nothing of it
    met, occluded = _rims(windows, grid, jump)
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
    piece_of = _supports(windows, on, touches, level, inside, grid, instances.scene)
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


class _Windows(NamedTuple):
    """The masks of N instances on the grid.

    Attributes:
        masks: N arrays (h, w) bool, with a rim of two cells.
        slices: Where they are in the grid.
        full: (N, H, W) bool, the same in the whole grid.
        areas: (N,) int64 cells of each.
        seen: Cells with depth, as indices into the flattened grid, one instance after the other.
        counts: (N,) int64 of these.

    """

    masks: list[np.ndarray]
    slices: list[tuple[slice, slice]]
    full: np.ndarray
    areas: np.ndarray
    seen: np.ndarray
    counts: np.ndarray


def _windows(instances: Instances, regions: np.ndarray, grid: Grid) -> _Windows:
    n, shape = len(instances), grid.valid.shape
    full = np.zeros((n, *shape), bool)
    masks, slices = [], []
    firsts = -(-(regions[:, :2] - CELL // 2) // CELL)
    starts = firsts * CELL + CELL // 2 - regions[:, :2]
    for i, ((column, row), (x, y)) in enumerate(zip(firsts.tolist(), starts.tolist(), strict=True)):
        own = instances.masks[i][y::CELL, x::CELL].view(bool)
        full[i, row : row + own.shape[0], column : column + own.shape[1]] = own
        place = (slice(max(row - 2, 0), row + own.shape[0] + 2), slice(max(column - 2, 0), column + own.shape[1] + 2))
        masks.append(full[i][place])
        slices.append(place)
    cells = np.flatnonzero(full)
    areas = np.diff(np.searchsorted(cells, np.arange(n + 1) * grid.valid.size))
    cells -= np.repeat(np.arange(n) * grid.valid.size, areas)
    known = grid.valid.reshape(-1).take(cells)
    counts = np.bincount(np.repeat(np.arange(n), areas)[known], minlength=n)
    return _Windows(masks, slices, full, areas, cells[known], counts)


def _heights(windows: _Windows, grid: Grid) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of N instances and P planes, each (N, P): height of the lowest points, share below, and number of cells on it.

    Where an instance has no depth the first two are infinity and 1.
    """
    n, planes = len(windows.masks), len(grid.planes)
    low, below = np.full((n, planes), np.inf), np.ones((n, planes))
    if not planes or not len(windows.seen):
        return low, below, np.zeros((n, planes), np.int64)
    known, counts = np.flatnonzero(windows.counts), windows.counts
    labels = grid.labels.reshape(-1).take(windows.seen) + np.int64(1)
    keys = labels + np.repeat(np.arange(n) * (planes + 1), counts)
    inside = np.bincount(keys, minlength=n * (planes + 1)).reshape(n, planes + 1)[:, 1:]
    # The same number of points of each, so that one array holds them all.
    ends = np.cumsum(counts)[known, None]
    sample = windows.seen.take(ends - counts[known, None] + np.arange(_SAMPLE) * counts[known, None] // _SAMPLE)
    points = grid.points.reshape(-1, 3).take(sample, axis=0)  # (N, S, 3)
    normals = np.array([plane.normal for plane in grid.planes], np.float32)
    own = normals @ points.transpose(0, 2, 1) - np.array([[plane.distance] for plane in grid.planes], np.float32)
    limits = noise(points[..., 2])
    low[known] = quantiles(own, 0.05)[0] - limits.max(1, keepdims=True) / 2
    below[known] = (own < -2 * limits[:, None]).mean(2)
    return low, below, inside


def _rims(windows: _Windows, grid: Grid, jump: float) -> tuple[np.ndarray, np.ndarray]:
    """(N, P) cells of each plane just outside a mask and in contact with it in depth; (N,) if nearer ones hide it."""
    n, planes = len(windows.masks), len(grid.planes)
    z = grid.points[..., 2]
    inverse = np.divide(1, z, out=np.zeros_like(z), where=grid.valid)
    maps = np.stack([np.ones_like(z), z, inverse], axis=-1)  # their largest neighbours: any, the furthest, the nearest
    kernel = np.ones((5, 5), np.uint8)
    near, rims = [], []
    known = np.flatnonzero(windows.counts)
    for i in known.tolist():
        mask, place = windows.masks[i], windows.slices[i]
        around = cv2.dilate(cv2.copyTo(maps[place], mask.view(np.uint8)), kernel)
        rims.append(np.flatnonzero((around[..., 0] > mask) & grid.valid[place]))
        near.append(around.reshape(-1, 3).take(rims[-1], axis=0))
    if not near:
        return np.zeros((n, planes), np.int64), np.zeros(n, bool)
    around = np.concatenate(near)
    lengths = [len(rim) for rim in rims]
    owners = np.repeat(known, lengths)
    firsts = np.array([y.start * z.shape[1] + x.start for y, x in windows.slices])
    widths = np.array([mask.shape[1] for mask in windows.masks])
    first, width = firsts.take(owners), widths.take(owners)
    cells = np.concatenate(rims)
    cells += first + cells // width * (z.shape[1] - width)
    z = z.reshape(-1).take(cells)
    with np.errstate(divide="ignore"):  # cells of the mask next to it, but none with depth
        nearest = 1 / around[:, 2]
    contact = (z < around[:, 1] + _CONTACT) & (z > nearest - _CONTACT)
    keys = owners * (planes + 1) + grid.labels.reshape(-1).take(cells) + 1
    met = np.bincount(keys[contact], minlength=n * (planes + 1)).reshape(n, planes + 1)[:, 1:]
    hidden = np.bincount(owners[z < nearest * (1 - jump) - 0.01], minlength=n)
    return met, hidden > _HIDDEN * np.maximum(np.bincount(owners, minlength=n), 1)


def _supports(
    windows: _Windows,
    on: np.ndarray,
    touches: np.ndarray,
    level: np.ndarray,
    inside: np.ndarray,
    grid: Grid,
    scene: np.ndarray,
) -> np.ndarray:
    """(N,) index of the plane that an instance is a piece of, perhaps with things on it in its mask; -1 = of none."""
    result = np.full(len(on), -1, np.int64)
    areas = windows.areas
    # Without enough cells on level planes an instance is none, whatever stands on it.
    flat = (inside * level).sum(1) > _FLAT * _LEAST_REST * areas
    is_level = np.append(level, False)  # the last one is asked for by cells on no plane
    # Cells of the things that stand on each plane. Small ones first: what holds them and plane around them is a piece.
    standing = np.zeros((len(grid.planes), *grid.valid.shape), bool)
    for i in np.argsort(areas, kind="stable").tolist():
        mask, window = windows.masks[i], windows.slices[i]
        k = int(inside[i].argmax()) if flat[i] else -1
        if k >= 0 and level[k]:
            plane, carried, labels = grid.planes[k], standing[k][window], grid.labels[window]
            rest = np.flatnonzero(mask & grid.valid[window] & ~carried)
            left = len(rest)
            own = labels.reshape(-1).take(rest)
            on_plane = own == k
            on_planes = np.count_nonzero(is_level.take(own))  # a mask may hold a table and the floor behind it
            share = np.count_nonzero(on_plane) / max(left, 1)
            if left > _LEAST_REST * areas[i] and on_planes > _FLAT * left and standing[k].any():
                some = np.s_[:: 1 + left // _SURFACE_POINTS]
                heights = plane.heights(grid.points[window].reshape(-1, 3).take(rest[some], axis=0))
                middle, high = quantiles(heights[on_plane[some]], 0.5)[0], quantiles(heights, 0.9)[0]
                patch = left > _LEAST_PATCH * plane.cells and share > _PATCH and high < _NO_HEIGHT
                # Thin things that lie on the plane are near it too, but not in it.
                if patch or (abs(middle) < _IN_PLANE and (scene[i] or _holds(mask, carried))):
                    result[i] = k
        if result[i] < 0 and touches[i]:
            standing[on[i]][window] |= mask
    return result


def _mixed(
    windows: _Windows, on: np.ndarray, stands: np.ndarray, is_support: np.ndarray, below: np.ndarray, grid: Grid
) -> np.ndarray:
    """(N,) bool: masks of a thing that stands on a plane and of what cannot be one with it.

    Of several things that stand apart and fill the mask; of a thing and much of its plane; of a thing and something
    that reaches below the plane.
    """
    n, areas, full = len(windows.masks), windows.areas, windows.full
    result = np.zeros(n, bool)
    order = np.argsort(areas, kind="stable")
    edges = np.array([(y.start, x.start, y.stop, x.stop) for y, x in windows.slices], np.int64).reshape(n, 4)
    meet = (np.minimum(edges[:, None, 2:], edges[:, 2:]) > np.maximum(edges[:, None, :2], edges[:, :2])).all(2)
    meet &= stands & (areas <= _SAME_THING * areas[:, None])
    ends = np.cumsum(windows.counts)
    for place, i in enumerate(order.tolist()):
        if is_support[i] or not areas[i]:
            continue
        smaller = order[:place][::-1]  # the large ones first
        inside: list[int] = []
        window = windows.slices[i]
        mask = full[i][window]
        covered = np.zeros(mask.shape, bool)
        for j in smaller[meet[i, smaller]].tolist():
            own = full[j][window]
            if result[j] or np.count_nonzero(own & mask) < _MOSTLY * areas[j]:
                continue
            if np.count_nonzero(own & covered) < _APART * areas[j]:
                inside.append(j)
                covered |= own
        if not inside:
            continue
        plane = on[inside[0]]
        valid = grid.valid[window]
        on_plane = mask & (grid.labels[window] == plane)
        rest = mask & ~on_plane & valid
        reaches_below = below[i, plane] > _BELOW
        loose = bool(np.count_nonzero(on_plane) > _LOOSE * np.count_nonzero(mask & valid))
        if loose:  # a thin thing that lies on the plane is near it all over
            heights = grid.planes[plane].heights(grid.points[window][on_plane])
            loose = bool(abs(quantiles(heights, 0.5)[0]) < _IN_PLANE)
        filled = np.count_nonzero(covered & rest) > _FILLED * np.count_nonzero(rest)
        points = [_some(windows.seen[ends[j] - windows.counts[j] : ends[j]], grid) for j in inside] if filled else []
        result[i] = reaches_below or loose or _any_gap(points)
    return result


def _any_gap(things: list[np.ndarray]) -> bool:
    return any(_gap(first, second) > _GAP for k, first in enumerate(things) for second in things[k + 1 :])


def _some(cells: np.ndarray, grid: Grid, most: int = 80) -> np.ndarray:
    points: np.ndarray = grid.points.reshape(-1, 3).take(cells[:: 1 + len(cells) // most], axis=0)
    return points


def _gap(points: np.ndarray, others: np.ndarray) -> float:
    """Distance of two sets of points, m, but for a few wrong ones."""
    if not len(points) or not len(others):
        return 0.0
    squares = np.square(points[:, None] - others[None]).sum(2).min(1)
    return float(np.sqrt(quantiles(squares, 0.03)[0]))


def _holds(mask: np.ndarray, carried: np.ndarray) -> bool:
    """Whether things stand inside the outline of a mask."""
    enough = np.count_nonzero(carried) > _LEAST_CARRIED
    return bool(enough and np.count_nonzero(_filled(mask) & carried) > _LEAST_CARRIED)


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
    touched = np.zeros(len(instances), bool)
    touched[roots[supports]] = True
    redo = np.flatnonzero(touched[roots] & ~stands.is_support & ~stands.is_mixed)
    levels[supports], parents[supports] = 0, -1
    if len(redo):
        regions = instances.regions
        new_parents, new_levels = coverage_forest(regions[redo], [instances.masks[i] for i in redo], cover=_COVER)
        parents[redo] = np.where(new_parents >= 0, redo[new_parents], -1)
        levels[redo] = new_levels
    return levels, parents
