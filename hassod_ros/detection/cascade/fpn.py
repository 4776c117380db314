"""Feature pyramids p2 ... p6 (strides 4 ... 64) over a trunk.

FPN: Lin et al., "Feature Pyramid Networks". Simple feature pyramid: Li et al., "Exploring Plain Vision Transformer
Backbones for Object Detection".
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from hassod_ros.detection.cascade.backbone import MobileNetV3Large, ResNet, Vit
from hassod_ros.detection.cascade.config import DetectorConfig
from hassod_ros.detection.cascade.layers import Conv, init_xavier

STRIDES = (4, 8, 16, 32, 64)
SIZE_DIVISOR = 32  # images are padded to a multiple


def build_backbone(config: DetectorConfig) -> Fpn | SimplePyramid:
    """Trunk and pyramid of a config.

    Raises:
        InputError: No such trunk.

    """
    if config.backbone in ("resnet50", "resnet18"):
        depth = int(config.backbone.removeprefix("resnet"))
        trunk = ResNet(depth, norm=config.backbone_norm, width=config.backbone_width)
        return Fpn(trunk, channels=config.fpn_channels, norm=config.fpn_norm)
    if config.backbone == "mobilenet_v3_large":
        return Fpn(MobileNetV3Large(norm=config.backbone_norm), channels=config.fpn_channels, norm=config.fpn_norm)
    return SimplePyramid(Vit(config.backbone), channels=config.fpn_channels, norm=config.fpn_norm)


class Fpn(nn.Module):
    """Top-down pyramid; p6 is p5 without every second row and column."""

    def __init__(self, bottom_up: ResNet | MobileNetV3Large, *, channels: int, norm: str) -> None:
        super().__init__()
        for i, inputs in enumerate(bottom_up.channels):
            lateral = Conv(inputs, channels, 1, norm=norm)
            output = Conv(channels, channels, 3, norm=norm)
            init_xavier(lateral)
            init_xavier(output)
            self.add_module(f"fpn_lateral{i + 2}", lateral)
            self.add_module(f"fpn_output{i + 2}", output)
        self.bottom_up = bottom_up

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, 3, H, W), H and W multiples of 32 -> p2 ... p6, each (B, C, H / stride, W / stride)."""
        maps = self.bottom_up(x)
        pyramid: list[Tensor] = []
        top = None
        for level in (5, 4, 3, 2):
            lateral = getattr(self, f"fpn_lateral{level}")(maps[level - 2])
            top = lateral if top is None else lateral + F.interpolate(top, scale_factor=2.0, mode="nearest")
            pyramid.insert(0, getattr(self, f"fpn_output{level}")(top))
        return [*pyramid, _coarsen(pyramid[-1])]


class SimplePyramid(nn.Module):
    """Every level from the ViT's one map, by transposed convolutions or pooling."""

    def __init__(self, net: Vit, *, channels: int, norm: str) -> None:
        from timm.layers.norm import LayerNorm2d  # needed for this trunk only

        super().__init__()
        for i, stride in enumerate(STRIDES[:4]):
            layers: list[nn.Module] = []
            inputs, now = net.channels, net.stride
            while now > stride:
                layers.append(nn.ConvTranspose2d(inputs, inputs // 2, kernel_size=2, stride=2))
                inputs, now = inputs // 2, now // 2
                if now > stride:
                    layers += [LayerNorm2d(inputs), nn.GELU()]
            while now < stride:
                layers.append(nn.MaxPool2d(2))
                now *= 2
            layers += [Conv(inputs, channels, 1, norm=norm), Conv(channels, channels, 3, norm=norm)]
            self.add_module(f"simfp_{i + 2}", nn.Sequential(*layers))
        self.bottom_up = net

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, 3, H, W) -> p2 ... p6, see `Fpn`."""
        x = self.bottom_up(x)
        pyramid = [getattr(self, f"simfp_{level}")(x) for level in (2, 3, 4, 5)]
        return [*pyramid, _coarsen(pyramid[-1])]


def _coarsen(p5: Tensor) -> Tensor:
    return F.max_pool2d(p5, kernel_size=1, stride=2)
