"""What the detector finds in an image: tensors, and their way into Instances."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from hassod_ros.detection.base import DEFAULT_INSTANCES, InstanceOptions
from hassod_ros.hierarchy import coverage_forest
from hassod_ros.instances import Instances
from hassod_ros.masks import has_area, paste_filled, pixel_regions
from hassod_ros.outlines import follow_colors

_COVER = 0.75  # share of a mask that its parent contains


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
        self,
        size: tuple[int, int],
        options: InstanceOptions = DEFAULT_INSTANCES,
        image: np.ndarray | None = None,
    ) -> Instances:
        """See `Predictions`; a parent contains 0.75 of a mask by default.

        Levels are the likeliest ones; the parent of an instance is the smallest mask of a higher level that covers it.
        Without level heads both follow from coverage alone.
        """
        detections = self.select(self.scores > options.score_threshold)
        rows, boxes, masks = place_masks(
            detections, size, mask_threshold=options.mask_threshold, image=image, color_weight=options.color_weight
        )
        scores, probabilities = _array(detections.scores)[rows], _array(detections.level_probabilities)[rows]
        known = probabilities.argmax(axis=1).astype(np.uint8) if probabilities.shape[1] else None
        cover = _COVER if options.cover is None else options.cover
        parents, levels = coverage_forest(pixel_regions(boxes), masks, cover=cover, levels=known)
        return Instances(
            image_size=size, boxes=boxes, masks=masks, scores=scores.clip(0, 1), levels=levels, parents=parents
        )


def place_masks(
    detections: Detections,
    size: tuple[int, int],
    *,
    mask_threshold: float,
    image: np.ndarray | None = None,
    color_weight: float = 0.0,
) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """The masks of detections at the image's own size; those without a pixel are left out.

    Arguments as in `InstanceOptions` and `Detections.to_instances`.

    Returns:
        (n,) rows of the detections that are left, (n, 4) float32 their boxes in pixels of the image, and n masks as
        `Instances` holds them.

    """
    (height, width), (rows_in, columns_in) = size, detections.size
    boxes = _array(detections.boxes) * np.array([width / columns_in, height / rows_in] * 2, np.float32)
    boxes = np.clip(boxes, 0, np.array([width, height] * 2, np.float32))
    rows = np.flatnonzero(has_area(boxes))
    boxes, maps = boxes[rows], _array(detections.mask_probabilities)[rows]
    if color_weight:
        if image is None:
            raise ValueError("color_weight needs the image")
        maps = follow_colors(maps, image, boxes, color_weight)
    filled, masks = paste_filled(maps, boxes, mask_threshold)
    return rows[filled], boxes[filled], masks


def _array(values: Tensor) -> np.ndarray:
    return values.detach().float().cpu().numpy()
