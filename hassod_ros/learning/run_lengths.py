"""COCO's compressed run lengths -> masks at any size, without the masks at their own size in between."""

from __future__ import annotations

import numpy as np
from numba import njit

_CHUNK, _MORE, _SIGN, _BITS, _FIRST = 0x1F, 0x20, 0x10, 5, 48  # a character: 5 bits of a number, and whether it goes on


def decode(codes: np.ndarray, ends: np.ndarray, height: int, width: int, size: tuple[int, int]) -> np.ndarray:
    """Masks as `pycocotools.mask.decode` gives them, resized to the nearest pixels' centres.

    Args:
        codes: (C,) uint8, the `counts` of N compressed RLEs, one after the other.
        ends: (N,) int64, where each one ends in `codes`.
        height: Of the encoded masks, in pixels.
        width: Likewise.
        size: (h, w) of the result.

    Returns:
        (N, h, w) uint8 of 0 and 1.

    Raises:
        ValueError: The runs of a mask do not add up to its pixels.

    """
    masks = np.zeros((len(ends), *size), np.uint8)
    # In column c of the result is what in its column columns[c] was: the first ones that show column x or a later one.
    rows, columns = nearest(height, size[0]), nearest(width, size[1])
    first_row = np.searchsorted(rows, np.arange(height + 1))
    first_column = np.searchsorted(columns, np.arange(width + 1))
    broken = _fill(codes, ends, first_row, first_column, masks)
    if broken >= 0:
        raise ValueError(f"the runs of mask {broken} do not add up to {height}x{width} pixels")
    return masks


def nearest(source: int, target: int) -> np.ndarray:
    """(target,) int64, for each of `target` pixels the one of `source` that holds its centre.

    As torch's interpolation mode `nearest-exact`, in float32 as there.
    """
    centres = np.arange(target, dtype=np.float32) + np.float32(0.5)
    scaled = centres * (np.float32(source) / np.float32(target))
    return np.minimum(scaled.astype(np.int64), source - 1)


@njit(cache=True, nogil=True)
def _fill(
    codes: np.ndarray, ends: np.ndarray, first_row: np.ndarray, first_column: np.ndarray, masks: np.ndarray
) -> int:
    """Set the pixels of all masks; the number of the first broken one, or -1."""
    height, width = len(first_row) - 1, len(first_column) - 1
    place = 0
    for n in range(len(ends)):
        start, run, before, last = 0, 0, 0, 0  # pixels so far, number of the run, lengths of the two runs before
        while place < ends[n]:
            length, shift, more = 0, 0, True
            while more and place < ends[n]:
                character = int(codes[place]) - _FIRST
                place += 1
                length |= (character & _CHUNK) << shift
                shift += _BITS
                more = (character & _MORE) != 0
                if not more and character & _SIGN:
                    length |= -1 << shift
            if run > 2:
                length += before  # stored as differences from the run before the last
            before, last = last, length
            stop = start + length
            if more or length < 0 or stop > height * width:
                return n
            if run % 2:  # every second run is of pixels inside; they go down the columns
                position = start
                while position < stop:
                    x, top = position // height, position % height
                    bottom = min(top + stop - position, height)
                    left, right = first_column[x], first_column[x + 1]
                    if left < right:
                        for y in range(first_row[top], first_row[bottom]):
                            for column in range(left, right):
                                masks[n, y, column] = 1
                    position += bottom - top
            start, run = stop, run + 1
        if start != height * width:
            return n
    return -1
