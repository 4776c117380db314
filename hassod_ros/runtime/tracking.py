"""Stable ids over time: wholes first, then parts with the help of the whole that they belong to."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace

import numpy as np

from hassod_ros.instances import Instances, Level

_LEAST_BOX_IOU = 0.1  # pairs below are not compared by their masks
_SMOOTHING = 0.5  # share of the newest displacement in a track's velocity
_PARENT_BONUS = 0.2  # IoU that having the same parent counts for
_COLOR_BONUS = 0.2  # IoU that having the same colours counts for
_COLOR_SIDE = 320  # pixels of the image's longer side that colours are looked at
_LEAST_FRAMES = 3  # frame intervals that a thing is remembered at least
_INTERVALS = 5  # frame intervals whose median counts


@dataclass
class _Track:
    """What is remembered of a thing.

    Attributes:
        id: Its id.
        parent: Id of its parent when last seen, 0 = none.
        box: (4,) float64 xyxy in pixels when last seen.
        velocity: (2,) float64 x and y in pixels per second.
        mask: uint8 0/1 crop when last seen.
        area: Of the mask in pixels.
        colors: (64,) float32 histogram, which follows slowly; zeros where unknown.
        seen: Time in s when last seen.

    """

    id: int
    parent: int
    box: np.ndarray
    velocity: np.ndarray
    mask: np.ndarray
    area: int
    colors: np.ndarray
    seen: float

    def shift(self, time: float) -> np.ndarray:
        """(2,) float64: how far it should have moved by `time`, in pixels."""
        return self.velocity * (time - self.seen)


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
        self._tracks: list[_Track] = []
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
        ids = np.zeros(len(instances), np.uint32)
        overlaps = self._overlaps(instances, time)  # (T, N)
        colors = _histograms(instances, image) if image is not None else np.zeros((len(instances), 64), np.float32)
        if self._tracks and len(instances):
            known_colors = np.array([track.colors for track in self._tracks])
            alike = np.minimum(known_colors[:, None], colors[None]).sum(axis=2)
            overlaps[overlaps > 0] += _COLOR_BONUS * alike[overlaps > 0]
        found: list[_Track | None] = [None] * len(instances)
        is_whole = instances.levels == Level.WHOLE
        # Parts compete too, so that no whole takes a track that fits one of its parts better; only wholes keep it.
        pairs = [(track, i) for track, i in _best_pairs(overlaps, self.least_iou) if is_whole[i]]
        self._assign(pairs, is_whole, ids, found)
        scores = np.where(is_whole, 0, overlaps)
        known = np.array([track.parent for track in self._tracks], np.int64)
        parents = np.where(instances.parents >= 0, ids[instances.parents], 0) if len(ids) else ids  # (N,) ids
        scores[(known[:, None] == parents) & (parents > 0) & (scores > 0)] += _PARENT_BONUS
        scores[[track.id in ids for track in self._tracks]] = 0
        self._assign(_best_pairs(scores, self.least_iou), ~is_whole, ids, found)
        self._remember(instances, ids, found, colors, time)
        return replace(instances, ids=ids)

    def _advance(self, time: float) -> float:
        """Forget what was not seen for too long by `time`; returns the time that counts."""
        step = time - self._latest
        if 0 < step < np.inf:
            self._intervals.append(step)
        memory = max(self.memory, _LEAST_FRAMES * float(np.median(self._intervals)) if self._intervals else 0.0)
        if step < -memory:
            self._tracks = []
            self._intervals.clear()
        elif step < 0:
            time = self._latest
        self._latest = time
        self._tracks = [track for track in self._tracks if time - track.seen <= memory]
        return time

    def _assign(
        self, pairs: list[tuple[int, int]], rows: np.ndarray, ids: np.ndarray, found: list[_Track | None]
    ) -> None:
        """Write the ids of pairs (track, instance), and new ones for the other instances of the (N,) bool `rows`."""
        for track, i in pairs:
            found[i] = self._tracks[track]
            ids[i] = self._tracks[track].id
        for i in np.flatnonzero(rows & (ids == 0)).tolist():
            ids[i] = self._next_id
            self._next_id += 1

    def _overlaps(self, instances: Instances, time: float) -> np.ndarray:
        """(T, N) mask IoU of each track, moved to where it should be, with each instance."""
        if not self._tracks or not len(instances):
            return np.zeros((len(self._tracks), len(instances)))
        shifts = np.array([np.round(track.shift(time)) for track in self._tracks]).astype(np.int64)  # (T, 2)
        boxes = np.array([track.box for track in self._tracks])
        regions = np.concatenate([np.floor(boxes[:, :2]), np.ceil(boxes[:, 2:])], 1).astype(np.int64)
        regions += np.tile(shifts, 2)
        others, areas = instances.regions, instances.areas
        low = np.maximum(regions[:, None, :2], others[None, :, :2])  # (T, N, 2)
        high = np.minimum(regions[:, None, 2:], others[None, :, 2:])
        common = np.prod(np.maximum(high - low, 0), axis=2)
        box_area = [np.prod(corners[:, 2:] - corners[:, :2], axis=1) for corners in (regions, others)]
        box_iou = common / (box_area[0][:, None] + box_area[1][None] - common)
        overlaps = np.zeros(box_iou.shape)
        for t, i in np.argwhere(box_iou >= _LEAST_BOX_IOU).tolist():
            (x0, y0), (x1, y1) = low[t, i].tolist(), high[t, i].tolist()
            mask, (left, top) = self._tracks[t].mask, regions[t, :2].tolist()
            other, (other_left, other_top) = instances.masks[i], others[i, :2].tolist()
            both = np.count_nonzero(
                mask[y0 - top : y1 - top, x0 - left : x1 - left]
                & other[y0 - other_top : y1 - other_top, x0 - other_left : x1 - other_left]
            )
            overlaps[t, i] = both / (self._tracks[t].area + areas[i] - both)
        return overlaps

    def _remember(
        self, instances: Instances, ids: np.ndarray, found: list[_Track | None], colors: np.ndarray, time: float
    ) -> None:
        kept = [track for track in self._tracks if track.id not in ids]
        areas = instances.areas
        for i, track in enumerate(found):
            box = instances.boxes[i].astype(np.float64)
            velocity = np.zeros(2)
            if track is not None and time > track.seen:
                moved = (box[:2] + box[2:] - track.box[:2] - track.box[2:]) / 2 / (time - track.seen)
                velocity = (1 - _SMOOTHING) * track.velocity + _SMOOTHING * moved
            hue = colors[i] if track is None else (track.colors + colors[i]) / 2
            parent = int(ids[instances.parents[i]]) if instances.parents[i] >= 0 else 0
            kept.append(_Track(int(ids[i]), parent, box, velocity, instances.masks[i], int(areas[i]), hue, time))
        self._tracks = kept


def _histograms(instances: Instances, image: np.ndarray) -> np.ndarray:
    """(N, 64) float32: share of each instance's pixels in each of 4 x 4 x 4 colours.

    Large images are looked at on a coarse grid; an instance without a pixel on it gets zeros.
    """
    step = max(1, max(instances.image_size) // _COLOR_SIDE)
    coarse = image[::step, ::step] >> 6
    codes = coarse[..., 0] << 4 | coarse[..., 1] << 2 | coarse[..., 2]
    histograms = np.zeros((len(instances), 64), np.float32)
    for i, ((x0, y0, _, _), mask) in enumerate(zip(instances.regions.tolist(), instances.masks, strict=True)):
        top, left = -y0 % step, -x0 % step  # of the first grid point inside
        inside = mask[top::step, left::step]
        rows, columns = (y0 + top) // step, (x0 + left) // step
        found = codes[rows : rows + inside.shape[0], columns : columns + inside.shape[1]][inside > 0]
        if found.size:
            histograms[i] = np.bincount(found, minlength=64) / found.size
    return histograms


def _best_pairs(scores: np.ndarray, least: float) -> list[tuple[int, int]]:
    """Pairs (row, column) of (T, N) scores >= `least`, the best first, each row and column at most once."""
    rows, columns = np.nonzero(scores >= least)
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
