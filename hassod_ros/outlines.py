"""Masks that follow the colours of the image, for mask heads with rough outlines.

A small mask head taught by rough labels puts a mask in the right place with a rough rim. What colours lie inside and
outside tells where the rim is: the idea of GrabCut (Rother et al., "GrabCut: Interactive Foreground Extraction using
Iterated Graph Cuts", SIGGRAPH 2004), with histograms instead of mixtures and one step instead of iterated cuts, so that
all masks of an image take some milliseconds.
"""

from __future__ import annotations

import math

import cv2
import numpy as np

_MARGIN = 1 / 7  # of a box's sides, seen around it: colours of the background
_SHADES = 8  # of luma, and of either chroma, that are told apart
_COLORS = _SHADES**3
_CHROMA_STEP = 10  # of 256, finer than that of luma: things differ less in chroma, and shadows change it less
_PRIOR = 5.0  # cells of either kind that each colour is given: rare ones decide nothing
_SURE = 0.02  # probabilities count as at least so far from 0 and 1
_LEAST = 0.05  # cells below it stay outside
_FAINT = 0.7  # a mask's cells are at least so likely on average, or raised to it
_CHROMA_LOW = 128 - _CHROMA_STEP * _SHADES // 2  # shades of chroma are counted from here; what lies below is the first
_CHROMA_HIGH = _CHROMA_LOW + _CHROMA_STEP * _SHADES - 1  # what lies above is the last


def follow_colors(probabilities: np.ndarray, image: np.ndarray, boxes: np.ndarray, weight: float) -> np.ndarray:
    """Mask probabilities that agree with the colours of the image.

    To a cell's log-odds come `weight` times the log-odds that its colour is the mask's, counted in the box and a little
    around it; then each is the mean of 3 x 3. A mask that is faint all over, as a young detector's are, is raised
    before, or its own colours would speak against it.

    Args:
        probabilities: (N, M, M) float32, of masks within their boxes.
        image: (H, W, 3) uint8 RGB.
        boxes: (N, 4) xyxy in pixels of the image.
        weight: 0: nothing changes but the mean of 3 x 3; 3 does well.

    Returns:
        (N, M, M) float32.

    """
    if not len(probabilities):
        return probabilities
    likely = _raised(probabilities) if weight else probabilities
    agreed = np.clip(likely, _SURE, 1 - _SURE)
    if weight:
        # As odds: p / (1 - p) times those of the colour, without a logarithm for each cell.
        agreed /= agreed + (1 - agreed) * _odds_against(likely, image, boxes, weight)
    agreed *= likely >= _LEAST
    return _mean_of_nine(agreed)


def _odds_against(likely: np.ndarray, image: np.ndarray, boxes: np.ndarray, weight: float) -> np.ndarray:
    """(N, M, M) odds, to the power of `weight`, that a cell's colour is not its mask's."""
    count, side = likely.shape[:2]
    margin = max(1, round(_MARGIN * side))
    sampled, _ = colors_around(image, boxes, side, margin)
    bins = count * _COLORS
    colors = sampled + np.arange(0, bins, _COLORS)[:, None, None]  # a histogram for each mask
    within = np.ascontiguousarray(colors[:, margin:-margin, margin:-margin])
    inside = np.bincount(within.ravel(), likely.ravel(), bins).astype(np.float32)
    total = np.bincount(colors.ravel(), minlength=bins).astype(np.float32)
    odds = np.clip((total - inside + 0.5 * _PRIOR) / (inside + 0.5 * _PRIOR), _SURE / (1 - _SURE), (1 - _SURE) / _SURE)
    return np.exp(np.float32(weight) * np.log(odds)).take(within, mode="clip")


def _mean_of_nine(maps: np.ndarray) -> np.ndarray:
    """(N, M, M) means of 3 x 3 cells; beyond a map there are zeros."""
    count, side = maps.shape[:2]
    width = side + 2
    padded = np.zeros((count, width, width), np.float32)
    padded[:, 1:-1, 1:-1] = maps
    # Of all maps in one row: what runs over a border is cut off below.
    flat = padded.ravel()
    across = flat[:-2] + flat[1:-1] + flat[2:]
    means = np.empty_like(flat)
    kept = len(across) - 2 * width
    np.add(across[:kept], across[width:-width], out=means[:kept])
    means[:kept] += across[2 * width :]
    means[:kept] *= np.float32(1 / 9)
    return means.reshape(padded.shape)[:, :side, :side]


def colors_around(image: np.ndarray, boxes: np.ndarray, side: int, margin: int) -> tuple[np.ndarray, int]:
    """The colours at the cells of N boxes and around them: (N, M + 2 margin, M + 2 margin) uint16 below the int.

    Args:
        image: (H, W, 3) uint8 RGB.
        boxes: (N, 4) xyxy in pixels of the image.
        side: M, cells along a side of a box.
        margin: Cells around a box; those beyond the image repeat its border.

    """
    return _sample(_quantised(image), boxes, side, margin), _COLORS


def _raised(probabilities: np.ndarray) -> np.ndarray:
    """Masks (N, M, M) whose mean probability, weighted by itself, is `_FAINT` or more: faint ones are shifted to it."""
    weight = probabilities.sum((1, 2))
    likely = np.einsum("nij,nij->n", probabilities, probabilities) / np.maximum(weight, 1e-6)
    faint = np.flatnonzero(likely < _FAINT)
    if not len(faint):
        return probabilities
    masks = probabilities[faint]
    odds = _log_odds(masks) + (math.log(_FAINT / (1 - _FAINT)) - _log_odds(likely[faint]))[:, None, None]
    raised = probabilities.copy()
    raised[faint] = np.where(masks < _LEAST, masks, 1 / (1 + np.exp(-odds)))
    return raised


def _quantised(image: np.ndarray) -> np.ndarray:
    """The colour of each pixel: (H, W) uint16 in [0, _COLORS)."""
    planes: list[np.ndarray] = [np.asarray(plane) for plane in cv2.split(cv2.cvtColor(image, cv2.COLOR_RGB2YCrCb))]
    red, blue = ((np.clip(plane, _CHROMA_LOW, _CHROMA_HIGH) - _CHROMA_LOW) // _CHROMA_STEP for plane in planes[1:])
    shades: np.ndarray = (planes[0] // (256 // _SHADES)).astype(np.uint16)
    shades *= _SHADES**2
    shades += red * _SHADES + blue
    return shades


def _sample(plane: np.ndarray, boxes: np.ndarray, side: int, margin: int) -> np.ndarray:
    """(N, M + 2 margin, M + 2 margin) values at the cells of each box, and around it; those at the border repeat."""
    steps = (np.arange(-margin, side + margin) + 0.5) / side
    columns = boxes[:, :1] + steps * (boxes[:, 2:3] - boxes[:, :1])
    rows = boxes[:, 1:2] + steps * (boxes[:, 3:] - boxes[:, 1:2])
    height, width = plane.shape
    columns = np.clip(columns, 0, width - 1).astype(np.intp)
    rows = np.clip(rows, 0, height - 1).astype(np.intp) * width
    return plane.take(rows[:, :, None] + columns[:, None, :], mode="clip")


def _log_odds(probabilities: np.ndarray) -> np.ndarray:
    clipped = np.clip(probabilities, _SURE, 1 - _SURE)
    return np.log(clipped / (1 - clipped))
