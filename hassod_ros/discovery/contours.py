"""Neighbouring regions merge across weak contours: a second answer to what belongs together, next to that of features.

A thing of unlike parts, such as an animal with a striped coat, is no region of alike patches at any threshold; the
contour around it is stronger than those inside. Regions merge as in contour hierarchies (Arbelaez et al., "Contour
detection and hierarchical image segmentation", PAMI 2011), the pair with the weakest common contour first; here small
regions merge sooner, and the contours are plain colour steps.
"""

from __future__ import annotations

import cv2
import numpy as np
from numba import njit

from hassod_ros.discovery.filters import FilterConfig, Masks, cut_out, winners
from hassod_ros.visibility import changes

_SIZE = 0.25  # power of the smaller region's pixels that its contour counts with


def merge_across(
    view: np.ndarray,
    probabilities: np.ndarray,
    size: tuple[int, int],
    cut: tuple[bool, bool, bool, bool],
    filters: FilterConfig,
) -> Masks:
    """The unions that regions make while they merge across weak contours.

    Args:
        view: (H, W, 3) uint8.
        probabilities: (R, H, W) float32 of regions, the first one being all the rest.
        size: Height and width of the masks, px.
        cut: Whether the picture goes on at the left, the top, the right and the bottom; what reaches there is left out.
        filters: Least area and most corners.

    """
    labels, _ = winners(probabilities)
    # Between regions there are pixels that none has for itself.
    spread = cv2.dilate(labels.astype(np.float32), np.ones((3, 3), np.uint8)).astype(np.int32)
    labels = whole_partition(np.where(labels < 0, spread, labels))
    left, top, right, bottom = cut
    ends = np.zeros(labels.shape, bool)
    ends[0], ends[-1] = top, bottom
    ends[:, 0] |= left
    ends[:, -1] |= right
    outside = np.zeros(int(labels.max()) + 1, bool)
    outside[labels[ends]] = True
    owner = np.arange(len(outside))
    regions, crops = [], []
    for grown, joined in merge_order(labels, changes(view, max(view.shape[:2]))).tolist():
        owner[owner == joined] = grown
        outside[grown] |= outside[joined]
        if outside[grown]:
            continue
        inside = (owner == grown).astype(np.float32)[labels]
        x, y, width, height = cv2.boundingRect((inside > 0).view(np.uint8))
        found = cut_out(inside, np.array([x, y, x + width, y + height]), size, filters.min_area, filters.max_corners)
        if found is not None:
            regions.append(found[0])
            crops.append(found[1])
    return Masks(np.array(regions, np.int64).reshape(-1, 4), crops, np.ones(len(crops), np.float32))


def whole_partition(labels: np.ndarray) -> np.ndarray:
    """A partition of all pixels: what has no number of its own gets one for each 4-connected piece.

    Args:
        labels: (H, W) int32 regions, from 1 on; what is lower is the rest.

    Returns:
        (H, W) int32 regions 0, 1, ..., none empty, in the order of the old ones; then come the pieces of the rest.

    """
    rest = (labels < 1).astype(np.uint8)
    _, pieces = cv2.connectedComponents(rest, connectivity=4)
    numbers = np.where(rest, pieces + np.int32(labels.max(initial=0)), labels)
    _, dense = np.unique(numbers, return_inverse=True)
    return dense.reshape(labels.shape).astype(np.int32)


@njit(cache=True, nogil=True, error_model="numpy")
def merge_order(labels: np.ndarray, strength: np.ndarray) -> np.ndarray:
    """Merge neighbouring regions, the pair with the weakest contour first, until one is left.

    A contour weighs the mean strength along it, at each pixel pair the larger of the two, times the fourth root of the
    smaller region's pixels. Equal contours merge in the order of the regions' numbers.

    Args:
        labels: (H, W) int32 regions 0..R-1, none empty.
        strength: (H, W) float32, how much the colours change around each pixel.

    Returns:
        (R - 1, 2) int32: at each step the region that grows and the one that joins it and is gone.

    """
    height, width = labels.shape
    count = labels.max() + 1
    area = np.zeros(count, np.float64)
    length = np.zeros((count, count), np.float32)
    total = np.zeros((count, count), np.float32)
    for y in range(height):
        for x in range(width):
            a = labels[y, x]
            area[a] += 1
            for v, u in ((y, x + 1), (y + 1, x)):
                if v == height or u == width:
                    continue
                b = labels[v, u]
                if a != b:
                    step = max(strength[y, x], strength[v, u])
                    length[a, b] += 1
                    length[b, a] += 1
                    total[a, b] += step
                    total[b, a] += step
    best = np.full(count, -1, np.int32)  # of each region the neighbour behind the weakest contour
    least = np.full(count, np.inf, np.float64)
    for a in range(count):
        _look(a, length, total, area, best, least)
    merges = np.empty((count - 1, 2), np.int32)
    for step in range(count - 1):
        a = np.int32(np.argmin(least))
        b = best[a]
        a, b = min(a, b), max(a, b)
        merges[step, 0], merges[step, 1] = a, b
        area[a] += area[b]
        length[a, b], length[b, a] = 0, 0
        for c in range(count):
            if length[b, c] > 0:
                length[a, c] += length[b, c]
                total[a, c] += total[b, c]
                length[c, a], total[c, a] = length[a, c], total[a, c]
                length[b, c], length[c, b] = 0, 0
        best[b], least[b] = -1, np.inf
        _look(a, length, total, area, best, least)
        for c in range(count):
            if length[a, c] > 0:
                _look(c, length, total, area, best, least)
    return merges


@njit(cache=True, nogil=True, error_model="numpy")
def _look(a: int, length: np.ndarray, total: np.ndarray, area: np.ndarray, best: np.ndarray, least: np.ndarray) -> None:
    """Find the weakest contour of one region."""
    best[a], least[a] = -1, np.inf
    for c in range(len(area)):
        if length[a, c] > 0:
            weight = total[a, c] / length[a, c] * min(area[a], area[c]) ** _SIZE
            if weight < least[a]:
                best[a], least[a] = c, weight
