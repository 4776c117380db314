"""Clustering across images: like regions of different images are pulled together, the more alike the stronger.

HEAP's abstract asks for inter-image clustering whose strength follows the rank of similarity; the form is the positive
loss of C2AM (Xie et al., CVPR 2022, equations 4 and 5) on regions, over pairs of different images only. That HEAP uses
the same is our guess.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hassod_ros.discovery.heap_head.contrast import similarities

ALPHA = 0.25  # how fast the weight falls with the rank; C2AM's on VOC


def inter_image_loss(regions: Tensor, images: Tensor, alpha: float = ALPHA) -> Tensor:
    """Mean of -exp(-alpha rank) log(similarity) over pairs of regions of different images.

    The rank of j for i is its place among the regions of other images by similarity to i, 0 = most similar.

    Args:
        regions: (R, C) of length 1.
        images: (R,) number of the image of each region.
        alpha: See above.

    Returns:
        The loss; 0 where there is no pair.

    """
    others = images[:, None] != images[None]
    if not others.any():
        return regions.sum() * 0
    alike = similarities(regions, regions)
    order = torch.where(others, alike, -1.0).detach().argsort(dim=1, descending=True, stable=True)
    rank = order.argsort(dim=1)
    weight = torch.exp(-alpha * rank.to(alike.dtype))
    return -(weight * torch.log(alike))[others].mean()
