"""What a detector is made of, as plain values that fit into a YAML recipe."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar

from hassod_ros.errors import InputError

NORMS = ("none", "batch", "sync", "frozen")


@dataclass(frozen=True, kw_only=True)
class DetectorConfig:
    """Cascade Mask R-CNN; the defaults are HASSOD's (ResNet-50-FPN, three stages, level heads).

    One entry in `stage_ious` makes a plain Mask R-CNN (HASSOD, appendix C). What stands without a choice below the
    settings is the same in Detectron2, in the published weights and in ours.

    Attributes:
        backbone: "resnet50", "resnet18", "mobilenet_v3_large", or the timm name of a ViT with 8 or 16 pixel patches.
        backbone_width: Factor on the channels of a ResNet; published weights need 1.
        backbone_norm: "batch", "sync" (over all processes) or "frozen". A ViT keeps its layer normalisation.
        fpn_norm: Normalisation of the pyramid's convolutions: "none" or one of the above.
        fpn_channels: Channels of the pyramid and of the region proposal head.
        anchor_sizes: Root of the anchors' area on p2 ... p6, in pixels.
        rpn_nms: IoU above which the lower of two proposals of one pyramid level is dropped.
        rpn_pre_nms: Best anchors of each level that enter suppression, (training, test).
        rpn_post_nms: Proposals of an image, (training, test).
        rpn_samples: Anchors of an image in the loss.
        stage_ious: IoU from which a box counts as foreground, one for each box stage.
        box_samples: Proposals of an image in the loss.
        box_positive: Largest share of foreground among them.
        canonical_box: Side in pixels from which a box is pooled from p4; from half of it p3, from twice of it p5.
            Pictures of 320 pixels want less than the published 224: boxes then span fewer cells, which is faster.
        canonical_mask: The same for the features of masks, whose outlines want more cells; null: canonical_box.
        sampling_ratio: Samples along each side of a pooled cell; 0: one for each cell of the map that it spans, as in
            Detectron2. 1 is faster, and where boxes span few cells it costs no recall (docs/model_card.md).
        box_layers: Fully connected layers of a box head.
        box_width: Their width.
        level_head: Predict whole, part or subpart in every stage.
        mask_layers: 3x3 convolutions of the mask head.
        mask_channels: Their channels.
        score_threshold: Detections must score higher.
        nms: IoU above which the lower of two detections is dropped.
        mask_threshold: Probability above which a pixel belongs to a mask.
        detections: Most detections of an image.

    Raises:
        InputError: A value that no detector can be built from.

    """

    backbone: str = "resnet50"
    backbone_width: float = 1.0
    backbone_norm: str = "batch"
    fpn_norm: str = "batch"
    fpn_channels: int = 256
    anchor_sizes: tuple[float, ...] = (32.0, 64.0, 128.0, 256.0, 512.0)
    rpn_nms: float = 0.65
    rpn_pre_nms: tuple[int, int] = (2000, 1000)
    rpn_post_nms: tuple[int, int] = (4000, 1000)
    rpn_samples: int = 256
    stage_ious: tuple[float, ...] = (0.5, 0.6, 0.7)
    box_samples: int = 512
    box_positive: float = 0.5
    canonical_box: float = 224.0
    canonical_mask: float | None = None
    sampling_ratio: int = 0
    box_layers: int = 2
    box_width: int = 1024
    level_head: bool = True
    mask_layers: int = 4
    mask_channels: int = 256
    score_threshold: float = 0.0
    nms: float = 0.5
    mask_threshold: float = 0.5
    detections: int = 100

    anchor_ratios: ClassVar[tuple[float, ...]] = (0.5, 1.0, 2.0)  # height / width at every place
    rpn_ious: ClassVar[tuple[float, float]] = (0.3, 0.7)  # background below, foreground from there; between: ignored
    rpn_positive: ClassVar[float] = 0.5  # largest share of foreground among `rpn_samples`
    stage_box_weights: ClassVar[tuple[tuple[float, float, float, float], ...]] = (  # of (dx, dy, dw, dh)
        (10.0, 10.0, 5.0, 5.0),
        (20.0, 20.0, 10.0, 10.0),
        (30.0, 30.0, 15.0, 15.0),
    )
    box_pool: ClassVar[int] = 7  # side of the pooled features of a box
    mask_pool: ClassVar[int] = 14  # likewise; masks have twice that side
    pixel_mean: ClassVar[tuple[float, float, float]] = (123.675, 116.28, 103.53)  # RGB, off values 0 ... 255
    pixel_std: ClassVar[tuple[float, float, float]] = (58.395, 57.12, 57.375)  # RGB, divides afterwards

    def __post_init__(self) -> None:
        if self.backbone_norm not in NORMS[1:]:
            raise InputError(f"backbone_norm is {self.backbone_norm!r}; choose one of {', '.join(NORMS[1:])}")
        if not 0.125 <= self.backbone_width <= 4:
            raise InputError(f"backbone_width is {self.backbone_width}; choose a factor from 0.125 to 4")
        if self.backbone_width != 1 and not self.backbone.startswith("resnet"):
            raise InputError(f"backbone_width changes ResNets only; set it to 1 for {self.backbone}")
        if not 0 < self.mask_threshold < 1:
            raise InputError(f"mask_threshold must lie between 0 and 1, it is {self.mask_threshold}")
        for name in ("rpn_nms", "nms"):
            if not 0 < getattr(self, name) <= 1:
                raise InputError(f"{name} must lie above 0 and not above 1, it is {getattr(self, name)}")
        if self.fpn_norm not in NORMS:
            raise InputError(f"fpn_norm is {self.fpn_norm!r}; choose one of {', '.join(NORMS)}")
        if len(self.anchor_sizes) != 5:
            raise InputError(f"anchor_sizes has {len(self.anchor_sizes)} values; give one for each of p2 to p6")
        if not 1 <= len(self.stage_ious) <= len(self.stage_box_weights):
            raise InputError(f"stage_ious has {len(self.stage_ious)} values; give 1 to {len(self.stage_box_weights)}")
        counts = (self.fpn_channels, self.box_layers, self.box_width, self.mask_layers, self.mask_channels)
        if min(*counts, self.detections, *self.rpn_pre_nms, *self.rpn_post_nms) < 1:
            raise InputError("channels, layers, widths and numbers of boxes must be at least 1")
        if self.sampling_ratio < 0:
            raise InputError(f"sampling_ratio must be 0 (by size) or a number of samples, it is {self.sampling_ratio}")
        for name in ("canonical_box", "canonical_mask"):
            if (side := getattr(self, name)) is not None and side <= 0:
                raise InputError(f"{name} must be above 0 pixels, it is {side}")

    @property
    def mask_scale(self) -> float:
        """`canonical_mask`, or `canonical_box` where it is not set."""
        return self.canonical_box if self.canonical_mask is None else self.canonical_mask

    def changed(self, **values: Any) -> DetectorConfig:
        """A copy with other values; None keeps what there is.

        Raises:
            InputError: See the class.

        """
        return dataclasses.replace(self, **{name: value for name, value in values.items() if value is not None})
