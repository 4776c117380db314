"""One list of detections from several views of an image: where views agree, boxes, masks and scores are averaged.

Weighted boxes fusion (Solovyev, Wang and Gabruseva, "Weighted boxes fusion: Ensembling boxes from different object
detection models") with one vote a view; views at several scales, mirrored or not, are the data distillation of
Radosavovic et al. ("Data Distillation: Towards Omni-Supervised Learning").
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from hassod_ros.detection.boxes import pairwise_iou
from hassod_ros.detection.detections import Detections


def vote(views: Sequence[Detections], iou: float) -> Detections:
    """Merge detections of the same image.

    The best detection gathers what overlaps it, at most one of each view, and so on with what is left. A group's score
    is the sum of its scores over the number of views: what only one of them sees falls behind.

    Args:
        views: Detections in the same pixels, one entry a view.
        iou: Of boxes, above which detections are of one thing.

    Returns:
        By descending score.

    """
    names = ("boxes", "scores", "level_probabilities", "mask_probabilities")
    boxes, scores, levels, masks = (torch.cat([getattr(view, name) for view in views]) for name in names)
    view_of = torch.repeat_interleave(torch.tensor([len(view) for view in views])).to(scores.device)
    order = scores.argsort(descending=True, stable=True)
    overlaps, free = pairwise_iou(boxes, boxes), torch.ones_like(scores, dtype=torch.bool)
    merged: list[tuple[torch.Tensor, ...]] = []
    for best in order:
        if not free[best]:
            continue
        group = order[((overlaps[best] > iou) & free)[order]]
        group = group if len(group) else best[None]  # a box without area does not even overlap itself
        free[group] = False
        same_view = view_of[group][:, None] == view_of[group]
        voters = group[~same_view.tril(-1).any(dim=1)]  # the best of each view
        weights = scores[voters] * overlaps[best, voters]
        weights = weights / weights.sum() if weights.sum() > 0 else torch.ones_like(weights) / len(weights)
        merged.append(
            (
                weights @ boxes[voters],
                scores[voters].sum() / len(views),
                weights @ levels[voters],
                torch.tensordot(weights, masks[voters], dims=1),
            )
        )
    if not merged:
        return views[0]
    boxes, scores, levels, masks = map(torch.stack, zip(*merged, strict=True))
    found = Detections(boxes, scores, levels, masks, views[0].size)
    return found.select(found.scores.argsort(descending=True, stable=True))
