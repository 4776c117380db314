"""mIoU of clusters that have no names: matched one to one, or named by majority.

One to one: the assignment that gets most pixels right (Kuhn 1955, through SciPy), as IIC, PiCIE and STEGO score. By
majority: every cluster takes the class that most of its pixels have; several may take the same one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
from scipy.optimize import linear_sum_assignment

from hassod_ros.errors import InputError

VOID = 255  # pixels of this class count neither way
_SAMPLES = 200  # of the bootstrap


def confusion(found: np.ndarray, truth: np.ndarray, clusters: int, classes: int) -> np.ndarray:
    """(clusters, classes) int64, pixels of each cluster that are of each class; void pixels are left out.

    Args:
        found: (H, W) integers, clusters from 0.
        truth: (H, W) integers, classes from 0, or `VOID`.
        clusters: How many there are.
        classes: How many there are.

    Raises:
        InputError: The sizes differ, or a number is out of range.

    """
    if found.shape != truth.shape:
        raise InputError(f"a map of {found.shape} does not fit a label map of {truth.shape}; give both at one size")
    known = truth != VOID
    rows, columns = found[known].astype(np.int64), truth[known].astype(np.int64)
    for name, values, count in (("cluster", rows, clusters), ("class", columns, classes)):
        if len(values) and not 0 <= values.min() <= values.max() < count:
            raise InputError(f"{name} {int(values.max())} is beyond the {count} that there are; check the label maps")
    return np.bincount(rows * classes + columns, minlength=clusters * classes).reshape(clusters, classes)


def matched(table: np.ndarray) -> np.ndarray:
    """(clusters,) int64 class of each cluster, one to one with most pixels right; -1 for clusters left over."""
    rows, columns = linear_sum_assignment(table, maximize=True)
    names = np.full(len(table), -1, np.int64)
    names[rows] = columns
    return names


def majority(table: np.ndarray) -> np.ndarray:
    """(clusters,) int64 class that most pixels of each cluster have; -1 for a cluster without pixels."""
    return np.where(table.sum(axis=1) > 0, table.argmax(axis=1), -1)


def mean_iou(table: np.ndarray, names: np.ndarray) -> dict[str, float]:
    """`mIoU` over the classes that occur and pixel `accuracy`, when clusters are called `names` (-1: nothing right)."""
    classes = table.shape[1]
    called = np.zeros((classes, classes), np.int64)  # predicted class, true class
    np.add.at(called, names[names >= 0], table[names >= 0])
    right, true = called.diagonal(), table.sum(axis=0)
    union = called.sum(axis=1) + true - right
    there = true > 0
    if not there.any():
        raise InputError("not one pixel has a class; check the label maps")
    return {"mIoU": float((right[there] / union[there]).mean()), "accuracy": float(right.sum() / true.sum())}


def score_clusters(tables: Iterable[np.ndarray]) -> dict[str, float]:
    """The mIoU and accuracy of both ways, each with its bootstrap standard deviation over the images.

    Args:
        tables: (clusters, classes) of each image, see `confusion`.

    Returns:
        `mIoU`, `accuracy` (one to one), `majority mIoU`, `majority accuracy`, and `... std` of the mIoUs.

    """
    stacked = _stack(tables)
    total = stacked.sum(axis=0)
    one, most = mean_iou(total, matched(total)), mean_iou(total, majority(total))
    return {
        "mIoU": one["mIoU"],
        "mIoU std": spread(stacked, lambda table: mean_iou(table, matched(table))["mIoU"]),
        "accuracy": one["accuracy"],
        "majority mIoU": most["mIoU"],
        "majority mIoU std": spread(stacked, lambda table: mean_iou(table, majority(table))["mIoU"]),
        "majority accuracy": most["accuracy"],
    }


def score_classes(tables: Iterable[np.ndarray]) -> dict[str, float]:
    """The mIoU and accuracy where clusters are classes already, with the bootstrap standard deviation of the mIoU."""
    stacked = _stack(tables)
    names = np.arange(stacked.shape[1])
    scores = mean_iou(stacked.sum(axis=0), names)
    return {**scores, "mIoU std": spread(stacked, lambda table: mean_iou(table, names)["mIoU"])}


def spread(tables: np.ndarray, score: Callable[[np.ndarray], float]) -> float:
    """Standard deviation of a score over 200 sets of images drawn with replacement; the draws are fixed.

    Args:
        tables: (images, clusters, classes).
        score: Of a summed (clusters, classes) table.

    """
    rng = np.random.default_rng(0)
    draws = rng.integers(0, len(tables), (_SAMPLES, len(tables)))
    values = [score(tables[draw].sum(axis=0)) for draw in draws if tables[draw].any()]
    return float(np.std(values))


def _stack(tables: Iterable[np.ndarray]) -> np.ndarray:
    found = list(tables)
    if not found:
        raise InputError("there is no image to score; check the folder of label maps")
    return np.stack(found)
