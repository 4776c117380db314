"""Which box answers for which object, and which boxes take part in a loss (Detectron2's rules)."""

from __future__ import annotations

import torch
from torch import Tensor

IGNORED, NEGATIVE, POSITIVE = -1, 0, 1


def match(iou: Tensor, low: float, high: float, *, low_quality: bool = False) -> tuple[Tensor, Tensor]:
    """Match each of N boxes with the one of G objects that it overlaps most.

    Args:
        iou: (G, N) intersection over union.
        low: Boxes below it are negative.
        high: Boxes from it on are positive, those between are ignored.
        low_quality: An object's best boxes are positive whatever their IoU, so that no object stays unmatched.

    Returns:
        (N,) int64 index of the object (0 where there is none), and (N,) int64 label: POSITIVE, NEGATIVE or IGNORED.

    """
    if not len(iou):
        nothing = torch.zeros(iou.shape[1], dtype=torch.int64, device=iou.device)
        return nothing, nothing.clone()  # all NEGATIVE
    best, index = iou.max(dim=0)
    label = torch.full_like(index, IGNORED)
    label[best < low] = NEGATIVE
    label[best >= high] = POSITIVE
    if low_quality:
        highest = iou.max(dim=1, keepdim=True).values
        label[((iou == highest) & (highest > 0)).any(dim=0)] = POSITIVE
    return index, label


def sample(
    label: Tensor, count: int, positive_share: float, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Draw boxes for a loss: at most `positive_share` of `count` positive ones, then negative ones up to `count`.

    Args:
        label: (N,) from `match`.
        count: Boxes to draw, fewer where there are not enough.
        positive_share: In [0, 1].
        generator: Source of chance on the device of `label`; default: torch's own.

    Returns:
        Indices of the positive and of the negative ones.

    """
    positive, negative = torch.nonzero(label == POSITIVE)[:, 0], torch.nonzero(label == NEGATIVE)[:, 0]
    positives = min(len(positive), int(count * positive_share))
    positive = positive[torch.randperm(len(positive), generator=generator, device=label.device)[:positives]]
    negative = negative[torch.randperm(len(negative), generator=generator, device=label.device)[: count - positives]]
    return positive, negative
