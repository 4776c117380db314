"""What the detector finds in an image: tensors, and their way into Instances."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from hassod_ros.hierarchy import coverage_forest
from hassod_ros.instances import Instances
from hassod_ros.outlines import follow_colors
from hassod_ros.runtime.postprocess import paste_masks

_MIN_SIDE = 1e-3  # pixels; a box clipped away at the border has no mask


@dataclass(frozen=True, eq=False)
class Detections:
    """N detections of one image, by descending score.

    Attributes:
        boxes: (N, 4) float32 xyxy in pixels of the network's input, inside the image.
        scores: (N,) float32 in [0, 1].
        level_probabilities: (N, 3) float32 in the order of `Level`; (N, 0) from a detector without level heads.
        mask_probabilities: (N, 28, 28) float32 over the box.
        size: (height, width) of the image in the network's input, without padding.

    """

    boxes: Tensor
    scores: Tensor
    level_probabilities: Tensor
    mask_probabilities: Tensor
    size: tuple[int, int]

    def __len__(self) -> int:
        return len(self.boxes)

    def select(self, index: Tensor | slice) -> Detections:
        """The detections of an index tensor or slice, in that order."""
        return Detections(
            boxes=self.boxes[index],
            scores=self.scores[index],
            level_probabilities=self.level_probabilities[index],
            mask_probabilities=self.mask_probabilities[index],
            size=self.size,
        )


def to_instances(
    detections: Detections,
    size: tuple[int, int],
    *,
    score_threshold: float = 0.0,
    mask_threshold: float = 0.5,
    cover: float = 0.75,
    image: np.ndarray | None = None,
    color_weight: float = 0.0,
) -> Instances:
    """Instances at the image's own size, by descending score.

    Levels are the likeliest ones; the parent of an instance is the smallest mask of a higher level that covers it.
    Without level heads both follow from coverage alone. Detections without a pixel are left out.

    Args:
        detections: Of one image.
        size: (H, W) of the image before it was resized for the network.
        score_threshold: Detections must score higher.
        mask_threshold: Pixels of a higher probability belong to the mask.
        cover: Share of a mask that its parent contains.
        image: (H, W, 3) uint8, needed where the next is not 0.
        color_weight: How far outlines follow the colours of the image, see `follow_colors`.

    """
    scores = detections.scores.detach().float().cpu().numpy()
    rows = np.flatnonzero(scores > score_threshold)
    (height, width), (rows_in, columns_in) = size, detections.size
    scale = np.array([width / columns_in, height / rows_in] * 2, np.float32)
    boxes = detections.boxes.detach().float().cpu().numpy()[rows] * scale
    boxes = np.clip(boxes, 0, np.array([width, height] * 2, np.float32))
    visible = (boxes[:, 2:] - boxes[:, :2]).min(axis=1, initial=np.inf) > _MIN_SIDE
    rows, boxes = rows[visible], boxes[visible]
    maps = detections.mask_probabilities.detach().float().cpu().numpy()[rows]
    if color_weight:
        if image is None:
            raise ValueError("color_weight needs the image")
        maps = follow_colors(maps, image, boxes, color_weight)
    masks = paste_masks(maps, np.arange(len(rows)), boxes, mask_threshold)
    filled = np.array([bool(mask.any()) for mask in masks], bool)
    rows, boxes = rows[filled], boxes[filled]
    masks = [mask for mask, keep in zip(masks, filled, strict=True) if keep]
    probabilities = detections.level_probabilities.detach().float().cpu().numpy()[rows]
    known = probabilities.argmax(axis=1).astype(np.uint8) if probabilities.shape[1] else None
    regions = np.concatenate([np.floor(boxes[:, :2]), np.ceil(boxes[:, 2:])], axis=1).astype(np.int64)
    parents, levels = coverage_forest(regions, masks, cover=cover, levels=known)
    return Instances(
        image_size=size, boxes=boxes, masks=masks, scores=scores[rows].clip(0, 1), levels=levels, parents=parents
    )
