"""Who found whom: COCO's greedy assignment of predictions to ground truth, compiled."""

from dataclasses import replace

import numpy as np
from numba import njit
from pycocotools import mask as rle

from hassod_ros.evaluation.annotations import Segments

THRESHOLDS = np.linspace(0.5, 0.95, 10)  # IoU
SIZES = {"all": (0.0, 1e10), "small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, 1e10)}  # px

MISS, HIT, IGNORED = 0, 1, 2  # what became of a prediction


def overlaps(predicted: Segments, truth: Segments, kind: str) -> np.ndarray:
    """(D, G) float64 IoU of predictions and ground truth; for crowd regions intersection over prediction.

    Args:
        predicted: D predictions.
        truth: G annotations.
        kind: "mask" or "box".

    """
    if not len(predicted) or not len(truth):
        return np.zeros((len(predicted), len(truth)))
    first, second = (predicted.masks, truth.masks) if kind == "mask" else (predicted.boxes, truth.boxes)
    return np.asarray(rle.iou(first, second, truth.crowd.astype(np.uint8).tolist()))


def containment(first: Segments, second: Segments, kind: str) -> np.ndarray:
    """(D, G) float64, the share of each of the first (row) that lies in each of the second, of masks or of boxes."""
    return overlaps(first, replace(second, crowd=np.ones(len(second), bool)), kind)


@njit(cache=True, nogil=True)
def match(ious: np.ndarray, ignored: np.ndarray, crowd: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Give each prediction, best score first, the free annotation that it overlaps most.

    An annotation is taken once, a crowd region any number of times. An ignored annotation is taken only where no
    counted one is left that overlaps enough. Equal overlaps go to the later annotation. All this is COCO's rule.

    Args:
        ious: (D, G) float64, predictions in descending order of score.
        ignored: (A, G) bool, for each of A size ranges the annotations that do not count.
        crowd: (G,) bool.
        thresholds: (T,) float64, least IoU of a match.

    Returns:
        (A, T, D) int32, the index of the annotation that each prediction got, or -1.

    """
    D, G = ious.shape
    A, T = ignored.shape[0], thresholds.shape[0]
    assigned = np.full((A, T, D), -1, np.int32)
    candidates = np.empty(G, np.int64)
    taken = np.zeros((A, T, G), np.bool_)
    lowest = thresholds.min()
    for d in range(D):
        n = 0
        for g in range(G):
            if ious[d, g] >= min(lowest, 1 - 1e-10):
                candidates[n] = g
                n += 1
        if n == 0:
            continue
        for a in range(A):
            for t in range(T):
                found = -1
                for pass_ignored in (False, True):
                    best = min(thresholds[t], 1 - 1e-10)
                    for i in range(n):
                        g = candidates[i]
                        if ignored[a, g] != pass_ignored or (taken[a, t, g] and not crowd[g]) or ious[d, g] < best:
                            continue
                        best = ious[d, g]
                        found = g
                    if found >= 0:
                        break
                if found >= 0:
                    taken[a, t, found] = True
                    assigned[a, t, d] = found
    return assigned


def fates(assigned: np.ndarray, ignored: np.ndarray, areas: np.ndarray, limits: np.ndarray) -> np.ndarray:
    """What became of each prediction: HIT, MISS or IGNORED.

    Ignored are those that got an ignored annotation, and those without a match whose own size is out of range.

    Args:
        assigned: (A, T, D) int32 of `match`.
        ignored: (A, G) bool.
        areas: (D,) areas of the predictions in pixels.
        limits: (A, 2) float64, the size ranges, both ends included.

    Returns:
        (A, T, D) uint8.

    """
    outside = (areas < limits[:, :1]) | (areas > limits[:, 1:])  # (A, D)
    unmatched = np.where(outside, IGNORED, MISS).astype(np.uint8)[:, None]  # (A, 1, D)
    if not ignored.shape[1]:
        return np.broadcast_to(unmatched, assigned.shape).copy()
    took_ignored = np.take_along_axis(ignored[:, None], np.maximum(assigned, 0), axis=2)
    return np.where(assigned < 0, unmatched, np.where(took_ignored, IGNORED, HIT).astype(np.uint8))
