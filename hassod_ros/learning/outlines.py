"""Masks with the outlines of the image: GrabCut inside each box, begun from what the mask head said.

A mask head of 28 x 28 cells, taught by rough labels, puts a mask in the right place with a rough rim. The colours
inside and outside tell where the rim is (Rother et al., "GrabCut: Interactive Foreground Extraction using Iterated
Graph Cuts", SIGGRAPH 2004).
"""

from __future__ import annotations

import cv2
import numpy as np

_SIDE = 64  # pixels of the square on which a box is cut out
_MARGIN = 0.12  # of a box's sides, seen around it: colours of the background
_INSIDE, _LIKELY, _OUTSIDE = 0.85, 0.5, 0.1  # probabilities: surely foreground above, maybe above, surely not below


def draw_mask(
    image: np.ndarray, box: np.ndarray, probabilities: np.ndarray, rounds: int = 1
) -> tuple[int, int, np.ndarray]:
    """The mask of one detection in the pixels of the image.

    Args:
        image: (H, W, 3) uint8; Lab colours suit best.
        box: (4,) xyxy in pixels, with area.
        probabilities: (S, S) of the mask within the box, 0 to 1.
        rounds: Iterations of GrabCut; 0: probabilities of one half and more, as they are.

    Returns:
        Left, top, and a (h, w) uint8 array of 0 and 1 from there on, within the image; maybe without a pixel.

    """
    height, width = image.shape[:2]
    x0, y0, x1, y1 = box.astype(np.float64)
    margin = np.array([_MARGIN * (x1 - x0), _MARGIN * (y1 - y0)])
    scale = (np.array([x1 - x0, y1 - y0]) + 2 * margin) / _SIDE
    # Centre of a pixel of the square -> place in the image, and in the map.
    to_image = _affine(scale, np.array([x0, y0]) - margin)
    cells = np.array(probabilities.shape[::-1])
    to_map = _affine(np.full(2, (1 + 2 * _MARGIN) / _SIDE) * cells, -_MARGIN * cells)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    values = cv2.warpAffine(probabilities.astype(np.float32), to_map, (_SIDE, _SIDE), flags=flags)
    if rounds:
        seen = cv2.warpAffine(image, to_image, (_SIDE, _SIDE), flags=flags, borderMode=cv2.BORDER_REPLICATE)
        values = _cut(seen, values, rounds)
    left, top = max(0, int(x0)), max(0, int(y0))
    right, bottom = min(width, int(np.ceil(x1))), min(height, int(np.ceil(y1)))
    if right <= left or bottom <= top:
        return left, top, np.zeros((0, 0), np.uint8)
    to_image[:, 2] -= left, top
    large = cv2.warpAffine(values, to_image, (right - left, bottom - top), flags=cv2.INTER_LINEAR)
    return left, top, (large > 0.5).view(np.uint8)


def _affine(scale: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """(2, 3) matrix between centres of pixels for `scale * place + offset` between corners."""
    return np.column_stack([np.diag(scale), offset + 0.5 * scale - 0.5])


def _cut(seen: np.ndarray, values: np.ndarray, rounds: int) -> np.ndarray:
    steps = (values > _OUTSIDE).astype(np.uint8) + (values > _LIKELY) + (values > _INSIDE)
    kinds = np.array([cv2.GC_BGD, cv2.GC_PR_BGD, cv2.GC_PR_FGD, cv2.GC_FGD], np.uint8)
    labels = kinds[steps]
    foreground = labels & 1
    if foreground.all() or not foreground.any():  # GrabCut needs colours of both
        return values
    cv2.setRNGSeed(0)  # its clusters start at random
    models = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.grabCut(seen, labels, (0, 0, 0, 0), *models, rounds, cv2.GC_INIT_WITH_MASK)
    cut = (labels & 1).astype(np.float32)
    return cut if cut.any() else values  # a mask that is nowhere sure may lose every pixel
