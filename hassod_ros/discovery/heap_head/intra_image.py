"""Grouping within an image: modularity, which wants alike patches in one group and does not fix the number of groups.

HEAP's abstract asks for intra-image grouping by similarity; the form is ACSeg's (Li et al., CVPR 2023), after Newman,
"Modularity and community structure in networks", PNAS 2006. That HEAP uses the same is our guess.
"""

from __future__ import annotations

import torch
from torch import Tensor


def modularity_loss(features: Tensor, assignment: Tensor) -> Tensor:
    """Minus the soft modularity of the groups, mean over the images; in [-1, 0.5].

    A_ij = max(0, cosine of patches i and j) are the edges, k their sums at a patch, 2m their total sum. The modularity
    is sum_ij (A_ij - k_i k_j / 2m) S_i . S_j / 2m for soft assignments S.

    Args:
        features: (B, N, C) of length 1.
        assignment: (B, N, K), adds up to 1 over K.

    """
    edges = torch.relu(features @ features.transpose(1, 2))  # (B, N, N)
    degree = edges.sum(dim=2)  # (B, N)
    total = degree.sum(dim=1, keepdim=True)  # (B, 1)
    within = (assignment * (edges @ assignment)).sum(dim=(1, 2)) / total[:, 0]
    expected = (((degree / total)[:, None] @ assignment)[:, 0] ** 2).sum(dim=1)
    return -(within - expected).mean()
