"""What a Mask2Former is made of, as plain values that fit into a YAML recipe."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from hassod_ros.detection.cascade.config import NORMS
from hassod_ros.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Mask2FormerConfig:
    """Class-agnostic Mask2Former (Cheng et al., CVPR 2022) with an ancestor head (SOHES, section 3.2).

    Points, weights of the losses and sampled targets are those of UnSAM, SOHES' nearest public relative; the weight of
    the ancestor loss and its limit are ours, the paper's are not public.

    Attributes:
        backbone: "resnet50", "resnet18", "mobilenet_v3_large", or the timm name of a ViT with 8 or 16 pixel patches.
        backbone_width: Factor on the channels of a ResNet.
        backbone_norm: "batch", "sync" (over all processes) or "frozen". A ViT keeps its layer normalisation.
        queries: Most things that are found in an image.
        width: Channels of pixel decoder, queries and masks; a multiple of 32.
        heads: Attention heads; they divide `width`.
        encoder_layers: Deformable layers of the pixel decoder.
        decoder_layers: Layers in which queries look at the image.
        feedforward: Width of the feed-forward layers.
        points: At which masks are compared, in matching and in the losses; all cells of 4 x 4 pixels, where these are
            no more.
        max_targets: Objects of an image that are learned at a time; more are sampled.
        no_object_weight: Of queries that found nothing, in the class loss.
        class_weight: Of the class loss.
        mask_loss_weight: Of the masks' cross entropy.
        dice_weight: Of the masks' dice loss.
        ancestor_weight: Of the ancestor loss.
        ancestor_limit: Most that a pair of descendant and ancestor counts; the rare pairs count as much as all others.
        cover: Share of a mask that an ancestor of it must contain, besides what the head says; 0: the head alone.
        score_threshold: Detections must score higher.
        mask_threshold: Probability above which a pixel belongs to a mask.
        detections: Most detections of an image.
        pixel_mean: RGB, subtracted from values 0 ... 255.
        pixel_std: RGB, divides afterwards.

    Raises:
        InputError: A value that no detector can be built from.

    """

    backbone: str = "resnet50"
    backbone_width: float = 1.0
    backbone_norm: str = "batch"
    queries: int = 100
    width: int = 256
    heads: int = 8
    encoder_layers: int = 6
    decoder_layers: int = 9
    feedforward: int = 1024
    points: int = 12544
    max_targets: int = 200
    no_object_weight: float = 0.1
    class_weight: float = 2.0
    mask_loss_weight: float = 5.0
    dice_weight: float = 5.0
    ancestor_weight: float = 1.0
    ancestor_limit: float = 20.0
    cover: float = 0.5
    score_threshold: float = 0.0
    mask_threshold: float = 0.5
    detections: int = 100
    pixel_mean: tuple[float, float, float] = (123.675, 116.28, 103.53)
    pixel_std: tuple[float, float, float] = (58.395, 57.12, 57.375)

    def __post_init__(self) -> None:
        if self.backbone_norm not in NORMS[1:]:
            raise InputError(f"backbone_norm is {self.backbone_norm!r}; choose one of {', '.join(NORMS[1:])}")
        names = ("queries", "heads", "encoder_layers", "decoder_layers", "feedforward", "points", "max_targets")
        for name in (*names, "detections"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, it is {getattr(self, name)}")
        if self.width < 32 or self.width % 32 or self.width % self.heads:
            raise InputError(f"width must be a multiple of 32 and of heads {self.heads}, it is {self.width}")
        for name in ("no_object_weight", "class_weight", "mask_loss_weight", "dice_weight", "ancestor_weight"):
            if not getattr(self, name) >= 0:
                raise InputError(f"{name} must not be negative, it is {getattr(self, name)}")
        if not self.ancestor_limit >= 1:
            raise InputError(f"ancestor_limit must be at least 1, it is {self.ancestor_limit}")
        if not 0 <= self.cover <= 1:
            raise InputError(f"cover must lie in [0, 1], it is {self.cover}")
        if not 0 < self.mask_threshold < 1:
            raise InputError(f"mask_threshold must lie between 0 and 1, it is {self.mask_threshold}")
        if min(self.pixel_std) <= 0:
            raise InputError(f"pixel_std is {self.pixel_std}; give positive values")

    def changed(self, **values: Any) -> Mask2FormerConfig:
        """A copy with other values; None keeps what there is.

        Raises:
            InputError: See the class.

        """
        given = {name: value for name, value in values.items() if value is not None}
        for name in given:
            if name not in {field.name for field in dataclasses.fields(self)}:
                raise InputError(f"Mask2Former has no {name}; leave it out")
        return dataclasses.replace(self, **given)
