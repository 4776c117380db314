"""Cascade Mask R-CNN with level heads: the whole detector.

The parameters have Detectron2's names, and the arithmetic follows its conventions, so that weights can be exchanged
(see `checkpoints`).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hassod_ros.detection.cascade.config import DetectorConfig
from hassod_ros.detection.cascade.fpn import SIZE_DIVISOR, build_backbone
from hassod_ros.detection.cascade.roi_heads import RoiHeads
from hassod_ros.detection.cascade.rpn import Rpn
from hassod_ros.detection.detections import Detections


class CascadeMaskRCNN(nn.Module):
    """Images in, detections out.

    Calling the model runs inference, in evaluation mode or, for a teacher, in training mode (then with batch statistics
    and the training limits of the proposals). The losses are in `hassod_ros.detection.cascade.losses`.

    Args:
        config: What to build. Weights are initialised as in Detectron2, from torch's random state.

    """

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(self, config: DetectorConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = build_backbone(config)
        self.proposal_generator = Rpn(config)
        self.roi_heads = RoiHeads(config)
        self.register_buffer("pixel_mean", torch.tensor(config.pixel_mean).view(3, 1, 1), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(config.pixel_std).view(3, 1, 1), persistent=False)

    def normalize(self, images: Tensor, sizes: Sequence[tuple[int, int]]) -> Tensor:
        """Standardise pixels, zero the padding and pad on to a multiple of 32.

        Args:
            images: (B, 3, H, W) RGB, 0 ... 255, any dtype; each image in the upper left corner.
            sizes: (height, width) of each image.

        """
        x = (images - self.pixel_mean) / self.pixel_std
        height, width = x.shape[2:]
        if any(size != (height, width) for size in sizes):
            for image, (rows, columns) in zip(x, sizes, strict=True):
                image[:, rows:] = 0
                image[:, :, columns:] = 0
        return F.pad(x, (0, -width % SIZE_DIVISOR, 0, -height % SIZE_DIVISOR))

    def pyramid(self, images: Tensor, sizes: Sequence[tuple[int, int]]) -> list[Tensor]:
        """Feature maps p2 ... p6 of `images`; arguments as in `normalize`."""
        return self.backbone(self.normalize(images, sizes))

    def forward(self, images: Tensor, sizes: Sequence[tuple[int, int]] | None = None) -> list[Detections]:
        """Detections of each image.

        Args:
            images: (B, 3, H, W) RGB, 0 ... 255, any dtype; smaller images in the upper left corner.
            sizes: (height, width) of each image without its padding. Default: no padding.

        """
        sizes = [(images.shape[2], images.shape[3])] * len(images) if sizes is None else sizes
        pyramid = self.pyramid(images, sizes)
        proposals = self.proposal_generator.propose(self.proposal_generator(pyramid), sizes)
        return self.roi_heads.detect(pyramid, [each.boxes for each in proposals], sizes)
