"""Instances of a detector whose masks span the picture and that says who is whose ancestor, such as Mask2Former."""

from __future__ import annotations

import numpy as np

from hassod_ros.hierarchy import ancestor_forest
from hassod_ros.instances import Instances
from hassod_ros.masks import place_maps

_LEAST = 0.5  # of a detection's score, which its ancestors reach (ours)


def spanning_instances(
    maps: np.ndarray,
    scores: np.ndarray,
    ancestors: np.ndarray,
    *,
    size: tuple[int, int],
    inner: tuple[int, int],
    stride: int,
    threshold: float,
    cover: float,
    most: int | None = None,
) -> Instances:
    """The detections that have a pixel, at the image's own size and arranged by `ancestor_forest`.

    What hardly counts as a thing is no ancestor of what does, see `as_sure`.

    Args:
        maps: See `place_maps`.
        scores: (N,) in [0, 1], descending.
        ancestors: (N, N) probability that the column is an ancestor of the row.
        size: See `place_maps`.
        inner: Likewise.
        stride: Likewise.
        threshold: Likewise.
        cover: See `ancestor_forest`.
        most: Instances. Default: all.

    """
    regions, masks, rows = place_maps(maps, size, inner, stride, threshold)
    regions, masks, rows = regions[:most], masks[:most], rows[:most]
    scores = scores[rows].clip(0, 1)
    likely = np.where(as_sure(scores), ancestors[np.ix_(rows, rows)], 0.0)
    parents, levels = ancestor_forest(regions, masks, likely, cover=cover)
    return Instances(image_size=size, boxes=regions, masks=masks, scores=scores, levels=levels, parents=parents)


def as_sure(scores: np.ndarray) -> np.ndarray:
    """(N, N) bool, whether the column's score is at least half of the row's.

    Most queries find nothing, or what another one found already. Their masks are there all the same, and the head has
    never been told whose ancestors they are.
    """
    return scores >= _LEAST * scores[:, None]
