"""Box stages and mask head on pooled features (Cai and Vasconcelos, "Cascade R-CNN"; HASSOD, section 3.2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import nms, roi_align

from hassod_ros.detection.boxes import box_limits, clip_boxes, decode_boxes, to_rois
from hassod_ros.detection.cascade.config import DetectorConfig
from hassod_ros.detection.cascade.fpn import STRIDES
from hassod_ros.detection.cascade.layers import init_normal, init_xavier
from hassod_ros.detection.cascade.mask_head import MaskHead
from hassod_ros.detection.detections import Detections
from hassod_ros.instances import Level

OBJECT, BACKGROUND = 0, 1  # columns of the class logits, in Detectron2's order
_CANONICAL_LEVEL = 4  # of boxes of the canonical size (FPN, equation 1)


@dataclass(frozen=True, eq=False)
class StageOutput:
    """What one box stage says about M boxes: logits (M, 2), deltas (M, 4), level logits (M, 3) or None."""

    class_logits: Tensor
    deltas: Tensor
    level_logits: Tensor | None


def assign_levels(boxes: Tensor, canonical: float = 224.0) -> Tensor:
    """(M,) int64, 0 ... 3: the map of p2 ... p5 whose scale suits each of the boxes (M, 4); `canonical` pixels: p4."""
    size = (boxes[:, 2:] - boxes[:, :2]).prod(dim=1).sqrt()
    level = torch.floor(_CANONICAL_LEVEL + torch.log2(size / canonical + 1e-8))
    return level.clamp(2, 5).long() - 2


def pool_features(
    pyramid: Sequence[Tensor], rois: Tensor, side: int, canonical: float = 224.0, sampling_ratio: int = 0
) -> Tensor:
    """RoIAlign, each box from the level that suits it.

    Args:
        pyramid: p2 ... p5 or more, (B, C, H, W).
        rois: (M, 5) float32, image index and box in image pixels.
        side: Cells of the output along each side.
        canonical: See `DetectorConfig.canonical_box` and `canonical_mask`.
        sampling_ratio: See `DetectorConfig`.

    Returns:
        (M, C, side, side) float32.

    """
    rois = rois.nan_to_num()  # of a network that diverged
    level = assign_levels(rois[:, 1:], canonical)
    if torch.is_grad_enabled() and rois.device.type == "cpu":
        from hassod_ros.detection.cascade.roi_align import roi_align_pyramid  # compiled: only training needs numba

        maps = [each.float() for each in pyramid[:4]]
        return roi_align_pyramid(maps, rois, level, STRIDES[:4], side, sampling_ratio)
    # Sorted by level, so that a GPU is asked once how many there are of each.
    order, counts = level.argsort(stable=True), F.one_hot(level, 4).sum(0).tolist()
    pooled = [
        # float32 also under autocast: box coordinates need it.
        roi_align(level_map.float(), part, side, 1 / stride, sampling_ratio, aligned=True)
        for level_map, part, stride in zip(pyramid, rois[order].split(counts), STRIDES[:4], strict=False)
    ]
    return torch.cat(pooled)[order.argsort()]


class BoxHead(nn.Module):
    """Fully connected layers over pooled features: (M, C, S, S) -> (M, width)."""

    def __init__(self, inputs: int, width: int, layers: int) -> None:
        super().__init__()
        self.layers = layers
        for i in range(layers):
            layer = nn.Linear(inputs if i == 0 else width, width)
            init_xavier(layer)
            self.add_module(f"fc{i + 1}", layer)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        x = x.flatten(1)
        for i in range(self.layers):
            x = F.relu_(getattr(self, f"fc{i + 1}")(x))
        return x


class BoxPredictor(nn.Module):
    """Object or background, box, level of M boxes."""

    def __init__(self, width: int, *, level_head: bool) -> None:
        super().__init__()
        self.cls_score = nn.Linear(width, 2)
        self.bbox_pred = nn.Linear(width, 4)
        self.level_predictor = nn.Linear(width, len(Level)) if level_head else None
        init_normal(self.cls_score, 0.01)
        init_normal(self.bbox_pred, 0.001)
        if self.level_predictor is not None:
            init_normal(self.level_predictor, 0.01)

    def forward(self, x: Tensor) -> StageOutput:
        """(M, width) -> predictions."""
        levels = None if self.level_predictor is None else self.level_predictor(x)
        return StageOutput(self.cls_score(x), self.bbox_pred(x), levels)


class RoiHeads(nn.Module):
    """All that happens after proposals. Learning calls the parts, `detect` runs them for inference."""

    def __init__(self, config: DetectorConfig) -> None:
        super().__init__()
        self.config = config
        stages, inputs = len(config.stage_ious), config.fpn_channels
        self.box_head = nn.ModuleList(
            BoxHead(inputs * config.box_pool**2, config.box_width, config.box_layers) for _ in range(stages)
        )
        self.box_predictor = nn.ModuleList(
            BoxPredictor(config.box_width, level_head=config.level_head) for _ in range(stages)
        )
        self.mask_head = MaskHead(inputs, config.mask_channels, config.mask_layers)

    def box_stage(self, stage: int, pyramid: Sequence[Tensor], rois: Tensor) -> StageOutput:
        """Predictions of one stage for `rois` (M, 5)."""
        config = self.config
        pooled = pool_features(pyramid, rois, config.box_pool, config.canonical_box, config.sampling_ratio)
        if pooled.requires_grad:
            # The losses of the stages are added; the pyramid under them gets their mean (Detectron2).
            pooled.register_hook(lambda gradient: gradient / len(self.box_head))
        return self.box_predictor[stage](self.box_head[stage](pooled))

    def decode(self, stage: int, rois: Tensor, output: StageOutput) -> Tensor:
        """(M, 4) float32 boxes that a stage predicts, not yet clipped."""
        return decode_boxes(rois[:, 1:], output.deltas, self.config.stage_box_weights[stage])

    def run_stages(
        self, pyramid: Sequence[Tensor], rois: Tensor, sizes: Sequence[tuple[int, int]]
    ) -> tuple[list[StageOutput], Tensor]:
        """All stages, each on the boxes of the one before it.

        Returns:
            The stages' outputs, and the boxes (M, 4) of the last one, inside their images.

        """
        limits = box_limits(sizes, rois)[rois[:, 0].long()]  # (M, 4)
        outputs = []
        for stage in range(len(self.box_head)):
            output = self.box_stage(stage, pyramid, rois)
            rois = torch.cat([rois[:, :1], clip_boxes(self.decode(stage, rois, output), limits)], dim=1)
            outputs.append(output)
        return outputs, rois[:, 1:]

    def masks(self, pyramid: Sequence[Tensor], rois: Tensor) -> Tensor:
        """Mask logits (M, S, S) of `rois` (M, 5)."""
        config = self.config
        pooled = pool_features(pyramid, rois, config.mask_pool, config.mask_scale, config.sampling_ratio)
        logits: Tensor = self.mask_head(pooled)
        return logits

    def detect(
        self, pyramid: Sequence[Tensor], proposals: Sequence[Tensor], sizes: Sequence[tuple[int, int]]
    ) -> list[Detections]:
        """Detections of B images.

        Scores and levels are means over the stages, boxes come from the last one.

        Args:
            pyramid: p2 ... p6, (B, C, H, W).
            proposals: Boxes (R, 4) of each image.
            sizes: (height, width) of each image without padding.

        """
        counts = [len(each) for each in proposals]
        outputs, boxes = self.run_stages(pyramid, to_rois(proposals), sizes)
        scores = torch.stack([output.class_logits.float().softmax(1)[:, OBJECT] for output in outputs]).mean(0)
        levels = _mean_levels(outputs, len(boxes))
        kept = []
        for box, score, level in zip(boxes.split(counts), scores.split(counts), levels.split(counts), strict=True):
            valid = torch.isfinite(box).all(dim=1) & (score > self.config.score_threshold)  # a NaN score fails, too
            box, score, level = box[valid], score[valid], level[valid]
            keep = nms(box, score, self.config.nms)[: self.config.detections]
            kept.append((box[keep], score[keep], level[keep]))
        masks = self.masks(pyramid, to_rois([box for box, _, _ in kept])).float().sigmoid()
        parts = masks.split([len(box) for box, _, _ in kept])
        return [Detections(*found, mask, size) for found, mask, size in zip(kept, parts, sizes, strict=True)]


def _mean_levels(outputs: Sequence[StageOutput], count: int) -> Tensor:
    """(M, 3) probabilities; (M, 0) without level heads."""
    logits = [output.level_logits for output in outputs if output.level_logits is not None]
    if not logits:
        return outputs[0].class_logits.new_zeros(count, 0)
    return torch.stack([each.float().softmax(1) for each in logits]).mean(0)
