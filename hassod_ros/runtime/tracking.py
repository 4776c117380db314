"""Stable ids over time: wholes first, then parts with the help of the whole that they belong to."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, fields
from statistics import median

import numpy as np

from hassod_ros.instances import Instances, Level

_LEAST_BOX_IOU = 0.1  # pairs below are not compared by their masks
_SMOOTHING = 0.5  # share of the newest displacement in a track's velocity
_PARENT_BONUS = 0.2  # IoU that having the same parent counts for
_COLOR_BONUS = 0.2  # IoU that having the same colours counts for
_CELLS = 16  # along each side of a mask's region, at which masks are compared
_POINTS = 128  # of each mask, that are looked for in others, and whose colours are looked at
_SPREAD = (np.arange(_POINTS) + np.arange(1, _POINTS + 1) * 0.618034 % 1) / _POINTS  # evenly, but in no pattern
_LEAST_FRAMES = 3  # frame intervals that a thing is remembered at least
_INTERVALS = 5  # frame intervals whose median counts


@dataclass
class _Things:
    """N things as they were last seen, as a struct of arrays.

    Attributes:
        ids: (N,) int64.
        parents: (N,) int64, id of the parent, 0 = none.
        boxes: (N, 4) float64 xyxy in pixels.
        regions: (N, 4) int64 xyxy, the whole pixels of the masks.
        velocities: (N, 2) float64 x and y in pixels per second.
        cells: (N, C, C) bool, the mask at the centres of a grid over its region.
        points: (N, P) uint8, some of its cells, spread evenly: row times C plus column.
        areas: (N,) float64, of the masks in pixels.
        colors: (N, 64) float32 histograms, which follow slowly; zeros where unknown.
        seen: (N,) float64, time in s.

    """

    ids: np.ndarray
    parents: np.ndarray
    boxes: np.ndarray
    regions: np.ndarray
    velocities: np.ndarray
    cells: np.ndarray
    points: np.ndarray
    areas: np.ndarray
    colors: np.ndarray
    seen: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)

    @classmethod
    def look(cls, instances: Instances, time: float, image: np.ndarray | None) -> _Things:
        """The instances of a frame, without ids and velocities."""
        count, cells = len(instances), _cells(instances)
        points = _points(cells)
        return cls(
            np.zeros(count, np.int64),
            np.zeros(count, np.int64),
            instances.boxes.astype(np.float64),
            instances.regions,
            np.zeros((count, 2)),
            cells,
            points,
            instances.areas.astype(np.float64),
            np.zeros((count, 64), np.float32) if image is None else _histograms(instances.regions, points, image),
            np.full(count, time),
        )

    def select(self, keep: np.ndarray) -> _Things:
        """Those of a bool mask."""
        return _Things(*(getattr(self, field.name)[keep] for field in fields(self)))

    def join(self, other: _Things) -> _Things:
        """Both, one after the other."""
        return _Things(*(np.concatenate([getattr(self, f.name), getattr(other, f.name)]) for f in fields(self)))

    def moved_to(self, time: float) -> np.ndarray:
        """(N, 4) regions where they should be by `time`."""
        shifts = np.round(self.velocities * (time - self.seen)[:, None]).astype(np.int64)
        return self.regions + np.tile(shifts, 2)


class Tracker:
    """Gives each instance the id of the thing that it overlaps most, where that thing should be by now.

    Colours and the parent help where several things overlap an instance about as much.

    Things move with constant velocity in the image. One that is not seen keeps its id for `memory` seconds. Ids count
    up from 1 and are never given twice.

    Args:
        memory: Seconds; where frames come slowly, three of their intervals. May be changed between two frames.
        least_iou: Mask IoU that makes two masks the same thing; less is enough where colours or parents agree. May be
            changed between two frames.

    Example:
        >>> square = Instances.from_dense(np.ones((1, 2, 2), bool), image_size=(2, 2))
        >>> tracker = Tracker()
        >>> tracker.update(square, 0.0).ids, tracker.update(square, 0.1).ids
        (array([1], dtype=uint32), array([1], dtype=uint32))

    """

    def __init__(self, memory: float = 1.0, least_iou: float = 0.3) -> None:
        self.memory = memory
        self.least_iou = least_iou
        self._tracks = _Things.look(Instances.empty((1, 1)), 0.0, None)
        self._next_id = 1
        self._latest = -np.inf  # time of the newest frame
        self._intervals: deque[float] = deque(maxlen=_INTERVALS)

    def update(self, instances: Instances, time: float, image: np.ndarray | None = None) -> Instances:
        """The same instances with ids.

        Args:
            instances: Of one frame.
            time: Of that frame in seconds. A frame that comes a little late counts as one of the newest time; a step
                back by more than the memory, as when a simulation starts again, begins anew.
            image: (H, W, 3) uint8 pixels of the frame, in the same colour order every time. Default: colours do not
                count.

        """
        time = self._advance(time)
        tracks, things = self._tracks, _Things.look(instances, time, image)
        overlaps = _overlaps(tracks, things, time)  # (T, N)
        known, new = np.divmod(np.flatnonzero(overlaps), max(1, len(things)))
        overlaps[known, new] += _COLOR_BONUS * np.minimum(tracks.colors[known], things.colors[new]).sum(axis=1)
        found = np.full(len(things), -1)  # the track of each
        is_whole = instances.levels == Level.WHOLE
        # Parts compete too, so that no whole takes a track that fits one of its parts better; only wholes keep it.
        pairs = [(track, i) for track, i in _best_pairs(overlaps, self.least_iou) if is_whole[i]]
        self._assign(pairs, is_whole, things, found)
        scores = np.where(is_whole, 0, overlaps)
        things.parents[:] = self._parents(instances, things)
        scores[(tracks.parents[:, None] == things.parents) & (things.parents > 0) & (scores > 0)] += _PARENT_BONUS
        scores[found[found >= 0]] = 0
        self._assign(_best_pairs(scores, self.least_iou), ~is_whole, things, found)
        things.parents[:] = self._parents(instances, things)
        self._remember(things, found)
        return instances.with_ids(things.ids.astype(np.uint32))

    def _advance(self, time: float) -> float:
        """Forget what was not seen for too long by `time`; returns the time that counts."""
        step = time - self._latest
        if 0 < step < np.inf:
            self._intervals.append(step)
        memory = max(self.memory, _LEAST_FRAMES * median(self._intervals) if self._intervals else 0.0)
        if step < -memory:
            self._tracks = self._tracks.select(np.zeros(len(self._tracks), bool))
            self._intervals.clear()
        elif step < 0:
            time = self._latest
        self._latest = time
        recent = time - self._tracks.seen <= memory
        self._tracks = self._tracks if recent.all() else self._tracks.select(recent)
        return time

    @staticmethod
    def _parents(instances: Instances, things: _Things) -> np.ndarray:
        """(N,) ids of the parents, as far as these have one by now; 0 = none."""
        return np.where(instances.parents >= 0, things.ids[instances.parents], 0) if len(things) else things.ids

    def _assign(self, pairs: list[tuple[int, int]], rows: np.ndarray, things: _Things, found: np.ndarray) -> None:
        """Write the ids of pairs (track, instance), and new ones for the other instances of the (N,) bool `rows`."""
        if pairs:
            tracks, known = np.array(pairs).T
            found[known], things.ids[known] = tracks, self._tracks.ids[tracks]
        new = np.flatnonzero(rows & (things.ids == 0))
        things.ids[new] = self._next_id + np.arange(len(new))
        self._next_id += len(new)

    def _remember(self, things: _Things, found: np.ndarray) -> None:
        """Take over what is known of the things from the tracks that they were `found` to be, (N,) index or -1."""
        tracks, again = self._tracks, np.flatnonzero(found >= 0)
        known = found[again]
        things.colors[again] = (tracks.colors[known] + things.colors[again]) / 2
        elapsed = things.seen[again] - tracks.seen[known]
        boxes, before = things.boxes[again], tracks.boxes[known]
        moved = (boxes[:, :2] + boxes[:, 2:] - before[:, :2] - before[:, 2:]) / 2
        velocities = moved / np.where(elapsed > 0, elapsed, np.inf)[:, None]
        kept = (1 - _SMOOTHING) * (elapsed > 0)[:, None]  # a frame of the same time says nothing about how things move
        things.velocities[again] = kept * tracks.velocities[known] + _SMOOTHING * velocities
        unseen = np.ones(len(tracks), bool)
        unseen[known] = False
        self._tracks = tracks.select(unseen).join(things)


def _overlaps(tracks: _Things, things: _Things, time: float) -> np.ndarray:
    """(T, N) mask IoU of each track, moved to where it should be, with each thing.

    Some points of the smaller mask are looked for among the cells of the larger one, of all pairs at once.
    """
    overlaps = np.zeros((len(tracks), len(things)))
    if not overlaps.size:
        return overlaps
    regions = np.concatenate([tracks.moved_to(time), things.regions]).astype(np.float32)
    x0, y0, x1, y1 = np.ascontiguousarray(regions.T)
    areas = np.concatenate([tracks.areas, things.areas]).astype(np.float32)
    old, new = slice(len(tracks)), slice(len(tracks), None)
    across = np.minimum.outer(x1[old], x1[new]) - np.maximum.outer(x0[old], x0[new])
    along = np.minimum.outer(y1[old], y1[new]) - np.maximum.outer(y0[old], y0[new])
    common, sizes = np.maximum(across, 0) * np.maximum(along, 0), (x1 - x0) * (y1 - y0)
    most = np.minimum(common, np.minimum.outer(areas[old], areas[new]))
    pairs = np.flatnonzero(
        (common >= _LEAST_BOX_IOU * (np.add.outer(sizes[old], sizes[new]) - common))
        & (most >= _LEAST_BOX_IOU * (np.add.outer(areas[old], areas[new]) - most))
    )
    track, thing = np.divmod(pairs, len(things))
    small, large = track, thing + len(tracks)
    small, large = np.where(areas[small] <= areas[large], (small, large), (large, small))
    # With a rim of cells outside the mask, where everything beyond it falls.
    cells = np.zeros((len(areas), _CELLS + 2, _CELLS + 2), bool)
    cells[:, 1:-1, 1:-1] = np.concatenate([tracks.cells, things.cells])
    points = np.concatenate([tracks.points, things.points])
    place = _cells_in(points // _CELLS, (y0, y1), small, large)
    place *= _CELLS + 2
    place += _cells_in(points % _CELLS, (x0, x1), small, large)
    place += large[:, None] * (_CELLS + 2) ** 2
    shared = np.count_nonzero(cells.ravel().take(place), axis=1) / _POINTS * areas[small]
    overlaps[track, thing] = shared / (areas[small] + areas[large] - shared)
    return overlaps


def _cells_in(
    cells: np.ndarray, spans: tuple[np.ndarray, np.ndarray], small: np.ndarray, large: np.ndarray
) -> np.ndarray:
    """Along one axis, the cells of some masks (N, P) as cells of others: (pairs, P), counted from a rim at 0."""
    low, high = spans
    side = high - low
    found = cells.astype(np.float32).take(small, axis=0)
    found += np.float32(0.5)
    found *= (side[small] / side[large])[:, None]
    found += ((low[small] - low[large]) * (_CELLS / side[large]) + 1)[:, None]
    return np.clip(found, 0, _CELLS + 1, out=found).astype(np.intp)


def _places(regions: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(N, P) float32 x and y of points (N, P) of regions (N, 4), in pixels."""
    row, column = points // _CELLS, points % _CELLS
    sides = ((regions[:, 2:] - regions[:, :2]) / _CELLS).astype(np.float32)
    x = (column.astype(np.float32) + np.float32(0.5)) * sides[:, :1] + regions[:, :1].astype(np.float32)
    y = (row.astype(np.float32) + np.float32(0.5)) * sides[:, 1:] + regions[:, 1:2].astype(np.float32)
    return x, y


def _cells(instances: Instances) -> np.ndarray:
    """(N, C, C) bool: the masks at the centres of their cells; of one that lies between all centres every cell counts
    that it touches.
    """
    cells = np.zeros((len(instances), _CELLS, _CELLS), np.uint8)
    sides = instances.regions[:, 2:] - instances.regions[:, :2]
    columns, rows = (np.arange(1, 2 * _CELLS, 2) * sides[:, axis, None] // (2 * _CELLS) for axis in (0, 1))
    places = (rows * sides[:, :1])[:, :, None] + columns[:, None, :]
    for out, mask, place in zip(cells, instances.masks, places, strict=True):
        mask.take(place, out=out, mode="clip")
    for i in np.flatnonzero(~cells.any(axis=(1, 2))).tolist():
        y, x = np.nonzero(instances.masks[i])
        height, width = instances.masks[i].shape
        cells[i, y * _CELLS // height, x * _CELLS // width] = 1
    return cells.view(bool)


def _points(cells: np.ndarray) -> np.ndarray:
    """(N, P) uint8: some of the cells (N, C, C) of each mask, row by row; none is without any."""
    counts = np.count_nonzero(cells, axis=(1, 2))
    starts = np.cumsum(counts) - counts
    chosen = starts[:, None] + (_SPREAD * counts[:, None]).astype(np.int64)
    points: np.ndarray = np.flatnonzero(cells)[chosen].astype(np.uint8)  # the place in the mask, which has 256
    return points


def _histograms(regions: np.ndarray, points: np.ndarray, image: np.ndarray) -> np.ndarray:
    """(N, 64) float32: share of each mask's points (N, P) in 4 x 4 x 4 colours of an (H, W, 3) uint8 image."""
    x, y = _places(regions, points)
    pixels = y.astype(np.intp) * image.shape[1] + x.astype(np.intp)
    found = image.reshape(-1, 3).take(pixels.ravel(), axis=0) >> 6
    codes = (found @ np.array([16, 4, 1], np.uint8)).reshape(pixels.shape)
    count = len(points)
    counts = np.bincount((codes + np.arange(0, 64 * count, 64)[:, None]).ravel(), minlength=64 * count)
    shares: np.ndarray = (counts.reshape(-1, 64) / _POINTS).astype(np.float32)
    return shares


def _best_pairs(scores: np.ndarray, least: float) -> list[tuple[int, int]]:
    """Pairs (row, column) of (T, N) scores >= `least`, the best first, each row and column at most once."""
    rows, columns = np.divmod(np.flatnonzero(scores >= least), max(1, scores.shape[1]))
    order = np.argsort(-scores[rows, columns], kind="stable")
    taken_rows: set[int] = set()
    taken_columns: set[int] = set()
    pairs = []
    for row, column in zip(rows[order].tolist(), columns[order].tolist(), strict=True):
        if row not in taken_rows and column not in taken_columns:
            taken_rows.add(row)
            taken_columns.add(column)
            pairs.append((row, column))
    return pairs
