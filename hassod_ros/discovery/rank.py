"""Which of many candidates are the likeliest things: what is found again, and what ends where colours change.

Regions of several views, thresholds and kinds of merging resemble each other, and most are nobody's thing. Nothing here
is learned: three cues that hold for any picture are multiplied. All of it is ours.
"""

from __future__ import annotations

import cv2
import numpy as np
from numba import njit

from hassod_ros.discovery.filters import Masks
from hassod_ros.masks import mask_areas
from hassod_ros.visibility import changes

_SAME = 0.7  # IoU from which two masks show the same thing
_AGAIN = 0.5  # what a mask's score is multiplied by if a better one shows the same thing
_SIZE = 0.1  # power of the share of the image
_SIDE = 640  # pixels of the longer side at which colour steps are taken; more than twice as many are thinned out


def ranked(image: np.ndarray, masks: Masks, views: np.ndarray, duplicate_iou: float | None) -> Masks:
    """The masks, likeliest first, with other scores, and without those that a better one resembles.

    The score is the product of v / (1 + v), v being the number of views that show the same thing (an IoU of 0.7, its
    own view included); of c / (c + i), the mean colour step along its outline beside that inside it; and of the tenth
    power root of its share of the image. It is halved where a better mask shows the same thing: a mask of another thing
    comes first. An order, not a probability.

    Args:
        image: (H, W, 3) uint8 RGB.
        masks: N masks of this image.
        views: (N,) integers from 0, the view that each was found in.
        duplicate_iou: IoU with a better mask from which one is left out; None: none is.

    """
    if not len(masks.crops):
        return masks
    stride = max(1, max(image.shape[:2]) // _SIDE)
    regions, crops = _thinned(masks, stride)
    areas = mask_areas(crops).astype(np.int64)
    flat = np.concatenate([crop.ravel() for crop in crops])
    starts = np.concatenate([[0], np.cumsum([crop.size for crop in crops])])
    first, second, overlap = _alike(regions, flat, starts, areas, np.argsort(areas, kind="stable"), _SAME)
    seen = np.zeros((len(areas), int(views.max()) + 1), bool)
    seen[np.arange(len(areas)), views] = True
    seen[first, views[second]] = seen[second, views[first]] = True
    found = np.count_nonzero(seen, axis=1)
    height, width = (-(-side // stride) for side in image.shape[:2])
    steps = cv2.resize(changes(image, _SIDE), (width, height), interpolation=cv2.INTER_LINEAR)
    near = cv2.dilate(steps, np.ones((3, 3), np.uint8))
    score = found / (1 + found) * _outlined(regions, flat, starts, steps, near) * (areas / (height * width)) ** _SIZE
    order = np.argsort(-score, kind="stable")
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    better, worse = np.minimum(place[first], place[second]), np.maximum(place[first], place[second])
    by_rank = np.lexsort((better, worse))
    limit = 2.0 if duplicate_iou is None else duplicate_iou
    stays, again = _sift(better[by_rank], worse[by_rank], overlap[by_rank], len(order), limit)
    score = score[order] * np.where(again, _AGAIN, 1.0)
    kept = np.flatnonzero(stays)
    kept = kept[np.argsort(-score[kept], kind="stable")]
    chosen = masks.select(order[kept])
    return Masks(chosen.regions, chosen.crops, score[kept].astype(np.float32))


def _thinned(masks: Masks, stride: int) -> tuple[np.ndarray, list[np.ndarray]]:
    """Regions and masks of every so manieth pixel of the image, each with a pixel at least: photographs are large."""
    if stride == 1:
        return np.ascontiguousarray(masks.regions), masks.crops
    regions, crops = [], []
    for (x0, y0, x1, y1), crop in zip(masks.regions.tolist(), masks.crops, strict=True):
        few = crop[-y0 % stride :: stride, -x0 % stride :: stride]
        if few.any():
            left, top = -(-x0 // stride), -(-y0 // stride)
        else:
            few, left, top = np.ones((1, 1), np.uint8), (x0 + x1) // 2 // stride, (y0 + y1) // 2 // stride
        regions.append((left, top, left + few.shape[1], top + few.shape[0]))
        crops.append(few)
    return np.array(regions, np.int64), crops


@njit(cache=True, nogil=True, error_model="numpy")
def _alike(
    regions: np.ndarray, flat: np.ndarray, starts: np.ndarray, areas: np.ndarray, by_area: np.ndarray, iou: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All pairs of masks with at least this IoU, above 0, and their IoU."""
    capacity, count = 1024, 0
    first, second = np.empty(capacity, np.int64), np.empty(capacity, np.int64)
    overlap = np.empty(capacity, np.float64)
    for k in range(len(by_area)):
        i = by_area[k]
        for m in range(k + 1, len(by_area)):
            j = by_area[m]
            if areas[i] < iou * areas[j]:
                break
            x0, y0 = max(regions[i, 0], regions[j, 0]), max(regions[i, 1], regions[j, 1])
            x1, y1 = min(regions[i, 2], regions[j, 2]), min(regions[i, 3], regions[j, 3])
            if x0 >= x1 or y0 >= y1:
                continue
            least = iou / (1 + iou) * (areas[i] + areas[j])  # common pixels that it takes
            if (x1 - x0) * (y1 - y0) < least:
                continue
            wide, other = regions[i, 2] - regions[i, 0], regions[j, 2] - regions[j, 0]
            common = 0
            for y in range(y0, y1):
                a = starts[i] + (y - regions[i, 1]) * wide - regions[i, 0]
                b = starts[j] + (y - regions[j, 1]) * other - regions[j, 0]
                for x in range(x0, x1):
                    common += flat[a + x] & flat[b + x]
            if common < least:
                continue
            if count == capacity:
                capacity *= 2
                first = np.concatenate((first, np.empty_like(first)))
                second = np.concatenate((second, np.empty_like(second)))
                overlap = np.concatenate((overlap, np.empty_like(overlap)))
            first[count], second[count] = i, j
            overlap[count] = common / (areas[i] + areas[j] - common)
            count += 1
    return first[:count], second[:count], overlap[:count]


@njit(cache=True, nogil=True, error_model="numpy")
def _sift(
    better: np.ndarray, worse: np.ndarray, overlap: np.ndarray, count: int, duplicate: float
) -> tuple[np.ndarray, np.ndarray]:
    """Which ranks stay, and which of them show what a better one that stays for itself shows.

    Pairs are ordered by the worse, then by the better rank.
    """
    stays = np.ones(count, np.bool_)
    again = np.zeros(count, np.bool_)
    for k in range(len(better)):
        i, j = better[k], worse[k]
        if not stays[i] or not stays[j]:
            continue
        if overlap[k] >= duplicate:
            stays[j] = False
        elif not again[i]:
            again[j] = True
    return stays, again


@njit(cache=True, nogil=True, error_model="numpy")
def _outlined(
    regions: np.ndarray, flat: np.ndarray, starts: np.ndarray, steps: np.ndarray, near: np.ndarray
) -> np.ndarray:
    """(N,) c / (c + i): colour steps `near` the outline, less the image's border, beside the `steps` inside."""
    height, width = steps.shape
    found = np.zeros(len(regions), np.float64)
    for n in range(len(regions)):
        x0, y0, x1, y1 = regions[n]
        wide = x1 - x0
        along, length, inside, area = 0.0, 0, 0.0, 0
        for y in range(y0, y1):
            row = starts[n] + (y - y0) * wide
            for x in range(x0, x1):
                at = row + x - x0
                if not flat[at]:
                    continue
                inside += steps[y, x]
                area += 1
                if y == 0 or x == 0 or y == height - 1 or x == width - 1:
                    continue
                inner = x > x0 and x < x1 - 1 and y > y0 and y < y1 - 1
                if inner and flat[at - 1] and flat[at + 1] and flat[at - wide] and flat[at + wide]:
                    continue
                along += near[y, x]
                length += 1
        if length and along > 0:
            outline = along / length
            found[n] = outline / (outline + inside / area)
    return found
