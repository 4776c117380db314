"""Masks of boxes, and how good they are.

Mask R-CNN: He et al. Mask Scoring R-CNN: Huang et al.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hassod_ros.detection.cascade.layers import Conv, init_msra, init_normal, init_xavier


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


class MaskIouHead(nn.Module):
    """Pooled features (M, C, S, S) and mask logits (M, 2 S, 2 S) -> predicted IoU of each mask (M,)."""

    def __init__(self, inputs: int, channels: int, width: int, side: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList()
        for i in range(4):
            conv = Conv(inputs + 1 if i == 0 else channels, channels, 3, stride=2 if i == 3 else 1)
            init_msra(conv)
            self.convs.append(conv)
        self.fc1 = nn.Linear(channels * ((side + 1) // 2) ** 2, width)
        self.fc2 = nn.Linear(width, width)
        self.predictor = nn.Linear(width, 1)
        init_xavier(self.fc1)
        init_xavier(self.fc2)
        init_normal(self.predictor, 0.01)

    def forward(self, x: Tensor, mask_logits: Tensor) -> Tensor:
        """See the class."""
        mask = F.max_pool2d(mask_logits.sigmoid()[:, None], kernel_size=2)
        x = torch.cat([x, mask.to(x.dtype)], dim=1)
        for conv in self.convs:
            x = F.relu_(conv(x))
        x = F.relu_(self.fc1(x.flatten(1)))
        return self.predictor(F.relu_(self.fc2(x)))[:, 0]
