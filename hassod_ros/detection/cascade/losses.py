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
    """M boxes of B images with what they should become.

    Attributes:
        rois: (M, 5) float32, image index and box.
        positive: (M,) bool, foreground.
        boxes: (M, 4) float32, the matched object's box; of no meaning where the box is not foreground, as all below.
        levels: (M,) int64, the matched object's level.
        objects: (M,) int64, the matched object's index in its image.

    """

    rois: Tensor
    positive: Tensor
    boxes: Tensor
    levels: Tensor
    objects: Tensor


def rpn_losses(
    found: AnchorPredictions,
    objects: PaddedObjects,
    config: DetectorConfig,
    generator: torch.Generator | None = None,
) -> dict[str, Tensor]:
    """Objectness (cross entropy) and boxes (L1) of sampled anchors, over the number of samples asked for."""
    anchors = found.anchors
    # Image by image, without what only fills up: overlaps of all objects with all anchors are many.
    matches = [
        match(pairwise_iou(boxes[:count], anchors), *config.rpn_ious, low_quality=True)
        for boxes, count in zip(objects.boxes, objects.counts, strict=True)
    ]
    index, label = (torch.stack(each) for each in zip(*matches, strict=True))  # (B, A)
    places, drawn = sample(label, config.rpn_samples, config.rpn_positive, generator)
    row, column = torch.nonzero(drawn, as_tuple=True)
    place = places[row, column]
    positive = label[row, place] == POSITIVE
    entropy = F.binary_cross_entropy_with_logits(found.logits[row, place].float(), positive.float(), reduction="sum")
    foreground = torch.nonzero(positive)[:, 0]
    row, place = row[foreground], place[foreground]
    goal = encode_boxes(anchors[place], objects.boxes[row, index[row, place]], RPN_BOX_WEIGHTS)
    distance = (found.deltas[row, place].float() - goal).abs().sum()
    count = config.rpn_samples * len(objects.counts)
    return {"loss_rpn_cls": entropy / count, "loss_rpn_loc": distance / count}


@torch.no_grad()
def label_proposals(
    proposals: Sequence[Tensor],
    objects: PaddedObjects,
    config: DetectorConfig,
    generator: torch.Generator | None = None,
) -> LabelledRois:
    """The first stage's boxes: proposals (R, 4) of each image and its objects' own boxes, matched and sampled."""
    boxes = torch.cat([pad_sequence(list(proposals), batch_first=True), objects.boxes], dim=1)  # (B, N, 4)
    index, label = match(pairwise_iou(objects.boxes, boxes), config.stage_ious[0], config.stage_ious[0])
    label = label.where(has_area(boxes), IGNORED)  # what only fills up
    places, drawn = sample(label, config.box_samples, config.box_positive, generator)
    row, column = torch.nonzero(drawn, as_tuple=True)
    place = places[row, column]
    rois = torch.cat([row[:, None].float(), boxes[row, place]], dim=1)
    return _labelled(rois, label[row, place] == POSITIVE, index[row, place], objects)


@torch.no_grad()
def relabel_proposals(
    images: Tensor, boxes: Tensor, sizes: Sequence[tuple[int, int]], objects: PaddedObjects, iou: float
) -> LabelledRois:
    """A later stage's boxes: all that the stage before predicted, clipped to their images, matched anew."""
    boxes = clip_boxes(boxes, box_limits(sizes, boxes)[images.long()])
    valid = torch.nonzero(has_area(boxes))[:, 0]
    images, boxes = images[valid], boxes[valid]
    index, label = match(objects.iou(images, boxes), iou, iou)
    return _labelled(torch.cat([images[:, None], boxes], dim=1), label == POSITIVE, index, objects)


def _labelled(rois: Tensor, positive: Tensor, index: Tensor, objects: PaddedObjects) -> LabelledRois:
    images = rois[:, 0].long()
    return LabelledRois(rois, positive, objects.boxes[images, index], objects.levels[images, index], index)


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
        weights: (M,) of each box in the class loss, whose mean is over all M (DropLoss); default: 1.

    Returns:
        `loss_cls` (cross entropy), `loss_box_reg` (L1 over the foreground, over M), `loss_level` (sigmoid focal loss,
        mean over the foreground) where the stage predicts levels.

    """
    count, positive = max(len(labelled.rois), 1), torch.nonzero(labelled.positive)[:, 0]
    label = torch.where(labelled.positive, OBJECT, BACKGROUND)
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
        `loss_mask`: cross entropy, mean over all cells.

    """
    logits = heads.masks(pyramid, rois).float()
    counts = torch.bincount(rois[:, 0].long(), minlength=len(targets)).tolist()
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
