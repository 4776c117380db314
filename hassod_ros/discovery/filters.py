"""From a partition and its refined probabilities to masks: the filters of HASSOD's first stage, in its order."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numba import njit

from hassod_ros.errors import InputError
from hassod_ros.masks import fill_holes, without_duplicates


@dataclass(frozen=True)
class FilterConfig:
    """Which masks stay; the defaults are the paper's.

    Raises:
        InputError: A value is out of its range.

    """

    min_overlap: float = 0.5  # IoU of a mask before and after the CRF, at the CRF's resolution
    min_area: int = 100  # pixels of the original image, before holes are filled
    min_share: float = 0.0  # share of the image's pixels that a mask must have as well: for footage of 4K
    max_corners: int = 2  # corners of the image that a mask may cover: with more it is background
    duplicate_iou: float | None = None  # drop a mask that overlaps an earlier one this much; None keeps all

    def __post_init__(self) -> None:
        if not 0 <= self.min_overlap <= 1:
            raise InputError(f"min_overlap is an IoU between 0 and 1, got {self.min_overlap}")
        if self.min_area < 1:
            raise InputError(f"min_area must be at least 1 pixel, got {self.min_area}")
        if not 0 <= self.min_share < 1:
            raise InputError(f"min_share is a share of the image, from 0 to below 1, got {self.min_share}")
        if not 0 <= self.max_corners <= 4:
            raise InputError(f"max_corners is a number from 0 to 4, got {self.max_corners}")
        if self.duplicate_iou is not None and not 0 < self.duplicate_iou <= 1:
            raise InputError(f"duplicate_iou must be above 0 and at most 1, or none, got {self.duplicate_iou}")


@dataclass(frozen=True, eq=False)
class Masks:
    """N masks of one image.

    Attributes:
        regions: (N, 4) int64, x0 y0 x1 y1 of the masks' smallest pixel rectangles.
        crops: N uint8 0/1 arrays of those shapes.
        scores: (N,) float32 in [0, 1].

    """

    regions: np.ndarray
    crops: list[np.ndarray]
    scores: np.ndarray

    def select(self, index: np.ndarray) -> Masks:
        """The masks of an index array."""
        return Masks(self.regions[index], [self.crops[i] for i in index.tolist()], self.scores[index])

    @classmethod
    def concatenate(cls, parts: list[Masks]) -> Masks:
        """All masks of several thresholds, in that order."""
        return cls(
            regions=np.concatenate([part.regions for part in parts]),
            crops=[crop for part in parts for crop in part.crops],
            scores=np.concatenate([part.scores for part in parts]),
        )


def select_masks(
    label_map: np.ndarray,
    probabilities: np.ndarray,
    image_size: tuple[int, int],
    config: FilterConfig,
    *,
    first: int = 0,
) -> Masks:
    """Filter the regions of one partition, in the order of HASSOD's code.

    1. The mask before the CRF is the region's bilinear interpolation >= 0.5, the one after it `probabilities` >= 0.5,
       both at (H, W); a region stays if their IoU reaches `min_overlap`.
    2. Its probability, resized bilinearly to the image, >= 0.5 is the mask.
    3. A mask of less than `min_area` (or `min_share`) goes, then one that covers more than `max_corners` corners.
    4. Holes are filled.

    Args:
        label_map: (h, w) int32 regions 0..R-1.
        probabilities: (R, H, W) float32 of any memory layout; they add up to 1 at each pixel.
        image_size: Height and width of the original image.
        config: Limits.
        first: Regions from this one on are candidates; those before it are the rest of the picture.

    Returns:
        Masks in the order of the regions. The score is the mean probability over a mask's pixels at (H, W).

    """
    size = probabilities.shape[1:]
    before = interpolate_regions(label_map, size)
    after, confidence = winners(probabilities)
    area_before, area_after, common, total, extents = _measure(before, after, confidence, len(probabilities))
    union = area_before + area_after - common
    # Written as a product: what has vanished is not kept.
    kept = np.flatnonzero((area_after > 0) & (common >= config.min_overlap * union))
    kept = kept[kept >= first]

    least = max(config.min_area, config.min_share * image_size[0] * image_size[1])
    regions, crops, scores = [], [], []
    for r in kept:
        found = cut_out(probabilities[r], extents[r], image_size, least, config.max_corners)
        if found is not None:
            regions.append(found[0])
            crops.append(found[1])
            scores.append(total[r] / area_after[r])
    return Masks(np.array(regions, np.int64).reshape(-1, 4), crops, np.clip(np.array(scores, np.float32), 0, 1))


def cut_out(
    probability: np.ndarray, extent: np.ndarray, image_size: tuple[int, int], least: float, max_corners: int
) -> tuple[tuple[int, int, int, int], np.ndarray] | None:
    """Steps 2 to 4 of `select_masks` for one region.

    Args:
        probability: (H, W) float32.
        extent: x0 y0 x1 y1 of where it is >= 0.5.
        image_size: Height and width of the original image.
        least: Pixels that the mask must have.
        max_corners: Corners of the image that it may cover.

    Returns:
        x0 y0 x1 y1 of the mask's smallest rectangle and the mask, or None where it has to go.

    """
    x0, y0, x1, y1 = _target_window(extent, probability.shape, image_size)
    crop = _resize_window(probability, y0, y1, x0, x1, *image_size)
    x, y, width, height = cv2.boundingRect(crop)
    if cv2.countNonZero(crop) < least:
        return None
    crop = np.ascontiguousarray(crop[y : y + height, x : x + width])
    region = (x0 + x, y0 + y, x0 + x + width, y0 + y + height)
    if _corners(crop, region, image_size) > max_corners:
        return None
    return region, fill_holes(crop)


def drop_duplicates(masks: Masks, iou: float) -> Masks:
    """Drop each mask whose IoU with an earlier one that stays is at least `iou`."""
    kept = without_duplicates(masks.regions, masks.crops, iou)
    return Masks(masks.regions[kept], [masks.crops[i] for i in kept], masks.scores[kept])


def _corners(crop: np.ndarray, region: tuple[int, int, int, int], image_size: tuple[int, int]) -> int:
    """How many corners of the image the mask covers."""
    x0, y0, x1, y1 = region
    rows = [0] * (y0 == 0) + [-1] * (y1 == image_size[0])
    columns = [0] * (x0 == 0) + [-1] * (x1 == image_size[1])
    # An image one pixel high or wide has each corner twice, as in the published code.
    return sum(int(crop[row, column]) for row in rows for column in columns)


def _target_window(extent: np.ndarray, size: tuple[int, ...], image_size: tuple[int, int]) -> tuple[int, int, int, int]:
    """The pixels of the image that a bilinear resize of values inside `extent` can reach; one more for rounding."""
    x0, y0, x1, y1 = extent.tolist()
    scale_y, scale_x = image_size[0] / size[0], image_size[1] / size[1]
    return (
        max(0, int((x0 - 0.5) * scale_x - 0.5) - 1),
        max(0, int((y0 - 0.5) * scale_y - 0.5) - 1),
        min(image_size[1], int((x1 + 0.5) * scale_x) + 2),
        min(image_size[0], int((y1 + 0.5) * scale_y) + 2),
    )


@njit(cache=True, nogil=True, error_model="numpy")
def _taps(start: int, stop: int, source: int, target: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Lower and upper source index and the upper one's weight for target pixels start..stop (half-pixel centres)."""
    lower = np.empty(stop - start, np.int64)
    upper = np.empty(stop - start, np.int64)
    weight = np.empty(stop - start, np.float32)
    scale = np.float32(source) / np.float32(target)
    for i in range(stop - start):
        at = max(scale * (np.float32(start + i) + np.float32(0.5)) - np.float32(0.5), np.float32(0))
        lower[i] = min(int(at), source - 1)
        upper[i] = min(lower[i] + 1, source - 1)
        weight[i] = at - np.float32(lower[i])
    return lower, upper, weight


@njit(cache=True, nogil=True, error_model="numpy")
def _resize_window(probability: np.ndarray, y0: int, y1: int, x0: int, x1: int, height: int, width: int) -> np.ndarray:
    """The window of (probability resized bilinearly to height x width) >= 0.5, as uint8."""
    top, bottom, down = _taps(y0, y1, probability.shape[0], height)
    left, right, across = _taps(x0, x1, probability.shape[1], width)
    out = np.empty((y1 - y0, x1 - x0), np.uint8)
    first, last = left[0], right[-1] + 1
    row = np.empty(last - first, np.float32)
    for y in range(y1 - y0):
        for x in range(first, last):
            a, b = probability[top[y], x], probability[bottom[y], x]
            row[x - first] = a + down[y] * (b - a)
        for x in range(x1 - x0):
            a, b = row[left[x] - first], row[right[x] - first]
            out[y, x] = a + across[x] * (b - a) >= np.float32(0.5)
    return out


@njit(cache=True, nogil=True, error_model="numpy")
def interpolate_regions(label_map: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Where a region's one-hot map, resized bilinearly to (H, W), reaches 0.5: (H, W) int32, -1 = no region does."""
    h, w = label_map.shape
    height, width = size
    top, bottom, down = _taps(0, height, h, height)
    left, right, across = _taps(0, width, w, width)
    out = np.empty((height, width), np.int32)
    for y in range(height):
        for x in range(width):
            a, b = label_map[top[y], left[x]], label_map[top[y], right[x]]
            c, d = label_map[bottom[y], left[x]], label_map[bottom[y], right[x]]
            if a == b == c == d:
                out[y, x] = a
                continue
            u, v = np.float64(across[x]), np.float64(down[y])
            out[y, x] = -1
            for region in (a, b, c, d):
                upper = (a == region) * (1 - u) + (b == region) * u
                lower = (c == region) * (1 - u) + (d == region) * u
                if upper * (1 - v) + lower * v >= 0.5:
                    out[y, x] = region
                    break
    return out


@njit(cache=True, nogil=True, error_model="numpy")
def winners(probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(H, W) int32 label of the region whose probability is >= 0.5, -1 = none, and (H, W) float32 its probability."""
    count, height, width = probabilities.shape
    labels = np.full((height, width), -1, np.int32)
    value = np.zeros((height, width), np.float32)
    for r in range(count):
        for y in range(height):
            for x in range(width):
                if probabilities[r, y, x] >= np.float32(0.5):
                    labels[y, x] = r
                    value[y, x] = probabilities[r, y, x]
    return labels, value


@njit(cache=True, nogil=True, error_model="numpy")
def _measure(
    before: np.ndarray, after: np.ndarray, confidence: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Of each region: pixels before, after, in both, summed confidence after, and extent after, x0 y0 x1 y1 (R, 4)."""
    height, width = after.shape
    area_before = np.zeros(count, np.int64)
    area_after = np.zeros(count, np.int64)
    common = np.zeros(count, np.int64)
    total = np.zeros(count, np.float64)
    extents = np.empty((count, 4), np.int64)
    extents[:, 0], extents[:, 1], extents[:, 2], extents[:, 3] = width, height, 0, 0
    for y in range(height):
        for x in range(width):
            if before[y, x] >= 0:
                area_before[before[y, x]] += 1
            r = after[y, x]
            if r < 0:
                continue
            area_after[r] += 1
            common[r] += r == before[y, x]
            total[r] += confidence[y, x]
            extents[r, 0] = min(extents[r, 0], x)
            extents[r, 1] = min(extents[r, 1], y)
            extents[r, 2] = max(extents[r, 2], x + 1)
            extents[r, 3] = max(extents[r, 3], y + 1)
    return area_before, area_after, common, total, extents
