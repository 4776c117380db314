"""Student and teacher: the small ViT with lightly's head, and the losses between them."""

from __future__ import annotations

import warnings

import torch
from lightly.loss.dino_loss import DINOLoss
from lightly.loss.ibot_loss import IBOTPatchLoss
from lightly.models.modules.heads import DINOProjectionHead
from lightly.models.modules.masked_vision_transformer_timm import MaskedVisionTransformerTIMM
from torch import Tensor, nn

from hassod_ros.discovery.features.tiny import build_tiny
from hassod_ros.learning.pretraining.config import PretrainConfig


class Network(nn.Module):
    """ViT and head; class token and patches share the head, as in iBOT.

    Positions are fixed sines and cosines: the ViT is later run on grids several times as large as in training, where
    learnt positions are no better than their interpolation.
    """

    def __init__(self, config: PretrainConfig) -> None:
        super().__init__()
        self.backbone = MaskedVisionTransformerTIMM(build_tiny(config.architecture))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # lightly keeps the older weight_norm
            self.head = DINOProjectionHead(
                config.width,
                config.head_width,
                output_dim=config.prototypes,
                freeze_last_layer=config.frozen_prototypes,
            )

    def forward(
        self, views: Tensor, masks: Tensor | None = None, chosen: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Outputs of class tokens and of some patches.

        Args:
            views: (B, 3, H, W) float32, normalised; H = W.
            masks: (B, h, w) bool, patches that the network does not see. Default: none.
            chosen: (B, h, w) bool, N patches whose outputs are wanted. Default: none.

        Returns:
            (B, K) of the class tokens and (N, K) of the chosen patches, float32.

        """
        prefix = self.backbone.vit.num_prefix_tokens
        if masks is not None:
            masks = nn.functional.pad(masks.flatten(1), (prefix, 0))  # class token and registers are always seen
        tokens = self.backbone.encode(views, mask=masks)  # (B, prefix + h * w, C)
        wanted = [tokens[:, 0]]
        if chosen is not None:
            wanted.append(tokens[:, prefix:][chosen.flatten(1)])
        outputs = self.head(torch.cat(wanted)).float()
        return outputs[: len(tokens)], outputs[len(tokens) :]


class Losses(nn.Module):
    """DINO between views, and iBOT on masked patches of the same view; lightly's, with their moving centres."""

    def __init__(self, config: PretrainConfig) -> None:
        super().__init__()
        self.views = DINOLoss(config.prototypes)
        self.patches = IBOTPatchLoss(config.prototypes)
        self._dense_weight = config.dense_weight

    def forward(
        self,
        student: Network,
        teacher: Network,
        large: Tensor,
        small: list[Tensor],
        masks: Tensor | None,
        temperature: float,
    ) -> dict[str, Tensor]:
        """Weighted losses of one step by name.

        Args:
            student: Learns.
            teacher: Its moving average.
            large: (2B, 3, H, W) both large views of each picture, all first ones before all second ones.
            small: (B, 3, H', W') each.
            masks: (2B, h, w) bool patches of `large` that the student does not see, or None.
            temperature: Of the teacher.

        """
        with torch.no_grad():
            wanted_views, wanted_patches = teacher(large, chosen=masks)
        views, patches = student(large, masks, masks)
        outputs = list(views.chunk(2))
        if small:
            outputs += student(torch.cat(small))[0].chunk(len(small))
        losses = {"views": self.views(list(wanted_views.chunk(2)), outputs, teacher_temp=temperature)}
        if masks is not None:
            patch_loss = self.patches(wanted_patches, patches, masks, teacher_temp=temperature)
            losses["patches"] = self._dense_weight * patch_loss
        return losses
