"""Losses of the detector: proposals, box stages, levels, masks (HASSOD, sections 3.2 and 4.1, appendix J).

What does not count is multiplied by 0 instead of being left out: a GPU would have to tell first how much is left.

Normalisers and sampling are Detectron2's. DropLoss: Wang et al., "Cut and Learn for Unsupervised Object Detection and
Instance Segmentation", section 3.3.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torchvision.ops import roi_align, sigmoid_focal_loss

from hassod_ros.detection.base import Targets
from hassod_ros.detection.boxes import box_limits, clip_boxes, encode_boxes, has_area, pairwise_iou
from hassod_ros.detection.cascade.assignment import IGNORED, POSITIVE, match, sample
from hassod_ros.detection.cascade.config import DetectorConfig
from hassod_ros.detection.cascade.roi_heads import BACKGROUND, OBJECT, RoiHeads, StageOutput
from hassod_ros.detection.cascade.rpn import RPN_BOX_WEIGHTS, AnchorPredictions


@dataclass(frozen=True, eq=False)
class PaddedObjects:
    """Boxes (B, G, 4) and levels (B, G) of B images' objects, G >= 1; after its own count an image has empty boxes."""

    boxes: Tensor
    levels: Tensor
    counts: list[int]

    @classmethod
    def of(cls, targets: Sequence[Targets]) -> PaddedObjects:
        """Objects of all images, whose overlaps one operation can compute."""
        boxes = pad_sequence([target.boxes for target in targets], batch_first=True)
        levels = pad_sequence([target.levels for target in targets], batch_first=True)
        if not boxes.shape[1]:
            boxes, levels = boxes.new_zeros(len(targets), 1, 4), levels.new_zeros(len(targets), 1)
        return cls(boxes, levels, [len(target.boxes) for target in targets])

    def iou(self, images: Tensor, boxes: Tensor) -> Tensor:
        """(G, M) overlaps of boxes (M, 4) with the objects of their images (M,)."""
        return pairwise_iou(self.boxes[images.long()], boxes[:, None])[..., 0].T


@dataclass(frozen=True, eq=False)
class LabelledRois:
    """M boxes of B images, image by image and as many of each, with what they should become.

    Attributes:
        rois: (M, 5) float32, image index and box.
        valid: (M,) bool; the others only fill up.
        positive: (M,) bool, foreground, all of them valid.
        boxes: (M, 4) float32, the matched object's box; of no meaning where the box is not foreground, as all below.
        levels: (M,) int64, the matched object's level.
        objects: (M,) int64, the matched object's index in its image.

    """

    rois: Tensor
    valid: Tensor
    positive: Tensor
    boxes: Tensor
    levels: Tensor
    objects: Tensor


def rpn_losses(
    found: AnchorPredictions,
    objects: PaddedObjects,
    config: DetectorConfig,
) -> dict[str, Tensor]:
    """Objectness (cross entropy) and boxes (L1) of sampled anchors, over the number of samples asked for."""
    anchors = found.anchors
    # Image by image, without what only fills up: overlaps of all objects with all anchors are many.
    matches = [
        match(pairwise_iou(boxes[:count], anchors), *config.rpn_ious, low_quality=True)
        for boxes, count in zip(objects.boxes, objects.counts, strict=True)
    ]
    index, label = (torch.stack(each) for each in zip(*matches, strict=True))  # (B, A)
    places, drawn = sample(label, config.rpn_samples, config.rpn_positive)
    row = torch.arange(len(places), device=places.device)[:, None]
    positive = drawn & (label.gather(1, places) == POSITIVE)
    logits, deltas = found.logits.gather(1, places).float(), found.deltas[row, places].float()
    entropy = F.binary_cross_entropy_with_logits(logits, positive.float(), drawn.float(), reduction="sum")
    distance = _distance(deltas, anchors[places], objects.boxes[row, index.gather(1, places)], positive)
    count = config.rpn_samples * len(objects.counts)
    return {"loss_rpn_cls": entropy / count, "loss_rpn_loc": distance / count}


def _distance(
    deltas: Tensor, boxes: Tensor, objects: Tensor, positive: Tensor, weights: Sequence[float] = RPN_BOX_WEIGHTS
) -> Tensor:
    """L1 between deltas (..., 4) and those that turn boxes into objects (..., 4), summed where `positive` (...)."""
    goal = encode_boxes(boxes, objects, weights).where(positive[..., None], 0)  # else infinite for objects without area
    return ((deltas - goal).abs() * positive[..., None]).sum()


@torch.no_grad()
def label_proposals(
    proposals: Sequence[Tensor],
    objects: PaddedObjects,
    config: DetectorConfig,
) -> LabelledRois:
    """The first stage's boxes: proposals (R, 4) of each image and its objects' own boxes, matched and sampled."""
    boxes = torch.cat([pad_sequence(list(proposals), batch_first=True), objects.boxes], dim=1)  # (B, N, 4)
    index, label = match(pairwise_iou(objects.boxes, boxes), config.stage_ious[0], config.stage_ious[0])
    label = label.where(has_area(boxes), IGNORED)  # what only fills up
    places, drawn = sample(label, config.box_samples, config.box_positive)
    row = torch.arange(len(places), device=places.device)[:, None].expand_as(places)
    rois = torch.cat([row[..., None].float(), boxes[row, places]], dim=2)
    positive = drawn & (label.gather(1, places) == POSITIVE)
    index = index.gather(1, places)
    return _labelled(rois.flatten(0, 1), drawn.flatten(), positive.flatten(), index.flatten(), objects)


@torch.no_grad()
def relabel_proposals(
    before: LabelledRois, boxes: Tensor, sizes: Sequence[tuple[int, int]], objects: PaddedObjects, iou: float
) -> LabelledRois:
    """A later stage's boxes (M, 4): what the stage before predicted, clipped to their images, matched anew."""
    images = before.rois[:, 0]
    boxes = clip_boxes(boxes, box_limits(sizes, boxes)[images.long()])
    valid = before.valid & has_area(boxes)
    boxes = boxes.where(valid[:, None], 0)  # also what is not finite
    index, label = match(objects.iou(images, boxes), iou, iou)
    return _labelled(torch.cat([images[:, None], boxes], dim=1), valid, valid & (label == POSITIVE), index, objects)


def _labelled(rois: Tensor, valid: Tensor, positive: Tensor, index: Tensor, objects: PaddedObjects) -> LabelledRois:
    images = rois[:, 0].long()
    return LabelledRois(rois, valid, positive, objects.boxes[images, index], objects.levels[images, index], index)


@torch.no_grad()
def drop_loss_weights(images: Tensor, boxes: Tensor, objects: PaddedObjects, iou: float) -> Tensor:
    """DropLoss: what may be an object that the labels miss does not count in the class loss.

    The comparison is with all objects of the image; HASSOD's code takes those that happened to be matched.

    Args:
        images: (M,) float, index of each box's image.
        boxes: (M, 4), as a stage predicts them.
        objects: Of all images.
        iou: At most this with every object: weight 0.

    Returns:
        (M,) float32 of 0 and 1; all 0 in an image without objects.

    """
    return (objects.iou(images, boxes).amax(dim=0) > iou).float()


def stage_losses(
    labelled: LabelledRois, output: StageOutput, box_weights: Sequence[float], weights: Tensor | None = None
) -> dict[str, Tensor]:
    """Class, box and level losses of one box stage.

    Args:
        labelled: M boxes and their goals.
        output: Predictions for them.
        box_weights: See `encode_boxes`.
        weights: (M,) of each box in the class loss, whose mean is over all valid ones (DropLoss); default: 1.

    Returns:
        `loss_cls` (cross entropy), `loss_box_reg` (L1 over the foreground, over the valid ones), `loss_level`
        (sigmoid focal loss, mean over the foreground) where the stage predicts levels.

    """
    valid, positive = labelled.valid, labelled.positive
    count = valid.sum().clamp(min=1)
    entropy = F.cross_entropy(output.class_logits.float(), torch.where(positive, OBJECT, BACKGROUND), reduction="none")
    distance = _distance(output.deltas.float(), labelled.rois[:, 1:], labelled.boxes, positive, box_weights)
    losses = {
        "loss_cls": (entropy * (valid if weights is None else valid * weights)).sum() / count,
        "loss_box_reg": distance / count,
    }
    if output.level_logits is not None:
        logits = output.level_logits.float()
        one_hot = F.one_hot(labelled.levels, logits.shape[1]).float()
        focal = sigmoid_focal_loss(logits, one_hot, alpha=0.25, gamma=2) * positive[:, None]
        losses["loss_level"] = focal.sum() / (positive.sum() * logits.shape[1]).clamp(min=1)
    return losses


def mask_losses(
    heads: RoiHeads, pyramid: Sequence[Tensor], labelled: LabelledRois | None, targets: Sequence[Targets]
) -> dict[str, Tensor]:
    """Losses of the masks of foreground boxes.

    Args:
        heads: With a mask head.
        pyramid: p2 ... p6.
        labelled: Boxes of which the foreground counts. None: nothing counts, and targets need no masks.
        targets: Of each image, with masks.

    Returns:
        `loss_mask`: cross entropy, mean over all cells.

    """
    if labelled is None:
        counts = [0] * len(targets)
        rois, objects = pyramid[0].new_zeros(0, 5), torch.zeros(0, dtype=torch.int64, device=pyramid[0].device)
    else:  # masks cost enough to leave the others out: the one time that a GPU is asked how many there are
        counts = labelled.positive.unflatten(0, (len(targets), -1)).sum(1).tolist()
        rows = labelled.positive.byte().argsort(descending=True, stable=True)[: sum(counts)]
        rois, objects = labelled.rois[rows], labelled.objects[rows]
    logits = heads.masks(pyramid, rois).float()
    parts = list(zip(targets, rois.split(counts), objects.split(counts), strict=True))
    inside = torch.cat([object_crops(i, *part, logits.shape[-1]) for i, part in enumerate(parts)])
    count = max(logits.numel(), 1)
    return {"loss_mask": F.binary_cross_entropy_with_logits(logits, inside.float(), reduction="sum") / count}


@torch.no_grad()
def object_crops(image: int, target: Targets, rois: Tensor, objects: Tensor, side: int) -> Tensor:
    """(M, side, side) bool: the masks of an image's objects (M,) within the boxes of rois (M, 5).

    The object stands where RoIAlign expects the image: no plane is copied for every box that shows the same object.
    """
    if not len(objects):
        return torch.zeros((0, side, side), dtype=torch.bool, device=rois.device)
    if target.masks is None:
        raise ValueError(f"image {image} has objects without masks; give them or set mask_weight to 0")
    regions = torch.cat([objects[:, None].to(rois.dtype), rois[:, 1:]], dim=1)
    planes = target.masks[:, None].to(rois.dtype)
    return roi_align(planes, regions, side, 1.0, sampling_ratio=0, aligned=True)[:, 0] >= 0.5
