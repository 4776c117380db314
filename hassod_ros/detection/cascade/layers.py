"""Convolution with its normalisation inside, named as in Detectron2 (`conv1.weight`, `conv1.norm.weight`)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d


def build_norm(kind: str, channels: int) -> nn.Module | None:
    """A normalisation layer of `DetectorConfig.backbone_norm` or `fpn_norm`; None for "none"."""
    if kind == "none":
        return None
    return {"batch": nn.BatchNorm2d, "sync": nn.SyncBatchNorm, "frozen": FrozenBatchNorm2d}[kind](channels)


class Conv(nn.Conv2d):
    """2-D convolution that keeps the spatial size up to its stride, then normalisation; bias only without it."""

    def __init__(self, inputs: int, outputs: int, kernel: int, *, stride: int = 1, norm: str = "none") -> None:
        super().__init__(inputs, outputs, kernel, stride=stride, padding=kernel // 2, bias=norm == "none")
        self.norm = build_norm(norm, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, H / stride, W / stride)."""
        x = super().forward(x)
        return x if self.norm is None else self.norm(x)


@torch.no_grad()
def init_xavier(layer: nn.Conv2d | nn.Linear) -> None:
    """Uniform weights of variance 1 / fan-in, as Caffe2's XavierFill; bias 0."""
    nn.init.kaiming_uniform_(layer.weight, a=1)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


@torch.no_grad()
def init_msra(layer: nn.Conv2d | nn.ConvTranspose2d) -> None:
    """Normal weights of variance 2 / fan-out, as Caffe2's MSRAFill; bias 0."""
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


@torch.no_grad()
def init_normal(layer: nn.Conv2d | nn.Linear, std: float) -> None:
    """Normal weights; bias 0."""
    nn.init.normal_(layer.weight, std=std)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
