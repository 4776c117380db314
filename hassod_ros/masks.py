"""Geometry of cropped masks: pasting, overlaps, duplicates, holes, run lengths. NumPy and OpenCV only.

A mask is a uint8 array of 0 and 1 that covers the pixels of its region, x0 y0 x1 y1 (see `Instances`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

_MIN_SIDE = 1e-3  # pixels; a box clipped away at the border has no mask
_DIGIT_BITS, _DIGITS = 5, 7  # of COCO's numbers: seven digits hold any run of an image below 2 ** 34 pixels


def has_area(boxes: np.ndarray) -> np.ndarray:
    """Which boxes (n, 4) were not clipped away at the border: (n,) bool."""
    return (boxes[:, 2:] - boxes[:, :2]).min(axis=1, initial=np.inf) > _MIN_SIDE


def pixel_regions(boxes: np.ndarray) -> np.ndarray:
    """(n, 4) int64 x0 y0 x1 y1: the whole pixels that boxes (n, 4) touch."""
    return np.concatenate([np.floor(boxes[:, :2]), np.ceil(boxes[:, 2:])], axis=1).astype(np.int64)


def paste_filled(maps: np.ndarray, boxes: np.ndarray, threshold: float) -> tuple[np.ndarray, list[np.ndarray]]:
    """`paste_masks`, less the empty ones: their rows (n,), and n masks."""
    masks, areas = _paste(maps, boxes, threshold)
    filled = np.flatnonzero(areas)
    return filled, [masks[row] for row in filled.tolist()]


def paste_masks(probabilities: np.ndarray, boxes: np.ndarray, threshold: float) -> list[np.ndarray]:
    """Masks at image size, cropped to their boxes' whole pixels.

    Bilinear interpolation at the centres of the pixels, zero beyond the map, as in Detectron2: exact to a fraction of a
    pixel, which decides on small instances. Along a row of pixels the interpolated values are straight from cell to
    cell; where they cross the threshold is solved for, of all rows of all masks at once, and what lies between is
    filled: no value is computed for most pixels.

    Args:
        probabilities: (n, M, M) float32.
        boxes: (n, 4) float32 xyxy in image pixels, each with an area.
        threshold: Pixels above it are 1; more than 0.

    Returns:
        n uint8 0/1 arrays of the shapes that `Instances.regions` asks for; some may be empty of ones. They share their
        memory.

    """
    return _paste(probabilities, boxes, threshold)[0]


def _paste(probabilities: np.ndarray, boxes: np.ndarray, threshold: float) -> tuple[list[np.ndarray], np.ndarray]:
    """`paste_masks`, and how many pixels each mask has (n,)."""
    count, side = probabilities.shape[:2]
    low, high = np.floor(boxes[:, :2]).astype(np.int64), np.ceil(boxes[:, 2:]).astype(np.int64)
    widths, heights = (high - low).T
    owner, lines = _lines(probabilities, boxes[:, 1], boxes[:, 3], low[:, 1], heights)
    above = (lines > threshold).ravel()
    # In each line one in and one out, again and again; each begins and ends with a zero.
    crossings = np.flatnonzero(above[1:] != above[:-1])
    line = crossings // (side + 2)  # half the time of np.divmod
    cell = crossings - line * (side + 2)
    owner = owner[line]
    before, after = (lines.ravel().take(crossings + step).astype(np.float64) for step in (0, 1))
    place = cell - 0.5 + (threshold - before) / (after - before)  # in cells
    start, end = boxes[:, 0].astype(np.float64), boxes[:, 2].astype(np.float64)
    pixel = place * ((end - start) / side)[owner] + (start - 0.5 - low[:, 0])[owner]
    # The first pixel beyond; one exactly at the threshold is outside.
    columns = np.empty(len(pixel), np.int64)
    columns[::2] = np.floor(pixel[::2]) + 1
    columns[1::2] = np.maximum(np.ceil(pixel[1::2]), columns[::2])
    np.clip(columns, 0, widths[owner], out=columns)
    areas = np.bincount(owner[::2], columns[1::2] - columns[::2], count)
    row_ends = np.cumsum(np.repeat(widths, heights))
    places = row_ends[line] - widths[owner] + columns
    total = int(row_ends[-1]) if count else 0
    lengths = np.diff(places, prepend=0, append=total)
    pixels = np.repeat((np.arange(len(lengths)) & 1).astype(np.uint8), lengths)
    sizes = widths * heights
    ends = np.cumsum(sizes)
    spans = zip(ends.tolist(), sizes.tolist(), heights.tolist(), widths.tolist(), strict=True)
    return [pixels[end - size : end].reshape(height, width) for end, size, height, width in spans], areas


def place_maps(
    maps: np.ndarray, size: tuple[int, int], inner: tuple[int, int], stride: int, threshold: float
) -> tuple[np.ndarray, list[np.ndarray], np.ndarray]:
    """Masks at the image's own size, by bilinear interpolation; each is interpolated around its own cells only.

    Args:
        maps: (N, h, w) float32 probabilities.
        size: (H, W) of the image.
        inner: (height, width) of the image in the network's input.
        stride: Pixels of the network's input along a cell.
        threshold: Pixels of a higher probability are 1.

    Returns:
        (n, 4) int64 regions, n masks of these shapes, and (n,) rows of `maps`, without those that have no pixel.

    """
    scale = np.array([inner[1] / size[1], inner[0] / size[0]]) / stride  # cells a pixel, x and y
    regions, masks, rows = [], [], []
    for row, values in enumerate(maps):
        x, y, width, height = cv2.boundingRect((values > threshold).view(np.uint8))
        if not width:
            continue
        low = np.maximum(np.floor((np.array([x, y]) - 1) / scale), 0).astype(int)
        high = np.minimum(np.ceil((np.array([x + width, y + height]) + 1) / scale), size[::-1]).astype(int)
        if (low >= high).any():  # in the padding
            continue
        # Pixel centres: cell = (pixel + 0.5) * scale - 0.5.
        offset = (low + 0.5) * scale - 0.5
        matrix = np.array([[scale[0], 0, offset[0]], [0, scale[1], offset[1]]])
        window = cv2.warpAffine(
            values,
            matrix,
            (high - low).tolist(),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )
        mask = (window > threshold).view(np.uint8)
        left, top, wide, tall = cv2.boundingRect(mask)
        if wide:
            regions.append((low[0] + left, low[1] + top, low[0] + left + wide, low[1] + top + tall))
            masks.append(np.ascontiguousarray(mask[top : top + tall, left : left + wide]))
            rows.append(row)
    return np.array(regions, np.int64).reshape(-1, 4), masks, np.array(rows, np.int64)


def common_pixels(first: np.ndarray, mask: np.ndarray, second: np.ndarray, other: np.ndarray) -> int:
    """How many pixels two masks share.

    Args:
        first: (4,) region of `mask`.
        mask: uint8 of 0 and 1.
        second: (4,) region of `other`.
        other: Likewise.

    """
    x0, y0 = max(first[0], second[0]), max(first[1], second[1])
    x1, y1 = min(first[2], second[2]), min(first[3], second[3])
    if x0 >= x1 or y0 >= y1:
        return 0
    left, top = first[:2]
    u, v = second[:2]
    # OpenCV takes half of NumPy's time for either step.
    return cv2.countNonZero(
        cv2.bitwise_and(mask[y0 - top : y1 - top, x0 - left : x1 - left], other[y0 - v : y1 - v, x0 - u : x1 - u])
    )


def paint(target: np.ndarray, region: Sequence[int] | np.ndarray, mask: np.ndarray, value: int) -> None:
    """Set the pixels of a mask (h, w) uint8 0/1 in its region x0 y0 x1 y1 of `target` (H, W), uint8 or uint16."""
    x0, y0, x1, y1 = region
    part = target[y0:y1, x0:x1]
    cv2.copyTo(np.full_like(part, value), mask, part)  # several times faster than np.copyto with a mask


def largest_values(masks: Sequence[np.ndarray]) -> list[int]:
    """Of N uint8 arrays (h, w), each."""
    return [int(cv2.norm(mask, cv2.NORM_INF)) for mask in masks]  # a third of the time of NumPy's max


def mask_areas(masks: Sequence[np.ndarray]) -> np.ndarray:
    """(N,) int64, how many pixels each uint8 0/1 mask has."""
    return np.array([cv2.countNonZero(mask) for mask in masks], np.int64)


def without_duplicates(regions: np.ndarray, masks: Sequence[np.ndarray], iou: float) -> list[int]:
    """Indices of the masks whose IoU with every earlier one that stays is below `iou`.

    Masks are compared with those of a like area only, where their rectangles allow so much overlap.
    """
    areas = mask_areas(masks)
    spans = np.asarray(regions, np.int64).reshape(-1, 4)
    order = np.argsort(areas, kind="stable")
    ascending = areas[order]
    ends = np.searchsorted(ascending, ascending / iou + 1, side="right")
    near: list[list[int]] = [[] for _ in masks]  # earlier masks that may be alike
    for at, (i, end) in enumerate(zip(order.tolist(), ends.tolist(), strict=True)):
        others = order[at + 1 : end]
        sides = np.minimum(spans[i, 2:], spans[others, 2:]) - np.maximum(spans[i, :2], spans[others, :2])
        most = np.minimum(np.prod(np.maximum(sides, 0), axis=1), areas[i])
        for j in others[most >= iou * areas[others]].tolist():  # the common rectangle bounds the intersection
            near[max(i, j)].append(min(i, j))
    boxes: list[Any] = spans.tolist()
    stays = np.ones(len(masks), bool)
    for i, earlier in enumerate(near):
        for j in earlier:
            if not stays[j]:
                continue
            common = common_pixels(boxes[i], masks[i], boxes[j], masks[j])
            if common >= iou * (areas[i] + areas[j] - common):
                stays[i] = False
                break
    return np.flatnonzero(stays).tolist()


def fill_holes(mask: np.ndarray) -> np.ndarray:
    """Set every 0 that no 4-connected path of zeros joins to the outside; (h, w) uint8 0/1 in and out."""
    flooded = cv2.copyMakeBorder(mask, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    cv2.floodFill(flooded, None, (0, 0), 2)
    return np.ascontiguousarray(flooded[1:-1, 1:-1] != 2).view(np.uint8)


def run_lengths(regions: np.ndarray, masks: Sequence[np.ndarray], image_size: tuple[int, int]) -> list[bytes]:
    """COCO's compressed run lengths of masks in an image of (H, W), without a full frame for each.

    The `counts` that `pycocotools.mask.encode` gives for the pasted masks.

    Args:
        regions: (N, 4) int64.
        masks: N uint8 0/1 arrays of those shapes.
        image_size: (H, W) in pixels.

    """
    height, width = image_size
    runs = [
        _runs(region, mask, height, width) for region, mask in zip(np.asarray(regions).tolist(), masks, strict=True)
    ]
    return _compressed(runs)


def _runs(region: Sequence[int], mask: np.ndarray, height: int, width: int) -> np.ndarray:
    """Lengths of the runs of 0, 1, 0, ... down the columns of the whole frame."""
    x0, y0 = region[:2]
    rows, columns = mask.shape
    # A row of zeros above each column and one below the last: no run crosses columns of the crop.
    padded = np.zeros(columns * (rows + 1) + 1, np.uint8)
    padded[:-1].reshape(columns, rows + 1)[:, 1:] = mask.T
    changes = np.flatnonzero(padded[1:] != padded[:-1])
    column, row = np.divmod(changes, rows + 1)
    places = (column + x0) * height + row + y0
    if rows == height and len(changes):  # a run may go on at the top of the next column
        starts, stops = places[::2], places[1::2]
        apart = np.flatnonzero(starts[1:] != stops[:-1])
        places = np.stack([starts[np.append(0, apart + 1)], stops[np.append(apart, -1)]], axis=1).ravel()
    ends = np.concatenate([[0], places, [height * width]]) if len(places) else np.array([0, height * width])
    lengths = np.diff(ends)
    return lengths[:-1] if lengths[-1] == 0 else lengths


def _compressed(runs: Sequence[np.ndarray]) -> list[bytes]:
    """COCO's text of each mask's runs: base-32 digits, lowest first, from the fourth run on of the difference to the
    run two before; bit 5 of a character says that more follow, bit 4 of the last one is the sign.
    """
    if not runs:
        return []
    counts = np.array([len(each) for each in runs])
    first = np.repeat(np.cumsum(counts) - counts, counts)
    values = np.concatenate(runs)
    number = np.arange(len(values)) - first  # of the run in its mask
    before = np.where(number > 2, np.roll(values, 2), 0)
    shifted = (values - before)[:, None] >> (np.arange(_DIGITS) * _DIGIT_BITS)  # (R, digits), sign kept
    digits = shifted & 0x1F
    rest = shifted >> _DIGIT_BITS
    more = np.where(digits & 0x10, rest != -1, rest != 0)
    used = np.concatenate([np.ones((len(values), 1), bool), np.logical_and.accumulate(more[:, :-1], axis=1)], axis=1)
    text = (digits + np.where(more, 0x20, 0) + ord("0")).astype(np.uint8)[used].tobytes()
    ends = np.cumsum(np.add.reduceat(used.sum(axis=1), np.cumsum(counts) - counts)).tolist()
    return [text[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True)]


def _lines(
    maps: np.ndarray, low: np.ndarray, high: np.ndarray, first: np.ndarray, heights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Maps (n, M, M) interpolated down their columns, at the centres of all rows of pixels one after the other.

    Args:
        maps: Probabilities.
        low: (n,) where each box begins.
        high: (n,) where each box ends.
        first: (n,) first row of pixels of each box.
        heights: (n,) how many there are.

    Returns:
        (L,) the map of each row, and (L, M + 2) float32, with a cell of zero at either end.

    """
    count, side = maps.shape[:2]
    padded = np.zeros((count, side + 2, side + 2), np.float32)
    padded[:, 1:-1, 1:-1] = maps
    cells = padded.reshape(-1, side + 2)
    steps = np.zeros_like(cells)
    np.subtract(cells[1:], cells[:-1], out=steps[:-1])
    owner = np.repeat(np.arange(count), heights)
    row = np.arange(len(owner)) - (np.cumsum(heights) - heights - first)[owner]
    position = (row + 0.5 - low[owner]) * (side / (high - low))[owner] + 0.5  # in cells from the padding on
    position = np.clip(position, 0, side + 1)
    cell = np.minimum(position.astype(np.int64), side)
    index = owner * (side + 2) + cell
    lines: np.ndarray = steps.take(index, axis=0)
    lines *= (position - cell).astype(np.float32)[:, None]
    lines += cells.take(index, axis=0)
    return owner, lines
