"""Cropped masks as run lengths or as polygons, and back."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

TOLERANCE = 0.75  # pixels that a polygon may run beside the mask's border: the steps of slanting borders go


def run_lengths(masks: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The uncompressed run lengths of COCO: pixels outside, inside, outside, ... down the columns.

    Args:
        masks: (h, w) uint8 of 0 and 1 each, none without pixels.

    Returns:
        For each mask (R,) uint32 with the sum h * w; the first is 0 where the first pixel is inside.

    Example:
        >>> [runs.tolist() for runs in run_lengths([np.array([[0, 1], [1, 1]], np.uint8)])]
        [[1, 3]]

    """
    if not masks:
        return []
    ends = np.cumsum([mask.size for mask in masks])
    starts = np.concatenate([[0], ends[:-1]])
    pixels = np.empty(ends[-1], np.uint8)
    for mask, start, end in zip(masks, starts.tolist(), ends.tolist(), strict=True):
        height, width = mask.shape
        cv2.transpose(mask, dst=pixels[start:end].reshape(width, height))
    # All at once: a run begins where a pixel differs from the one before, and where a mask begins. A mask that begins
    # inside gets a run of length 0 first.
    change = np.empty(len(pixels), bool)
    np.not_equal(pixels[1:], pixels[:-1], out=change[1:])
    change[starts] = True
    places = np.flatnonzero(change)
    first = np.searchsorted(places, starts)
    inside = pixels[starts] > 0
    places = np.insert(places, first[inside], starts[inside])
    runs = np.diff(places, append=ends[-1]).astype(np.uint32)
    counts = np.diff(np.append(first + np.cumsum(inside) - inside, len(runs)))
    return np.split(runs, np.cumsum(counts)[:-1])


def fill_runs(runs: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(h, w) uint8 mask of 0 and 1 from its run lengths (R,).

    Raises:
        ValueError: The runs are not of a mask of this size.

    """
    total = int(runs.sum(dtype=np.int64))
    if total != size[0] * size[1]:
        raise ValueError(f"the runs make {total} pixels, the roi has {size[0] * size[1]}")
    values = np.arange(len(runs), dtype=np.uint8) & 1
    return np.ascontiguousarray(np.repeat(values, runs).reshape(size[1], size[0]).T)


def outlines(mask: np.ndarray, tolerance: float = TOLERANCE) -> list[np.ndarray]:
    """The borders of a mask as closed lines between pixels, those of holes among them.

    Args:
        mask: (h, w) uint8 of 0 and 1.
        tolerance: How far in pixels a line may run beside the border; 0 = it follows every pixel.

    Returns:
        (P, 2) int32 x, y of the corners of each line; (0, 0) is the top left corner of the first pixel.

    """
    # OpenCV's contours run through the centres of pixels. In a mask of twice the size these lie a quarter of a pixel
    # beside the borders, inside or outside, and halving them with rounding up gives the border itself.
    double = cv2.resize(mask, None, fx=2, fy=2, interpolation=cv2.INTER_NEAREST)
    contours, _ = cv2.findContours(double, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    lines = []
    for contour in contours:
        border = (contour.reshape(-1, 2).astype(np.int32) + 1) >> 1
        line = cv2.approxPolyDP(border, tolerance, True).reshape(-1, 2)
        lines.append(line if len(line) > 2 else border)  # a pixel or two would vanish
    return lines


def fill_outlines(lines: Sequence[np.ndarray], size: tuple[int, int]) -> np.ndarray:
    """(h, w) uint8 of 0 and 1: the pixels whose centre an odd number of the closed lines (P, 2) surrounds."""
    height, width = size
    sides = np.zeros((height, width + 1), np.uint8)
    if lines:
        start = np.concatenate(lines).astype(np.int64)
        end = np.concatenate([np.roll(line, -1, axis=0) for line in lines]).astype(np.int64)
        low, high = (np.clip(f(start[:, 1], end[:, 1]), 0, height) for f in (np.minimum, np.maximum))
        crossed = high - low  # rows whose centre lies between the ends of each side
        side = np.repeat(np.arange(len(start)), crossed)
        y = np.arange(len(side)) - np.repeat(np.cumsum(crossed) - crossed - low, crossed)
        (x0, y0), (x1, y1) = start[side].T, end[side].T
        x = np.ceil(x0 + (y + 0.5 - y0) * (x1 - x0) / (y1 - y0) - 0.5)
        np.add.at(sides, (y, np.clip(x, 0, width).astype(np.int64)), 1)  # right of the line everything changes sides
    return np.cumsum(sides, axis=1, dtype=np.uint8)[:, :width] & 1
