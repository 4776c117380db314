"""Level and Instances: the one currency that every part of hassod_ros speaks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from typing import Any

import numpy as np

from hassod_ros.masks import largest_values, mask_areas, paint

_LABEL_MAX = np.iinfo(np.uint16).max


class Level(IntEnum):
    """Place of a mask in the part/whole composition (HASSOD, section 3.2)."""

    WHOLE = 0
    PART = 1
    SUBPART = 2


@dataclass(frozen=True, eq=False)
class Instances:
    """N segmented instances of one image, as a struct of arrays.

    Arrays are taken over, not copied; treat them as read-only. All invariants are checked once, here.

    Attributes:
        image_size: (H, W) of the image in pixels.
        boxes: (N, 4) float32, x0 y0 x1 y1 in pixels, 0 <= x0 < x1 <= W and 0 <= y0 < y1 <= H.
        masks: N uint8 arrays of 0 and 1, one per instance. Mask i covers the pixels of `regions[i]`, the smallest whole
            pixel rectangle around box i, and is never empty.
        scores: (N,) float32 in [0, 1]. Default: 1.
        levels: (N,) uint8, values of `Level`. Default: WHOLE.
        parents: (N,) int32, index of the instance that this one is a part of, or -1. A parent stands higher than its
            child (smaller level), or both are subparts; no cycles. Default: -1.
        ids: (N,) uint32, stable over time within a run; 0 = untracked. Default: 0.
        scene: (N,) bool, background or support: wall, floor, sky, table top. Nobody's ancestor. Default: False.

    Raises:
        ValueError: An invariant does not hold; the message names it and the first offending instance.

    Example:
        >>> square = Instances.from_dense(np.eye(3, dtype=bool)[None], image_size=(3, 3))
        >>> square.boxes.tolist(), len(square)
        ([[0.0, 0.0, 3.0, 3.0]], 1)

    """

    image_size: tuple[int, int]
    boxes: np.ndarray
    masks: tuple[np.ndarray, ...]
    scores: np.ndarray
    levels: np.ndarray
    parents: np.ndarray
    ids: np.ndarray
    scene: np.ndarray

    def __init__(
        self,
        *,
        image_size: tuple[int, int],
        boxes: np.ndarray,
        masks: Sequence[np.ndarray],
        scores: np.ndarray | None = None,
        levels: np.ndarray | None = None,
        parents: np.ndarray | None = None,
        ids: np.ndarray | None = None,
        scene: np.ndarray | None = None,
    ) -> None:
        n = len(masks)
        fields = {
            "image_size": (int(image_size[0]), int(image_size[1])),
            "boxes": np.asarray(boxes, np.float32).reshape(-1, 4) if n == 0 else np.asarray(boxes, np.float32),
            "masks": tuple(masks),
            "scores": np.ones(n, np.float32) if scores is None else np.asarray(scores, np.float32),
            "levels": np.zeros(n, np.uint8) if levels is None else _as_integers("levels", levels, np.uint8),
            "parents": np.full(n, -1, np.int32) if parents is None else _as_integers("parents", parents, np.int32),
            "ids": np.zeros(n, np.uint32) if ids is None else _as_integers("ids", ids, np.uint32),
            "scene": np.zeros(n, bool) if scene is None else _as_integers("scene", scene, np.bool_),
        }
        for name, value in fields.items():
            object.__setattr__(self, name, value)
        self._check_fields()
        self._check_masks()

    def _check_fields(self) -> None:
        n = len(self.masks)
        height, width = self.image_size
        if height < 1 or width < 1:
            raise ValueError(f"image_size must be positive, got {self.image_size}")
        shapes = {"boxes": (n, 4)} | dict.fromkeys(("scores", "levels", "parents", "scene"), (n,))
        for name, shape in shapes.items():
            if getattr(self, name).shape != shape:
                raise ValueError(f"{name} must have shape {shape} for {n} masks, got {getattr(self, name).shape}")
        self._check_ids()
        if n == 0:
            return
        x0, y0, x1, y1 = self.boxes.T
        # Written so that NaN fails too.
        _require((x0 >= 0) & (x0 < x1) & (x1 <= width) & (y0 >= 0) & (y0 < y1) & (y1 <= height), "box inside the image")
        _require((self.scores >= 0) & (self.scores <= 1), "score in [0, 1]")
        _require(self.levels <= Level.SUBPART, "level of 0, 1 or 2")
        _require((self.parents >= -1) & (self.parents < n), f"parent of -1 or an index below {n}")
        orphan = self.parents < 0
        above = self.levels[self.parents]
        deep = ~orphan & (above == Level.SUBPART) & (self.levels == Level.SUBPART)
        _require(orphan | deep | (above < self.levels), "parent of a higher level (smaller number)")
        links = ancestor = np.where(deep, self.parents, -1)  # elsewhere levels exclude cycles
        for _ in range(n):
            if not (ancestor >= 0).any():
                break
            ancestor = np.where(ancestor >= 0, links[ancestor], -1)
        _require(ancestor < 0, "line of parents that ends")
        _require(orphan | ~self.scene[self.parents], "parent that is no scene")

    def _check_ids(self) -> None:
        n = len(self.masks)
        if self.ids.shape != (n,):
            raise ValueError(f"ids must have shape {(n,)} for {n} masks, got {self.ids.shape}")
        tracked = self.ids[self.ids > 0]
        if len(np.unique(tracked)) != len(tracked):
            raise ValueError("two instances share one id; ids must be unique or 0")

    def _check_masks(self) -> None:
        sizes = (self.regions[:, 2:] - self.regions[:, :2]).tolist()
        for i, (mask, (width, height)) in enumerate(zip(self.masks, sizes, strict=True)):
            if mask.dtype != np.uint8 or mask.shape != (height, width):
                raise ValueError(
                    f"mask {i} must be uint8 of its region's shape ({height}, {width}), got {mask.dtype} {mask.shape}"
                )
        for i, largest in enumerate(largest_values(self.masks)):
            if largest != 1:
                raise ValueError(f"mask {i} must hold 0 and 1 and not be empty, its largest value is {largest}")

    @classmethod
    def empty(cls, image_size: tuple[int, int]) -> Instances:
        """No instance in an image of (H, W)."""
        return cls(image_size=image_size, boxes=np.zeros((0, 4), np.float32), masks=())

    @classmethod
    def from_dense(cls, masks: np.ndarray, *, image_size: tuple[int, int], **fields: np.ndarray) -> Instances:
        """Instances of (N, H, W) bool or 0/1 masks; boxes are the masks' extents. `fields` as in the constructor."""
        boxes = np.zeros((len(masks), 4), np.float32)
        crops = []
        for i, mask in enumerate(masks):
            rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            if not len(rows):
                raise ValueError(f"mask {i} is empty")
            y0, y1, x0, x1 = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
            boxes[i] = x0, y0, x1, y1
            crops.append(np.ascontiguousarray(mask[y0:y1, x0:x1], np.uint8))
        return cls(image_size=image_size, boxes=boxes, masks=crops, **fields)

    def __repr__(self) -> str:
        kinds = zip(np.bincount(self.levels, minlength=len(Level)).tolist(), Level, strict=True)
        counts = ", ".join(f"{count} {level.name.lower()}{'s' * (count != 1)}" for count, level in kinds)
        height, width = self.image_size
        return f"<{len(self)} instances ({counts}) in {width}x{height}>"

    def __len__(self) -> int:
        return len(self.masks)

    @cached_property
    def regions(self) -> np.ndarray:
        """(N, 4) int64 x0 y0 x1 y1: the whole pixel rectangles that the masks cover."""
        return np.concatenate([np.floor(self.boxes[:, :2]), np.ceil(self.boxes[:, 2:])], axis=1).astype(np.int64)

    @cached_property
    def areas(self) -> np.ndarray:
        """(N,) int64 mask areas in pixels."""
        return mask_areas(self.masks)

    def select(self, keep: np.ndarray) -> Instances:
        """The instances of a bool mask (N,) or an index array, in that order.

        Whoever loses its parent gets the nearest ancestor that stays, or -1.
        """
        keep = np.asarray(keep)
        # Through arange, so that -1 means the last instance and a mask of another length is an error.
        index = np.arange(len(self))[keep if keep.dtype == bool else keep.astype(np.int64).reshape(-1)]
        return self._sharing(
            masks=tuple(self.masks[i] for i in index.tolist()),
            parents=kept_parents(self.parents, index),
            regions=self.regions[index],
            **{name: getattr(self, name)[index] for name in ("boxes", "scores", "levels", "ids", "scene")},
            **({"areas": self.areas[index]} if "areas" in self.__dict__ else {}),
        )

    def with_ids(self, ids: np.ndarray) -> Instances:
        """The same instances with ids (N,) uint32, unique or 0.

        Raises:
            ValueError: They are not.

        """
        other = self._unchecked(**self.__dict__ | {"ids": _as_integers("ids", ids, np.uint32)})
        other._check_ids()
        return other

    def _sharing(self, **fields: Any) -> Instances:
        """Instances of this picture whose masks were checked already; `fields` are all but the size of the picture."""
        other = self._unchecked(**fields, image_size=self.image_size)
        other._check_fields()
        return other

    @staticmethod
    def _unchecked(**fields: Any) -> Instances:
        other = object.__new__(Instances)
        other.__dict__.update(fields)
        return other

    def dense(self) -> np.ndarray:
        """(N, H, W) bool masks at full size. N full frames of memory: for tests and training, not for robots."""
        full = np.zeros((len(self), *self.image_size), bool)
        for target, mask, (x0, y0, x1, y1) in zip(full, self.masks, self.regions.tolist(), strict=True):
            target[y0:y1, x0:x1] = mask.view(bool)
        return full

    def labels(self) -> np.ndarray:
        """(N,) uint16 pixel values in label maps, no two the same; none of them is 0.

        The id folded into 1..65535, or index + 1 where untracked. Where two fold into one value, the smaller id has it,
        and the other gets the lowest value that is left over.
        """
        key = np.where(self.ids > 0, self.ids.astype(np.int64) - 1, np.arange(len(self)))
        value = key % _LABEL_MAX + 1
        order = np.argsort(key, kind="stable")
        taken, first = np.unique(value[order], return_index=True)
        late = np.delete(order, first)
        if len(late):
            value[late] = np.setdiff1d(np.arange(1, _LABEL_MAX + 1), taken)[: len(late)]
        return value.astype(np.uint16)

    def to_label_map(self, level: Level) -> np.ndarray:
        """(H, W) uint16 map of one level: `labels()` of the instance at each pixel, 0 = none; higher scores on top.

        Scene is left out: it would cover what stands before it.
        """
        label_map = np.zeros(self.image_size, np.uint16)
        labels, regions = self.labels().tolist(), self.regions.tolist()
        chosen = np.flatnonzero((self.levels == level) & ~self.scene)
        for i in chosen[np.argsort(self.scores[chosen], kind="stable")].tolist():
            paint(label_map, regions[i], self.masks[i], labels[i])
        return label_map


def ancestors_of(parents: np.ndarray) -> np.ndarray:
    """(N, N) bool, whether the column is an ancestor of the row, of (N,) parents: an index, or -1.

    Example:
        >>> ancestors_of(np.array([-1, 0, 1])).astype(int).tolist()
        [[0, 0, 0], [1, 0, 0], [1, 1, 0]]

    """
    above = np.zeros((len(parents), len(parents)), bool)
    rows, found = np.arange(len(parents)), parents
    for _ in parents:  # a cycle ends all the same
        rows, found = rows[found >= 0], found[found >= 0]
        if not len(rows):
            break
        above[rows, found] = True
        found = parents[found]
    return above


def kept_parents(parents: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Parents of those that an index array keeps, in their new numbers: the nearest ancestor that stays, or -1.

    Args:
        parents: (N,) integers, index or -1, without cycles.
        index: (K,) those that stay.

    Returns:
        (K,) of the dtype of `parents`.

    """
    place = np.full(len(parents) + 1, -1, parents.dtype)  # the last entry answers for "no parent"
    place[index] = np.arange(len(index), dtype=parents.dtype)
    found: np.ndarray = parents[index]
    while (gone := (found >= 0) & (place[found] < 0)).any():
        found = np.where(gone, parents[found], found)
    kept: np.ndarray = place[found]
    return kept


def _as_integers(name: str, values: np.ndarray, dtype: type) -> np.ndarray:
    """Convert to `dtype` where nothing is lost: 256 must not become level 0."""
    values = np.asarray(values)
    if values.dtype == dtype:
        return values
    converted: np.ndarray = values.astype(dtype)
    if not np.array_equal(converted, values):
        raise ValueError(f"{name} must be whole numbers within {np.dtype(dtype)}, got {values.tolist()[:8]}")
    return converted


def _require(holds: np.ndarray, what: str) -> None:
    if not holds.all():
        raise ValueError(f"instance {int(np.flatnonzero(~holds)[0])} breaks a rule: every instance has a {what}")
