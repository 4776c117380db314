"""Masks of boxes (He et al., "Mask R-CNN")."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from hassod_ros.detection.cascade.layers import Conv, init_msra, init_normal


class MaskHead(nn.Module):
    """Pooled features (M, C, S, S) -> mask logits (M, 2 S, 2 S)."""

    def __init__(self, inputs: int, channels: int, layers: int) -> None:
        super().__init__()
        self.layers = layers
        for i in range(layers):
            conv = Conv(inputs, channels, 3)
            init_msra(conv)
            self.add_module(f"mask_fcn{i + 1}", conv)
            inputs = channels
        self.deconv = nn.ConvTranspose2d(inputs, channels, kernel_size=2, stride=2)
        init_msra(self.deconv)
        self.predictor = Conv(channels, 1, 1)
        init_normal(self.predictor, 0.001)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        for i in range(self.layers):
            x = F.relu_(getattr(self, f"mask_fcn{i + 1}")(x))
        return self.predictor(F.relu_(self.deconv(x)))[:, 0]
