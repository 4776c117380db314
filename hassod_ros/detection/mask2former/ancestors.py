"""Who is whose ancestor: the head that predicts it, and its loss (SOHES, section 3.2 and figure 4)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class AncestorHead(nn.Module):
    """Two linear maps of the queries; the product of one query's first and another's second tells of the pair."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.descendant = nn.Linear(width, width, bias=False)
        self.ancestor = nn.Linear(width, width, bias=False)
        for layer in (self.descendant, self.ancestor):  # products of fresh queries, of norm width ** 0.5, are near 1
            nn.init.normal_(layer.weight, std=width**-0.75)

    def forward(self, queries: Tensor) -> Tensor:
        """(..., N, C) -> (..., N, N) logits: the column is an ancestor of the row."""
        return self.descendant(queries) @ self.ancestor(queries).mT


def ancestor_loss(logits: Sequence[Tensor], truth: Sequence[Tensor], limit: float) -> Tensor:
    """Binary cross entropy over all ordered pairs of different objects of each image; few of them are related.

    Args:
        logits: (M, M) of each image, see `AncestorHead`.
        truth: (M, M) bool of each image.
        limit: Related pairs count as much together as the others, each at most this often.

    Returns:
        Mean over the pairs of all images; 0 without one.

    """
    apart = [~torch.eye(len(each), dtype=torch.bool, device=each.device) for each in logits]
    values = torch.cat([each[mask] for each, mask in zip(logits, apart, strict=True)])
    wanted = torch.cat([each[mask] for each, mask in zip(truth, apart, strict=True)]).to(values.dtype)
    related = wanted.sum()
    weight = ((wanted.numel() - related) / related.clamp(min=1)).clamp(1, limit)
    total = F.binary_cross_entropy_with_logits(values, wanted, pos_weight=weight, reduction="sum")
    return total / max(wanted.numel(), 1)
