"""Trunks: image -> four feature maps of strides 4, 8, 16, 32 (or one map, for a ViT).

ResNet: He et al., "Deep Residual Learning". MobileNetV3: Howard et al., "Searching for MobileNetV3".
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import mobilenet_v3_large
from torchvision.ops import FrozenBatchNorm2d

from hassod_ros.detection.cascade.layers import Conv, init_msra
from hassod_ros.errors import InputError


class Stem(nn.Module):
    """7x7 convolution and maximum pooling: stride 4."""

    def __init__(self, outputs: int, norm: str) -> None:
        super().__init__()
        self.conv1 = Conv(3, outputs, 7, stride=2, norm=norm)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, outputs, H / 4, W / 4)."""
        return F.max_pool2d(F.relu_(self.conv1(x)), kernel_size=3, stride=2, padding=1)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    def __init__(self, inputs: int, outputs: int, *, stride: int, norm: str) -> None:
        super().__init__()
        same = inputs == outputs and stride == 1
        self.shortcut = None if same else Conv(inputs, outputs, 1, stride=stride, norm=norm)
        self.conv1 = Conv(inputs, outputs, 3, stride=stride, norm=norm)
        self.conv2 = Conv(outputs, outputs, 3, norm=norm)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, H / stride, W / stride)."""
        y = self.conv2(F.relu_(self.conv1(x)))
        return F.relu_(y + (x if self.shortcut is None else self.shortcut(x)))


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 convolutions and a shortcut; the inner width is a quarter."""

    def __init__(self, inputs: int, outputs: int, *, stride: int, norm: str) -> None:
        super().__init__()
        inner = outputs // 4
        self.shortcut = None if inputs == outputs else Conv(inputs, outputs, 1, stride=stride, norm=norm)
        self.conv1 = Conv(inputs, inner, 1, norm=norm)
        self.conv2 = Conv(inner, inner, 3, stride=stride, norm=norm)
        self.conv3 = Conv(inner, outputs, 1, norm=norm)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, H / stride, W / stride)."""
        y = self.conv3(F.relu_(self.conv2(F.relu_(self.conv1(x)))))
        return F.relu_(y + (x if self.shortcut is None else self.shortcut(x)))


class ResNet(nn.Module):
    """ResNet-18 or -50 without its classifier, named as in Detectron2."""

    def __init__(self, depth: int, *, norm: str, width: float = 1.0) -> None:
        super().__init__()
        block: Callable[..., nn.Module] = BasicBlock
        counts, channels = (2, 2, 2, 2), (64, 128, 256, 512)
        if depth == 50:
            block = Bottleneck
            counts, channels = (3, 4, 6, 3), (256, 512, 1024, 2048)
        self.channels = tuple(round(width * each) for each in channels)
        inputs = round(width * 64)
        self.stem = Stem(inputs, norm)
        for i, (count, outputs) in enumerate(zip(counts, self.channels, strict=True)):
            blocks = []
            for j in range(count):
                blocks.append(block(inputs, outputs, stride=2 if i and not j else 1, norm=norm))
                inputs = outputs
            self.add_module(f"res{i + 2}", nn.Sequential(*blocks))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                init_msra(module)

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, 3, H, W) -> [(B, C, H / 4, W / 4), ..., (B, C, H / 32, W / 32)]."""
        x = self.stem(x)
        maps = []
        for name in ("res2", "res3", "res4", "res5"):
            x = getattr(self, name)(x)
            maps.append(x)
        return maps


class MobileNetV3Large(nn.Module):
    """Torchvision's MobileNetV3-Large up to its last inverted residual."""

    channels = (24, 40, 112, 160)
    _taps = (3, 6, 12, 15)  # last layer of each stride

    def __init__(self, *, norm: str) -> None:
        super().__init__()
        layer: type[nn.Module] | partial = FrozenBatchNorm2d
        if norm != "frozen":  # the published values of eps and momentum
            layer = partial(nn.SyncBatchNorm if norm == "sync" else nn.BatchNorm2d, eps=0.001, momentum=0.01)
        self.features = mobilenet_v3_large(norm_layer=layer).features[: self._taps[-1] + 1]

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, 3, H, W) -> four maps, see `ResNet`."""
        maps = []
        for i, layer in enumerate(self.features):
            x = layer(x)
            if i in self._taps:
                maps.append(x)
        return maps


class Vit(nn.Module):
    """The last map of a timm ViT; positions are interpolated to the image's size."""

    net: Any

    def __init__(self, name: str) -> None:
        import timm  # needed for this trunk only

        super().__init__()
        if not timm.is_model(name) or "vit" not in name:
            raise InputError(
                f"backbone is {name!r}; choose resnet50, resnet18, mobilenet_v3_large or a ViT that timm lists"
            )
        self.net = timm.create_model(name, pretrained=False, num_classes=0, dynamic_img_size=True)
        self.stride: int = self.net.patch_embed.patch_size[0]
        self.channels: int = self.net.embed_dim
        if self.stride not in (8, 16):
            raise InputError(f"backbone {name} has patches of {self.stride} pixels; choose a ViT with 8 or 16")

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, C, H / stride, W / stride)."""
        return self.net.forward_intermediates(x, indices=1, norm=True, intermediates_only=True)[0]
