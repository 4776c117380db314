"""Nothing is found where nothing can be seen: a covered lens, a wall that fills the picture, sensor noise, a gradient.

Detectors and clustering find something in every frame. A picture that shows colour steps in many places is left alone.
In one that hardly shows any, a mask counts only if it ends where the colours change, and once.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import cv2
import numpy as np

from hassod_ros.images import halved
from hassod_ros.masks import common_pixels, mask_areas

_SIDE = 160  # pixels of the longer side, at which blank pictures are told: noise averages out
_STEP = 8.0  # of 255, there
_BUSY = 0.15  # share of the picture; with steps in more of it, it is not blank (99 of 100 photographs, see the test)
_FINE_SIDE = 320  # likewise, at which outlines are looked for
_LEAST, _NOISE = 4.0, 3.0  # of 255, and of the median change, which is noise or a gradient: smaller is no step there
_SMOOTH = 1.0  # standard deviation in pixels at both sizes
_SEEN = 0.7  # share of an outline that a step has to follow, or IoU with what all steps together enclose
_BORDER = 2.0  # pixels from the picture's border within which an outline is the border's
_SAME = 0.6  # IoU from which two masks of a blank picture are one thing
_BEYOND = 2  # in a map of 0 and 1, what is neither
_NEAR = np.ones((3, 3), np.uint8)


def visible(
    image: np.ndarray, regions: np.ndarray, masks: Sequence[np.ndarray], image_size: tuple[int, int]
) -> np.ndarray:
    """Which masks a picture shows; all of them unless it is nearly blank.

    Args:
        image: (h, w, 3) uint8, at any size.
        regions: (N, 4) int64 x0 y0 x1 y1 of the masks, in pixels of `image_size`.
        masks: N uint8 0/1 arrays of those shapes.
        image_size: (H, W) that the masks belong to.

    Returns:
        (N,) bool.

    """
    keep = np.ones(len(masks), bool)
    if not len(masks) or _is_busy(image):
        return keep
    change = changes(image, _FINE_SIDE)
    steps = (change > max(_LEAST, _NOISE * float(np.median(change)))).astype(np.uint8)
    scale = np.array([steps.shape[1] / image_size[1], steps.shape[0] / image_size[0]])
    seen = _shares_seen(cv2.dilate(steps, _NEAR), masks, regions[:, :2], image_size)
    alike = _likenesses(_blobs(steps), masks, np.round(regions * np.tile(scale, 2)).astype(np.int64))
    kept: list[int] = []
    boxes, areas = regions.tolist(), mask_areas(masks).tolist()
    for i in np.argsort(-np.maximum(seen, alike), kind="stable").tolist():
        if max(seen[i], alike[i]) < _SEEN:
            break
        shared = [common_pixels(boxes[i], masks[i], boxes[other], masks[other]) for other in kept]
        if all(both < _SAME * (areas[i] + areas[other] - both) for both, other in zip(shared, kept, strict=True)):
            kept.append(i)
    return np.isin(np.arange(len(masks)), kept)


def _is_busy(image: np.ndarray) -> bool:
    """Whether a picture shows steps in many places. One channel nearly always tells, in less than half the time."""
    return any(
        np.count_nonzero(changes(each, _SIDE) > _STEP) > _BUSY * _pixels(each, _SIDE)
        for each in (cv2.extractChannel(image, 1), image)
    )


def changes(image: np.ndarray, side: int) -> np.ndarray:
    """(h', w') float32, how much the colours change around each pixel of a copy with the longer side `side`.

    `image` is (H, W, 3) uint8, or (H, W) for one channel.
    """
    width, height = _size(image, side)
    small = cv2.resize(halved(image, (height, width)), (width, height), interpolation=cv2.INTER_AREA).astype(np.float32)
    channels = cv2.split(cv2.morphologyEx(cv2.GaussianBlur(small, (0, 0), _SMOOTH), cv2.MORPH_GRADIENT, _NEAR))
    return reduce(np.maximum, channels)  # along the last axis numpy takes ten times as long


def _size(image: np.ndarray, side: int) -> tuple[int, int]:
    factor = min(1.0, side / max(image.shape[:2]))
    return max(1, round(image.shape[1] * factor)), max(1, round(image.shape[0] * factor))


def _pixels(image: np.ndarray, side: int) -> int:
    width, height = _size(image, side)
    return width * height


def _blobs(steps: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """What steps enclose: rectangles x0 y0 x1 y1 and their 0/1 masks; a step itself is as wide as its smoothing."""
    found = []
    outlines, _ = cv2.findContours(steps, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    for outline in outlines:
        x, y, width, height = cv2.boundingRect(outline)
        filled = cv2.drawContours(np.zeros((height, width), np.uint8), [outline - (x, y)], -1, 1, cv2.FILLED)
        inner = cv2.erode(filled, _NEAR, iterations=2, borderValue=0)
        if inner.any():
            found.append((np.array([x, y, x + width, y + height]), inner))
    return found


def _likenesses(
    blobs: Sequence[tuple[np.ndarray, np.ndarray]], masks: Sequence[np.ndarray], boxes: np.ndarray
) -> np.ndarray:
    """(N,) largest IoU of each mask, at its box (N, 4), with a blob; 0 where boxes tell that none is alike."""
    best = np.zeros(len(masks))
    if not blobs:
        return best
    places = np.stack([place for place, _ in blobs])  # (B, 4)
    counts = np.array([np.count_nonzero(blob) for _, blob in blobs])
    low, high = np.maximum(boxes[:, None, :2], places[:, :2]), np.minimum(boxes[:, None, 2:], places[:, 2:])
    for i, j in np.argwhere(np.maximum(high - low, 0).prod(axis=2) >= _SEEN * counts).tolist():
        (x0, y0, x1, y1), (place, blob) = boxes[i].tolist(), blobs[j]
        small = cv2.resize(masks[i], (max(1, x1 - x0), max(1, y1 - y0)), interpolation=cv2.INTER_NEAREST)
        (a, b), (c, d) = low[i, j] - (x0, y0), high[i, j] - (x0, y0)
        (e, f), (g, h) = low[i, j] - place[:2], high[i, j] - place[:2]
        common = np.count_nonzero(small[b:d, a:c] & blob[f:h, e:g])
        best[i] = max(best[i], common / (np.count_nonzero(small) + counts[j] - common))
    return best


def _shares_seen(
    steps: np.ndarray, masks: Sequence[np.ndarray], corners: np.ndarray, image_size: tuple[int, int]
) -> np.ndarray:
    """(N,) share of the outline of each mask, at its corner (N, 2) in (H, W), that lies on `steps` (h, w) 0/1."""
    rows, columns = (
        (np.arange(side) + 0.5) * (small / side) for side, small in zip(image_size, steps.shape, strict=True)
    )
    on = steps[rows.astype(np.intp)].take(columns.astype(np.intp), axis=1)
    height, width = steps.shape
    on[(rows < _BORDER) | (rows >= height - _BORDER)] = _BEYOND
    on[:, (columns < _BORDER) | (columns >= width - _BORDER)] = _BEYOND
    outlines = [cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)[0] for mask in masks]
    owners = np.repeat(np.arange(len(masks)), [sum(map(len, each)) for each in outlines])
    points = np.concatenate([line[:, 0] for each in outlines for line in each])
    starts = corners[:, 1] * image_size[1] + corners[:, 0]
    values = on.ravel()[points[:, 0] + image_size[1] * points[:, 1] + starts[owners]]
    counts = np.bincount(owners * (_BEYOND + 1) + values, minlength=len(masks) * (_BEYOND + 1)).reshape(len(masks), -1)
    return counts[:, 1] / np.maximum(counts[:, 0] + counts[:, 1], 1)
