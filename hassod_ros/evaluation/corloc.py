"""CorLoc: in how many images one box finds one of the objects.

Deselaers, Alexe, Ferrari, "Localizing objects while learning their appearance", ECCV 2010; as LOST and TokenCut
count it: one box an image, right where its IoU with any true box is at least 0.5.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from hassod_ros.errors import InputError

HIT = 0.5


def box_of_map(found: np.ndarray, threshold: float = 0.5) -> np.ndarray:
    """(4,) float64 x0 y0 x1 y1 of the largest 8-connected part of a foreground map.

    Args:
        found: (H, W) float in [0, 1].
        threshold: Pixels from here on are foreground.

    Returns:
        The part's pixel rectangle; the whole image where nothing is foreground, as an answer has to be given.

    """
    count, _, stats, _ = cv2.connectedComponentsWithStats((found >= threshold).astype(np.uint8), connectivity=8)
    if count < 2:
        return np.array([0, 0, found.shape[1], found.shape[0]], np.float64)
    x, y, width, height, _ = stats[1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())].tolist()
    return np.array([x, y, x + width, y + height], np.float64)


def overlaps(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(n,) IoU of a box (4,) with others (n, 4), x0 y0 x1 y1."""
    low, high = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:], others[:, 2:])
    common = np.maximum(high - low, 0).prod(axis=1)
    union = (box[2:] - box[:2]).prod() + (others[:, 2:] - others[:, :2]).prod(axis=1) - common
    return np.asarray(common / np.maximum(union, 1e-12))


def corloc(found: Sequence[np.ndarray], truth: Sequence[np.ndarray]) -> dict[str, float]:
    """`CorLoc` in [0, 1], its `standard error`, the `mean IoU` with the best true box, and the number of `images`.

    Args:
        found: One (4,) box an image.
        truth: (n, 4) boxes of each image. Images without any are left out, as the protocols do.

    Raises:
        InputError: Not one image has a true box.

    """
    best = np.array([overlaps(box, boxes).max() for box, boxes in zip(found, truth, strict=True) if len(boxes)])
    if not len(best):
        raise InputError("not one image has an annotated box; CorLoc needs some")
    share = float((best >= HIT).mean())
    return {
        "CorLoc": share,
        "standard error": float(np.sqrt(share * (1 - share) / len(best))),
        "mean IoU": float(best.mean()),
        "images": len(best),
    }
