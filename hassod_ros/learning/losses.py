"""Losses of the detector: proposals, box stages, levels, masks (HASSOD, sections 3.2 and 4.1, appendix J).

Normalisers and sampling are Detectron2's. DropLoss: Wang et al., "Cut and Learn for Unsupervised Object Detection and
Instance Segmentation", section 3.3.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import roi_align, sigmoid_focal_loss

from hassod_ros.detection.boxes import box_limits, clip_boxes, encode_boxes, has_area, pairwise_iou, to_rois
from hassod_ros.detection.cascade_mask_rcnn import CascadeMaskRCNN
from hassod_ros.detection.config import DetectorConfig
from hassod_ros.detection.roi_heads import BACKGROUND, OBJECT, RoiHeads, StageOutput
from hassod_ros.detection.rpn import RPN_BOX_WEIGHTS, AnchorPredictions
from hassod_ros.learning.matching import POSITIVE, match, sample


@dataclass(frozen=True, eq=False)
class Targets:
    """G objects of one image.

    Attributes:
        boxes: (G, 4) float32 xyxy in pixels of the network's input, each with an area.
        levels: (G,) int64, values of `Level`.
        masks: (G, H, W) bool or uint8 0/1 at the network's input size (padding may be left out); None where the mask
            losses are off.

    """

    boxes: Tensor
    levels: Tensor
    masks: Tensor | None = None


@dataclass(frozen=True, eq=False)
class LabelledRois:
    """M boxes of B images with what they should become.

    Attributes:
        rois: (M, 5) float32, image index and box.
        positive: (M,) bool, foreground.
        boxes: (M, 4) float32, the matched object's box; its own where the image has no object.
        levels: (M,) int64, the matched object's level.
        objects: (M,) int64, the matched object's index in its image.

    """

    rois: Tensor
    positive: Tensor
    boxes: Tensor
    levels: Tensor
    objects: Tensor


def detection_losses(
    model: CascadeMaskRCNN,
    images: Tensor,
    sizes: Sequence[tuple[int, int]],
    targets: Sequence[Targets],
    *,
    drop_loss_iou: float | None = None,
    mask_weight: float = 1.0,
    level_weight: float = 1.0,
    generator: torch.Generator | None = None,
) -> dict[str, Tensor]:
    """All losses of a batch, weighted, under Detectron2's names; train on their sum.

    Every parameter gets a gradient, also where an image or the whole batch has no object.

    Args:
        model: In training mode.
        images: (B, 3, H, W) RGB 0 ... 255, padded.
        sizes: (height, width) of each image.
        targets: Of each image.
        drop_loss_iou: DropLoss: boxes whose IoU with every object is at most this do not count as background, for the
            labels miss objects. HASSOD: 0.01. None: off.
        mask_weight: Weight of the mask losses; 0 leaves the masks out of the targets (HASSOD's teacher branch).
        level_weight: Weight of the level loss.
        generator: Source of chance for sampling, on the model's device; default: torch's own.

    Returns:
        `loss_rpn_cls`, `loss_rpn_loc`, for each stage k `loss_cls_stage{k}`, `loss_box_reg_stage{k}` and
        `loss_level_stage{k}` (with a level head), `loss_mask`, `loss_mask_iou` (with a mask IoU head): scalars.

    """
    heads, config = model.roi_heads, model.config
    pyramid = model.pyramid(images, sizes)
    found = model.proposal_generator(pyramid)
    losses = rpn_losses(found, targets, config, generator)
    proposals = model.proposal_generator.propose(found, sizes)
    first = label_proposals([each.boxes for each in proposals], targets, config, generator)

    labelled = first
    for stage in range(len(config.stage_ious)):
        output = heads.box_stage(stage, pyramid, labelled.rois)
        predicted = heads.decode(stage, labelled.rois, output).detach()
        weights = None
        if drop_loss_iou is not None:
            weights = drop_loss_weights(labelled.rois[:, 0], predicted, targets, drop_loss_iou)
        terms = stage_losses(labelled, output, config.stage_box_weights[stage], weights)
        if "loss_level" in terms:
            terms["loss_level"] = terms["loss_level"] * level_weight
        losses.update({f"{name}_stage{stage}": value for name, value in terms.items()})
        if stage + 1 < len(config.stage_ious):
            labelled = _relabel(labelled.rois[:, 0], predicted, sizes, targets, config.stage_ious[stage + 1])

    masked = torch.nonzero(first.positive)[:, 0] if mask_weight else first.objects[:0]
    terms = mask_losses(heads, pyramid, first.rois[masked], first.objects[masked], targets)
    return losses | {name: value * mask_weight for name, value in terms.items()}


def rpn_losses(
    found: AnchorPredictions,
    targets: Sequence[Targets],
    config: DetectorConfig,
    generator: torch.Generator | None = None,
) -> dict[str, Tensor]:
    """Objectness (cross entropy) and boxes (L1) of sampled anchors, over the number of samples asked for."""
    chosen, labels, anchors, goals = [], [], [], []
    for i, target in enumerate(targets):
        index, label = match(pairwise_iou(target.boxes, found.anchors), *config.rpn_ious, low_quality=True)
        positive, negative = sample(label, config.rpn_samples, config.rpn_positive, generator)
        chosen.append(torch.cat([positive, negative]) + i * len(found.anchors))
        labels.append(torch.cat([torch.ones_like(positive), torch.zeros_like(negative)]))
        anchors.append(found.anchors[positive])
        goals.append(target.boxes[index[positive]])
    index, label = torch.cat(chosen), torch.cat(labels)
    logits = found.logits.flatten()[index].float()
    deltas = found.deltas.flatten(0, 1)[index[label == 1]].float()
    goal = encode_boxes(torch.cat(anchors), torch.cat(goals), RPN_BOX_WEIGHTS)
    count = config.rpn_samples * len(targets)
    return {
        "loss_rpn_cls": F.binary_cross_entropy_with_logits(logits, label.float(), reduction="sum") / count,
        "loss_rpn_loc": (deltas - goal).abs().sum() / count,
    }


@torch.no_grad()
def label_proposals(
    proposals: Sequence[Tensor],
    targets: Sequence[Targets],
    config: DetectorConfig,
    generator: torch.Generator | None = None,
) -> LabelledRois:
    """The first stage's boxes: proposals (R, 4) of each image and its objects' own boxes, matched and sampled."""
    rois, indices, positives = [], [], []
    for boxes, target in zip(proposals, targets, strict=True):
        boxes = torch.cat([boxes, target.boxes])
        index, label = match(pairwise_iou(target.boxes, boxes), config.stage_ious[0], config.stage_ious[0])
        positive, negative = sample(label, config.box_samples, config.box_positive, generator)
        drawn = torch.cat([positive, negative])
        rois.append(boxes[drawn])
        indices.append(index[drawn])
        positives.append(label[drawn] == POSITIVE)
    return _labelled(to_rois(rois), torch.cat(positives), torch.cat(indices), targets)


@torch.no_grad()
def _relabel(
    images: Tensor, boxes: Tensor, sizes: Sequence[tuple[int, int]], targets: Sequence[Targets], iou: float
) -> LabelledRois:
    """A later stage's boxes: all that the stage before predicted, clipped to their images, matched anew."""
    boxes = clip_boxes(boxes, box_limits(sizes, boxes)[images.long()])
    valid = has_area(boxes)
    images, boxes = images[valid], boxes[valid]
    matched = [match(pairwise_iou(t.boxes, boxes[images == i]), iou, iou) for i, t in enumerate(targets)]
    index, label = (torch.cat(each) for each in zip(*matched, strict=True))  # images are in order in `boxes`
    return _labelled(torch.cat([images[:, None], boxes], dim=1), label == POSITIVE, index, targets)


def _labelled(rois: Tensor, positive: Tensor, index: Tensor, targets: Sequence[Targets]) -> LabelledRois:
    boxes, levels = rois[:, 1:].clone(), torch.zeros_like(index)
    for i, target in enumerate(targets):
        if len(target.boxes):
            mine = rois[:, 0] == i
            boxes[mine], levels[mine] = target.boxes[index[mine]], target.levels[index[mine]]
    return LabelledRois(rois, positive, boxes, levels, index)


@torch.no_grad()
def drop_loss_weights(images: Tensor, boxes: Tensor, targets: Sequence[Targets], iou: float) -> Tensor:
    """DropLoss: what may be an object that the labels miss does not count in the class loss.

    The comparison is with all objects of the image; HASSOD's code takes those that happened to be matched.

    Args:
        images: (M,) float, index of each box's image.
        boxes: (M, 4), as a stage predicts them.
        targets: Of each image.
        iou: At most this with every object: weight 0.

    Returns:
        (M,) float32 of 0 and 1; all 0 in an image without objects.

    """
    best = boxes.new_zeros(len(boxes))
    for i, target in enumerate(targets):
        if len(target.boxes):
            mine = images == i
            best[mine] = pairwise_iou(target.boxes, boxes[mine]).max(dim=0).values
    return (best > iou).float()


def stage_losses(
    labelled: LabelledRois, output: StageOutput, box_weights: Sequence[float], weights: Tensor | None = None
) -> dict[str, Tensor]:
    """Class, box and level losses of one box stage.

    Args:
        labelled: M boxes and their goals.
        output: Predictions for them.
        box_weights: See `encode_boxes`.
        weights: (M,) of each box in the class loss, whose mean is over all M (DropLoss); default: 1.

    Returns:
        `loss_cls` (cross entropy), `loss_box_reg` (L1 over the foreground, over M), `loss_level` (sigmoid focal loss,
        mean over the foreground) where the stage predicts levels.

    """
    count, positive = max(len(labelled.rois), 1), labelled.positive
    label = torch.where(positive, OBJECT, BACKGROUND)
    entropy = F.cross_entropy(output.class_logits.float(), label, reduction="none")
    goal = encode_boxes(labelled.rois[positive, 1:], labelled.boxes[positive], box_weights)
    losses = {
        "loss_cls": (entropy if weights is None else entropy * weights).sum() / count,
        "loss_box_reg": (output.deltas[positive].float() - goal).abs().sum() / count,
    }
    if output.level_logits is not None:
        logits = output.level_logits[positive].float()
        one_hot = F.one_hot(labelled.levels[positive], logits.shape[1]).float()
        total = sigmoid_focal_loss(logits, one_hot, alpha=0.25, gamma=2, reduction="sum")
        losses["loss_level"] = total / max(logits.numel(), 1)
    return losses


def mask_losses(
    heads: RoiHeads, pyramid: Sequence[Tensor], rois: Tensor, objects: Tensor, targets: Sequence[Targets]
) -> dict[str, Tensor]:
    """Losses of the masks of foreground boxes.

    Args:
        heads: With a mask head.
        pyramid: p2 ... p6.
        rois: (M, 5) foreground boxes, image by image.
        objects: (M,) the object of each in its image.
        targets: Of each image, with masks unless M is 0.

    Returns:
        `loss_mask` (cross entropy, mean over all cells), and `loss_mask_iou` (squared error of the predicted IoU of
        mask and object, mean) where there is a head for it.

    """
    logits, quality = heads.masks(pyramid, rois)
    logits = logits.float()
    inside, areas = _mask_targets(rois, objects, targets, logits.shape[-1])
    count = max(logits.numel(), 1)
    losses = {"loss_mask": F.binary_cross_entropy_with_logits(logits, inside.float(), reduction="sum") / count}
    if quality is not None:
        predicted = logits.detach() > 0
        common, covered = (predicted & inside).sum((1, 2)), predicted.sum((1, 2))
        cell = (rois[:, 3:] - rois[:, 1:3]).prod(dim=1) / logits.shape[-1] ** 2
        # The object counts whole, also beyond the box.
        iou = common / (covered + areas / cell - common).clamp(min=1)
        losses["loss_mask_iou"] = (quality.float() - iou).square().sum() / max(len(quality), 1)
    return losses


@torch.no_grad()
def _mask_targets(rois: Tensor, objects: Tensor, targets: Sequence[Targets], side: int) -> tuple[Tensor, Tensor]:
    """(M, side, side) bool masks of the objects within `rois`, and the objects' whole areas (M,) in pixels."""
    inside, areas = [rois.new_zeros(0, side, side, dtype=torch.bool)], [rois.new_zeros(0)]
    for i, target in enumerate(targets):
        mine = rois[:, 0] == i
        if not mine.any():
            continue
        if target.masks is None:
            raise ValueError(f"image {i} has objects without masks; give them or set mask_weight to 0")
        used, index = objects[mine].unique(return_inverse=True)
        masks = target.masks[used].float()[:, None]
        crops = roi_align(
            masks, torch.cat([index[:, None].float(), rois[mine, 1:]], dim=1), side, 1.0, sampling_ratio=0, aligned=True
        )
        inside.append(crops[:, 0] >= 0.5)
        areas.append(masks.sum((1, 2, 3))[index])
    return torch.cat(inside), torch.cat(areas)
