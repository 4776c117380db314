"""Segmentation by retrieval: a region is of the class of the nearest region that is known.

As MaskContrast (Van Gansbeke et al., ICCV 2021) evaluates embeddings: regions of annotated pictures are the bank, those
of others get the class of their nearest neighbour by cosine. The class of a region in the bank is the one that most of
its pixels have.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hassod_ros.errors import InputError
from hassod_ros.evaluation.segmentation import VOID, confusion

BACKGROUND = 0


@dataclass(frozen=True, eq=False)
class Described:
    """Regions of one image.

    Attributes:
        regions: (H, W) int32, number of the region at each pixel, -1 where nothing is found (background).
        embeddings: (R, C) float32, one a region.

    """

    regions: np.ndarray
    embeddings: np.ndarray


def class_of_regions(described: Described, truth: np.ndarray, classes: int) -> np.ndarray:
    """(R,) int64, the class that most pixels of each region have; -1 where all of them are void.

    Args:
        described: Regions.
        truth: (H, W) classes from 0, or `VOID`.
        classes: How many there are.

    """
    count = len(described.embeddings)
    chosen = np.where(described.regions >= 0, truth, VOID)
    table = confusion(np.maximum(described.regions, 0), chosen, max(count, 1), classes)[:count]
    return np.where(table.sum(axis=1) > 0, table.argmax(axis=1), -1)


def retrieve(
    queries: Sequence[Described],
    truths: Sequence[np.ndarray],
    classes: int,
    bank: Sequence[Described] | None = None,
    bank_truths: Sequence[np.ndarray] = (),
) -> list[np.ndarray]:
    """Confusion tables (classes, classes) of each query image: predicted, true.

    Args:
        queries: Images to label.
        truths: Their (H, W) label maps.
        classes: How many there are, with background as 0.
        bank: Annotated images; default: the queries themselves, each without itself.
        bank_truths: Their label maps.

    Raises:
        InputError: The bank holds no region of a known class.

    """
    own = bank is None
    known, maps = (queries, truths) if bank is None else (bank, bank_truths)
    names = [class_of_regions(each, truth, classes) for each, truth in zip(known, maps, strict=True)]
    label = np.concatenate([np.zeros(0, np.int64), *names])
    source = np.repeat(np.arange(len(known)), [len(each) for each in names])
    usable = label >= 0
    if not usable.any():
        raise InputError("the bank holds no region of a known class; nothing can be retrieved")
    vectors = unit(np.concatenate([each.embeddings for each in known]))[usable]
    label, source = label[usable], source[usable]
    tables = []
    for i, (query, truth) in enumerate(zip(queries, truths, strict=True)):
        predicted = np.full(len(query.embeddings) + 1, BACKGROUND)  # the last one answers for -1
        alike = unit(query.embeddings) @ vectors.T
        if own:
            alike[:, source == i] = -np.inf
        if len(alike) and np.isfinite(alike).any():
            predicted[:-1] = label[alike.argmax(axis=1)]
        tables.append(confusion(predicted[query.regions], truth, classes, classes))
    return tables


def unit(vectors: np.ndarray) -> np.ndarray:
    """(n, C) rows of length 1; rows of zeros stay."""
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12))
