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

_LUMA = np.arange(256, dtype=np.int32) * _SHADES // 256
_CHROMA = np.clip((np.arange(256, dtype=np.int32) - 128) // _CHROMA_STEP + _SHADES // 2, 0, _SHADES - 1)
_TABLES = (_LUMA * _SHADES**2, _CHROMA * _SHADES, _CHROMA)  # of Y, Cr, Cb


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
    count, side = probabilities.shape[:2]
    if not count:
        return probabilities
    margin = max(1, round(_MARGIN * side))
    mask = np.pad(_raised(probabilities) if weight else probabilities, ((0, 0), (margin, margin), (margin, margin)))
    colors, _ = colors_around(image, boxes, side, margin)
    colors += np.arange(count, dtype=colors.dtype)[:, None, None] * _COLORS  # a histogram for each mask
    bins = count * _COLORS
    inside = np.bincount(colors.ravel(), mask.ravel(), bins)
    total = np.bincount(colors.ravel(), minlength=bins)
    share = ((inside + 0.5 * _PRIOR) / (total + _PRIOR)).astype(np.float32)
    odds = _log_odds(mask) + (weight * _log_odds(share))[colors]
    agreed = 1 / (1 + np.exp(-odds))
    agreed[mask < _LEAST] = 0
    rows = agreed[:, :-2] + agreed[:, 1:-1] + agreed[:, 2:]
    mean = (rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:]) / 9
    kept = slice(margin - 1, margin - 1 + side)
    return mean[:, kept, kept]


def colors_around(image: np.ndarray, boxes: np.ndarray, side: int, margin: int) -> tuple[np.ndarray, int]:
    """The colours at the cells of N boxes and around them: (N, M + 2 margin, M + 2 margin) int32 below the int.

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
    """The colour of each pixel: (H, W) int32 in [0, _COLORS)."""
    channels = cv2.split(cv2.cvtColor(image, cv2.COLOR_RGB2YCrCb))
    luma, red, blue = (cv2.LUT(channel, table) for channel, table in zip(channels, _TABLES, strict=True))
    return luma + red + blue


def _sample(plane: np.ndarray, boxes: np.ndarray, side: int, margin: int) -> np.ndarray:
    """(N, M + 2 margin, M + 2 margin) values at the cells of each box, and around it; those at the border repeat."""
    steps = (np.arange(-margin, side + margin) + 0.5) / side
    columns = boxes[:, :1] + steps * (boxes[:, 2:3] - boxes[:, :1])
    rows = boxes[:, 1:2] + steps * (boxes[:, 3:] - boxes[:, 1:2])
    height, width = plane.shape
    columns = np.clip(columns, 0, width - 1).astype(np.int64)
    rows = np.clip(rows, 0, height - 1).astype(np.int64) * width
    return plane.take(rows[:, :, None] + columns[:, None, :])


def _log_odds(probabilities: np.ndarray) -> np.ndarray:
    clipped = np.clip(probabilities, _SURE, 1 - _SURE)
    return np.log(clipped / (1 - clipped))
