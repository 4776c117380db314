"""Which box answers for which object, and which boxes take part in a loss (Detectron2's rules)."""

from __future__ import annotations

import torch
from torch import Tensor

IGNORED, NEGATIVE, POSITIVE = -1, 0, 1


def match(iou: Tensor, low: float, high: float, *, low_quality: bool = False) -> tuple[Tensor, Tensor]:
    """Match each of N boxes with the one of G objects that it overlaps most.

    Args:
        iou: (..., G, N) intersection over union.
        low: Boxes below it are negative.
        high: Boxes from it on are positive, those between are ignored.
        low_quality: An object's best boxes are positive whatever their IoU, so that no object stays unmatched.

    Returns:
        (..., N) int64 index of the object (0 where there is none), and (..., N) int64 label: POSITIVE, NEGATIVE or
        IGNORED.

    """
    if not iou.shape[-2]:
        nothing = iou.new_zeros(*iou.shape[:-2], iou.shape[-1], dtype=torch.int64)
        return nothing, nothing.clone()  # all NEGATIVE
    best, index = iou.max(dim=-2)
    # Not label[best < low] = NEGATIVE: a GPU would have to tell first how many there are.
    label = torch.where(best < low, NEGATIVE, IGNORED).masked_fill(best >= high, POSITIVE)
    if low_quality:
        highest = iou.amax(dim=-1, keepdim=True)
        label = label.masked_fill(((iou == highest) & (highest > 0)).any(dim=-2), POSITIVE)
    return index, label


def sample(label: Tensor, count: int, positive_share: float) -> tuple[Tensor, Tensor]:
    """Draw boxes for a loss: at most `positive_share` of `count` positive ones, then negative ones up to `count`.

    For all images at once, by torch's random state, and with shapes that do not depend on the draw, so that a GPU is
    never waited for.

    Args:
        label: (B, N) from `match`.
        count: Boxes to draw of each image, fewer where there are not enough.
        positive_share: In [0, 1].

    Returns:
        (B, K) int64 places in `label`, K at most `count`, and (B, K) bool: which of them are drawn, each once. They
        come first, the positive ones before all; where there are not enough, places fill up that are not drawn.

    """
    chance = torch.rand(label.shape, device=label.device)
    boxes = label.shape[1]
    keys, positive = chance.where(label == POSITIVE, -1.0).topk(min(boxes, int(count * positive_share)), dim=1)
    drawn_positive = keys >= 0
    keys, negative = chance.where(label == NEGATIVE, -1.0).topk(min(boxes, count), dim=1)
    left = count - drawn_positive.sum(1, keepdim=True)
    drawn_negative = (keys >= 0) & (torch.arange(negative.shape[1], device=label.device) < left)
    places, drawn = torch.cat([positive, negative], 1), torch.cat([drawn_positive, drawn_negative], 1)
    order = drawn.byte().argsort(dim=1, descending=True, stable=True)[:, :count]
    return places.gather(1, order), drawn.gather(1, order)
