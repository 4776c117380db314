"""Masks and objects compared at every cell: what the matching and the losses of masks come from.

Mask2Former compares at random points (Cheng et al., CVPR 2022, section 3.3), because cells are many at its sizes of
input. Where they are no more than the points, all of them cost less and add no noise.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor

Matched = Sequence[tuple[Tensor, Tensor]]  # of each image, queries and objects that belong together


@torch.no_grad()
def cheapest(
    scores: Tensor, logits: Tensor, objects: Tensor, *, class_weight: float, mask_weight: float, dice_weight: float
) -> tuple[Tensor, Tensor]:
    """The assignment of objects to queries that costs least.

    Args:
        scores: (Q,) probability of an object.
        logits: (Q, P) of masks at all cells.
        objects: (G, P) share of a cell that an object covers, 0 ... 1.
        class_weight: Of the probability.
        mask_weight: Of the cross entropy, the mean over cells.
        dice_weight: Of the dice loss.

    Returns:
        Queries and objects, both (min(Q, G),) int64.

    """
    entropy = (F.softplus(logits).sum(1)[:, None] - logits @ objects.T) / logits.shape[1]
    inside = logits.sigmoid()
    total = inside.sum(1)[:, None] + objects.sum(1)
    dice = 1 - (2 * inside @ objects.T + 1) / (total + 1)
    cost = mask_weight * entropy + dice_weight * dice - class_weight * scores[:, None]
    queries, chosen = linear_sum_assignment(cost.nan_to_num(nan=1e9, posinf=1e9, neginf=-1e9).cpu().numpy())
    return (
        torch.from_numpy(queries).to(logits.device, torch.int64),
        torch.from_numpy(chosen).to(logits.device, torch.int64),
    )


def mask_losses(logits: Sequence[Tensor], objects: Sequence[Tensor], matched: Matched) -> dict[str, Tensor]:
    """`loss_mask`, cross entropy, and `loss_dice`: means over all matched pairs of a batch, of which there are some.

    Args:
        logits: (Q, P) of each image.
        objects: (G, P) likewise, see `cheapest`.
        matched: Likewise.

    """
    found = torch.cat([each[queries] for each, (queries, _) in zip(logits, matched, strict=True)])
    wanted = torch.cat([each[chosen] for each, (_, chosen) in zip(objects, matched, strict=True)])
    inside = found.sigmoid()
    dice = 1 - (2 * (inside * wanted).sum(1) + 1) / (inside.sum(1) + wanted.sum(1) + 1)
    return {"loss_mask": F.binary_cross_entropy_with_logits(found, wanted), "loss_dice": dice.mean()}
