"""Student and teacher: the small ViT with its heads, and the losses that the student learns by."""

from __future__ import annotations

import warnings
from typing import NamedTuple

import torch
from lightly.loss.dino_loss import DINOLoss
from lightly.loss.ibot_loss import IBOTPatchLoss
from lightly.models.modules.heads import DINOProjectionHead
from lightly.models.modules.masked_vision_transformer_timm import MaskedVisionTransformerTIMM
from torch import Tensor, nn

from hassod_ros.discovery.features.tiny import build_tiny
from hassod_ros.learning.pretraining.config import PretrainConfig
from hassod_ros.learning.pretraining.descriptors import CHANNELS
from hassod_ros.learning.pretraining.views import Views


class Outputs(NamedTuple):
    """What a network says of B views, float32.

    Attributes:
        views: (B, K) of class tokens.
        patches: (N, K) of the chosen patches.
        descriptors: (B, h * w, 12) of all patches; None: it was not built to predict them.

    """

    views: Tensor
    patches: Tensor
    descriptors: Tensor | None


class Network(nn.Module):
    """ViT and heads; class token and patches share one, as in iBOT.

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
        self.descriptors = nn.Linear(config.width, CHANNELS) if config.learns_descriptors else None

    def forward(self, views: Tensor, masks: Tensor | None = None, chosen: Tensor | None = None) -> Outputs:
        """Outputs of class tokens, of some patches, and the descriptors of all.

        Args:
            views: (B, 3, H, W) float32, normalised; H = W.
            masks: (B, h, w) bool, patches that the network does not see. Default: none.
            chosen: (B, h, w) bool, N patches whose outputs are wanted. Default: none.

        """
        prefix = self.backbone.vit.num_prefix_tokens
        if masks is not None:
            masks = nn.functional.pad(masks.flatten(1), (prefix, 0))  # class token and registers are always seen
        tokens = self.backbone.encode(views, mask=masks)  # (B, prefix + h * w, C)
        wanted = [tokens[:, 0]]
        if chosen is not None:
            wanted.append(tokens[:, prefix:][chosen.flatten(1)])
        outputs = self.head(torch.cat(wanted)).float()
        described = None if self.descriptors is None else self.descriptors(tokens[:, prefix:]).float()
        return Outputs(outputs[: len(tokens)], outputs[len(tokens) :], described)


class Losses(nn.Module):
    """DINO between views and iBOT on masked patches of the same view, and MaskFeat on what patches look like.

    The first two are lightly's, with their moving centres. MaskFeat (Wei et al., "Masked feature prediction for
    self-supervised visual pre-training", CVPR 2022) predicts HOG of masked patches; here it is colour and texture of
    all patches: what is predicted is smoothed along regions, so that those which are seen have something to learn, too.
    """

    def __init__(self, config: PretrainConfig) -> None:
        super().__init__()
        self.views = DINOLoss(config.prototypes)
        self.patches = IBOTPatchLoss(config.prototypes)
        self._config = config

    def forward(self, student: Network, teacher: Network, views: Views, temperature: float) -> dict[str, Tensor]:
        """Weighted losses of one step by name.

        Args:
            student: Learns.
            teacher: Its moving average.
            views: Of B pictures.
            temperature: Of the teacher.

        """
        config, losses = self._config, dict[str, Tensor]()
        chosen = views.masks if config.learns_patches else None
        seen = student(views.large, views.masks, chosen)
        if config.learns_views or config.learns_patches:
            with torch.no_grad():
                wanted = teacher(views.large, chosen=chosen)
        if config.learns_views:
            outputs = list(seen.views.chunk(2))
            if views.small:
                outputs += student(torch.cat(views.small)).views.chunk(len(views.small))
            view_loss = self.views(list(wanted.views.chunk(2)), outputs, teacher_temp=temperature)
            losses["views"] = config.views_weight * view_loss
        if config.learns_patches:
            patch_loss = self.patches(wanted.patches, seen.patches, chosen, teacher_temp=temperature)
            losses["patches"] = config.dense_weight * patch_loss
        if seen.descriptors is not None and views.descriptors is not None:
            described = nn.functional.smooth_l1_loss(seen.descriptors, views.descriptors)
            losses["descriptors"] = config.descriptor_weight * described
        return losses
