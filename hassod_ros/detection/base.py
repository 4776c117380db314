"""What every detector promises: learning, checkpoints, evaluation and export speak to this, not to one network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from hassod_ros.detection.detections import Detections


@dataclass(frozen=True, eq=False)
class Targets:
    """G objects of one image.

    Attributes:
        boxes: (G, 4) float32 xyxy in pixels of the network's input, each with an area.
        levels: (G,) int64, values of `Level`.
        masks: (G, H, W) bool or uint8 0/1 at the network's input size (padding may be left out); None where the mask
            losses are off.
        parents: (G,) int64, index of the object that this one is a part of, or -1; None where nobody asks for it.

    """

    boxes: Tensor
    levels: Tensor
    masks: Tensor | None = None
    parents: Tensor | None = None


class Detector(Protocol):
    """A network that finds objects of three levels; every implementation is an `nn.Module`.

    Attributes:
        config: What it is built from, a frozen dataclass of plain values.

    """

    config: Any

    def losses(
        self,
        images: Tensor,
        sizes: Sequence[tuple[int, int]],
        targets: Sequence[Targets],
        *,
        drop_loss_iou: float | None = None,
        mask_weight: float = 1.0,
    ) -> dict[str, Tensor]:
        """Weighted scalars by name, whose sum is minimised; in training mode.

        Args:
            images: (B, 3, H, W) RGB 0 ... 255, padded at the right and at the bottom.
            sizes: (height, width) of each image.
            targets: Of each image.
            drop_loss_iou: What overlaps every object less than this is no background: labels miss objects. None: off.
            mask_weight: Of the mask losses; with 0 targets need no masks.

        """
        ...

    def __call__(self, images: Tensor, sizes: Sequence[tuple[int, int]] | None = None) -> list[Detections]:
        """Detections of each image, by descending score; images and sizes as above. Default: no padding."""
        ...
