"""What patches look like, as a target to learn: colour and texture against the rest of the view."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from hassod_ros.discovery.features.handcrafted import LOOKS, describe_regions

CHANNELS = LOOKS
_LEAST_SPREAD = 0.2  # of a view's descriptors: below it, differences are noise and are not stretched further


def descriptors_of(views: Tensor) -> Tensor:
    """Colour and texture of patches of 8 pixels, smoothed along regions, see `handcrafted.describe_regions`.

    What is learned is how a patch differs from its view: the mean over the view is taken out, and the spread of all
    channels together is one a channel.

    Args:
        views: (B, 3, H, W) float32 RGB in [0, 1], H and W multiples of 8.

    Returns:
        (B, h * w, 12) float32 on the views' device.

    """
    pixels = (views * 255).round().clamp(0, 255).byte().permute(0, 2, 3, 1).contiguous().cpu().numpy()
    found = np.stack([describe_regions(each)[..., :CHANNELS] for each in pixels])
    looks = torch.from_numpy(found).to(views.device).flatten(1, 2)
    looks = looks - looks.mean(1, keepdim=True)
    spread = looks.square().mean((1, 2), keepdim=True).sqrt()
    return looks / spread.clamp(min=_LEAST_SPREAD / CHANNELS**0.5)
