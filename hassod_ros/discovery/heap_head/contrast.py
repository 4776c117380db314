"""Foreground against background: their embeddings are pushed apart, over all pairs of images.

HEAP's abstract asks for foreground-background contrasting at the image level; the form is the negative loss of C2AM
(Xie et al., CVPR 2022, equation 3), by an author of both. That HEAP uses the same is our guess.
"""

from __future__ import annotations

import torch
from torch import Tensor

LOW, HIGH = 0.0005, 0.9995  # similarities are kept inside, as C2AM does


def similarities(first: Tensor, second: Tensor) -> Tensor:
    """(A, B) cosines of vectors (A, C) and (B, C) of length 1, between 0.0005 and 0.9995."""
    return (first @ second.T).clamp(LOW, HIGH)


def contrast_loss(foreground: Tensor, background: Tensor) -> Tensor:
    """Mean of -log(1 - similarity) over all pairs of a foreground and a background embedding; both (B, C), length 1."""
    return -torch.log(1 - similarities(foreground, background)).mean()
