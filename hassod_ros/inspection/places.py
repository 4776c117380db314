"""Where components lie: in good parts never quite at one place, and in bad ones sometimes elsewhere."""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np

from hassod_ros.inspection.inventory import Component, Detector

FOUND = 0.6  # correlation with which a component is found again
_BY_MUCH = 0.1  # of a component's size; one that lies off by less has not moved
_AROUND = 0.5  # of its size, that it is sought around in good pictures
_SHARE = 3.0  # of the margin: few good pictures rarely show how far components lie off
_SIZES = (0.6, 1.6)  # of a component, that a thing may have which is taken for it
_ALIKE = 0.8  # of the overlap that is usual, of such a thing
_WORK = 32.0  # pixels, the size that components are sought at


def find_moved(
    picture: np.ndarray, ideal: np.ndarray, component: Component, windows: Sequence[tuple[int, int, int, int]]
) -> tuple[float, float, float] | None:
    """Where a component now lies, sought by its look: its offset x, y in pixels and the correlation there.

    Args:
        picture: (H, W, 3) uint8 RGB, laid over the reference.
        ideal: (H, W, 3) uint8 RGB of the reference.
        component: What is sought.
        windows: Boxes x0 y0 x1 y1 that its middle may lie in.

    """
    height, width = picture.shape[:2]
    x0, y0, x1, y1 = component.box
    half_x, half_y = (x1 - x0) // 2 + 1, (y1 - y0) // 2 + 1
    scale = min(1.0, _WORK / math.sqrt(component.area))
    template, mask = _shrunk(ideal[y0:y1, x0:x1], scale), _shrunk(component.mask.view(np.uint8), scale)
    if min(template.shape[:2]) < 4 or template.std() < 2 or not mask.any():
        return None
    best: tuple[float, float, float] | None = None
    for left, top, right, bottom in windows:
        left, top = max(0, left - half_x), max(0, top - half_y)
        right, bottom = min(width, right + half_x), min(height, bottom + half_y)
        if min(right - left, bottom - top) <= 0:
            continue
        search = _shrunk(picture[top:bottom, left:right], scale)
        if search.shape[0] < template.shape[0] or search.shape[1] < template.shape[1]:
            continue
        likeness = cv2.matchTemplate(search, template, cv2.TM_CCOEFF_NORMED, mask=mask)
        likeness[~(np.abs(likeness) <= 1)] = -1  # where it is all of one colour
        _, value, _, place = cv2.minMaxLoc(likeness)
        if best is None or value > best[2]:
            best = (left + place[0] / scale - x0, top + place[1] / scale - y0, float(value))
    return best


def find_thing(detector: Detector, component: Component, mask: np.ndarray, reach: float) -> tuple[float, float] | None:
    """Offset x, y in pixels of the thing, at most `reach` away, that the detector sees in a component's shape.

    Args:
        detector: What it sees.
        component: What is sought.
        mask: (H, W) bool of the component.
        reach: Pixels.

    """
    x0, y0, x1, y1 = component.box
    best, least = None, _ALIKE * component.overlap
    for thing in detector.things:
        rows, columns = thing.window
        offset = (columns.start + columns.stop - x0 - x1) / 2, (rows.start + rows.stop - y0 - y1) / 2
        likely = _SIZES[0] < thing.area / component.area < _SIZES[1]
        if likely and math.hypot(*offset) <= reach:
            overlap = thing.overlap(shift_mask(mask, offset), component.area)
            if overlap > least:
                best, least = offset, overlap
    return best


def around(component: Component, reach: float) -> tuple[int, int, int, int]:
    """The window that the middle of a component may lie in if it lies off by up to `reach` pixels each way."""
    x0, y0, x1, y1 = component.box
    x, y, far = (x0 + x1) // 2, (y0 + y1) // 2, math.ceil(reach)
    return x - far, y - far, x + far, y + far


def learn_wander(pictures: Sequence[np.ndarray], ideal: np.ndarray, components: Sequence[Component]) -> np.ndarray:
    """(N,) float32 pixels by which the components of good pictures, laid over the reference, lie off at most.

    A print that is put on by hand, or a limb that bends, lies elsewhere in each good part. Few pictures rarely show how
    far; none is taken to lie firmer than is usual for the others.
    """
    far = np.zeros((len(components), len(pictures)), np.float32)
    for i, component in enumerate(components):
        window = around(component, max(8.0, _AROUND * math.sqrt(component.area)))
        for k, picture in enumerate(pictures):
            found = find_moved(picture, ideal, component, [window])
            if found is not None and found[2] >= FOUND:
                far[i, k] = math.hypot(*found[:2])
    worst = far.max(axis=1, initial=0)
    return np.maximum(worst, np.median(worst)) if len(worst) else worst


def allowed(component: Component, wander: float, margin: float, position: float) -> float:
    """Pixels that a component may lie off."""
    return max(position, _BY_MUCH * math.sqrt(component.area), (1 + (margin - 1) * _SHARE) * wander)


def shift_mask(mask: np.ndarray, offset: tuple[float, float]) -> np.ndarray:
    """(H, W) bool mask, moved by x, y pixels."""
    matrix = np.array([[1, 0, offset[0]], [0, 1, offset[1]]], np.float64)
    return np.asarray(cv2.warpAffine(mask.view(np.uint8), matrix, mask.shape[::-1], flags=cv2.INTER_NEAREST) > 0)


def shift_cells(cells: np.ndarray, x: float, y: float) -> np.ndarray:
    """(C, h, w) float32, moved by x, y cells, whole or not; its edge goes on beyond the border."""
    for axis, far in ((2, x), (1, y)):
        whole = math.floor(far)
        at = np.arange(cells.shape[axis]) - whole
        last = cells.shape[axis] - 1
        near, next_ = (np.take(cells, np.clip(each, 0, last), axis=axis) for each in (at, at - 1))
        cells = near + np.float32(far - whole) * (next_ - near)
    return cells


def _shrunk(picture: np.ndarray, scale: float) -> np.ndarray:
    return picture if scale == 1 else cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
