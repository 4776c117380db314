"""COCO's compressed run lengths -> masks at any size, without the masks at their own size in between."""

from __future__ import annotations

import numpy as np
from numba import njit

_CHUNK, _MORE, _SIGN, _BITS = 0x1F, 0x20, 0x10, 5  # of a character
_FIRST, _LARGEST = ord("0"), 63  # the character of 0, and the largest value of one
_MOST_DIGITS = 10  # of a number; more are beyond any image


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
        ValueError: A code is damaged.

    """
    masks = np.zeros((len(ends), *size), np.uint8)
    # Pixel x of a source line is seen by the pixels first[x] ... first[x + 1] - 1 of the resized one.
    first_row = np.searchsorted(nearest(height, size[0]), np.arange(height + 1))
    first_column = np.searchsorted(nearest(width, size[1]), np.arange(width + 1))
    broken = np.flatnonzero(_fill(codes, ends, first_row, first_column, masks))
    if len(broken):
        raise ValueError(f"the runs of mask {broken[0]} do not add up to {height}x{width} pixels")
    return masks


def damaged(codes: np.ndarray, ends: np.ndarray, height: int, width: int) -> np.ndarray:
    """(N,) bool, which codes `decode` would refuse; pycocotools makes random pixels of those. Arguments as there."""
    nowhere = np.zeros((len(ends), 0, 0), np.uint8)
    return _fill(codes, ends, np.zeros(height + 1, np.int64), np.zeros(width + 1, np.int64), nowhere)


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
) -> np.ndarray:
    """Set the pixels of all masks; (N,) bool, which codes are damaged.

    COCO writes each run as base-32 digits, lowest first, in characters from '0' on; bit 5 of a character says that more
    follow, bit 4 of the last one is the sign. From the fourth run on the difference to the run two before is written.
    """
    height, width = len(first_row) - 1, len(first_column) - 1
    broken = np.zeros(len(ends), np.bool_)
    place = 0
    for n in range(len(ends)):
        start, run, before, last = 0, 0, 0, 0  # pixels so far, number of the run, lengths of the two runs before
        while place < ends[n]:
            length, shift, more = 0, 0, True
            while more and place < ends[n] and shift < _BITS * _MOST_DIGITS:
                character = int(codes[place]) - _FIRST
                broken[n] |= character < 0 or character > _LARGEST
                place += 1
                length |= (character & _CHUNK) << shift
                shift += _BITS
                more = (character & _MORE) != 0
                if not more and character & _SIGN:
                    length |= -1 << shift
            if run > 2:
                length += before
            before, last = last, length
            stop = start + length
            if broken[n] or more or length < 0 or stop > height * width:
                broken[n] = True
                break
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
        broken[n] |= start != height * width
        place = ends[n]
    return broken
