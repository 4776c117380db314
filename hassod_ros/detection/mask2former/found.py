"""What Mask2Former finds in an image: masks that span it, who is whose ancestor, and the way into Instances."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hassod_ros.detection.base import DEFAULT_INSTANCES, InstanceOptions
from hassod_ros.errors import InputError
from hassod_ros.instances import Instances
from hassod_ros.spanning import spanning_instances


@dataclass(frozen=True, eq=False)
class Found:
    """N detections of one image, by descending score.

    Attributes:
        scores: (N,) float32 in [0, 1].
        masks: (N, h, w) float32 probabilities; a cell is `stride` pixels of the network's input wide.
        ancestors: (N, N) float32, probability that the column is an ancestor of the row.
        size: (height, width) of the image in the network's input, without padding.
        stride: See `masks`.
        cover: Share of a mask that an ancestor of it contains, besides what the head says; 0: the head alone.

    """

    scores: Tensor
    masks: Tensor
    ancestors: Tensor
    size: tuple[int, int]
    stride: int = 4
    cover: float = 0.5

    def __len__(self) -> int:
        return len(self.scores)

    def select(self, index: Tensor | slice) -> Found:
        """The detections of an index tensor or slice, in that order."""
        related = self.ancestors[index][:, index]
        return Found(self.scores[index], self.masks[index], related, self.size, self.stride, self.cover)

    def to_instances(
        self,
        size: tuple[int, int],
        options: InstanceOptions = DEFAULT_INSTANCES,
        image: np.ndarray | None = None,
    ) -> Instances:
        """See `Predictions`; who is a part of what is told by `ancestor_forest`, and the image is not used.

        Raises:
            InputError: Outlines are to follow the colours, which is for masks in boxes.

        """
        if options.color_weight:
            raise InputError("outlines of Mask2Former's masks do not follow the colours; set color_weight to 0")
        found = self.select((self.scores > options.score_threshold).nonzero()[:, 0])
        return spanning_instances(
            found.masks.float().cpu().numpy(),
            found.scores.float().cpu().numpy(),
            found.ancestors.float().cpu().numpy(),
            size=size,
            inner=self.size,
            stride=self.stride,
            threshold=options.mask_threshold,
            cover=self.cover if options.cover is None else options.cover,
        )


def extents(inside: Tensor) -> Tensor:
    """(..., 4) float32 x0 y0 x1 y1 around masks (..., h, w) bool, in cells; zeros where a mask is empty."""
    ends = []
    for axis in (-2, -1):  # what lies over the columns, then over the rows
        seen = inside.any(axis)
        places = torch.arange(seen.shape[-1], dtype=torch.float32, device=inside.device)
        first = torch.where(seen, places, float(seen.shape[-1])).amin(-1)
        last = torch.where(seen, places + 1, 0.0).amax(-1)
        ends += [torch.minimum(first, last), last]
    return torch.stack([ends[0], ends[2], ends[1], ends[3]], dim=-1)
