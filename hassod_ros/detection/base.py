"""What every detector promises: learning, checkpoints, evaluation and export speak to this, not to one network."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from torch import Tensor, nn

from hassod_ros.instances import Instances


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


@dataclass(frozen=True, kw_only=True)
class LossOptions:
    """How labels of a batch count.

    Attributes:
        drop_loss_iou: DropLoss: what overlaps every object at most this much does not count as background, for labels
            miss objects. HASSOD: 0.01. None: it counts.
        mask_weight: Factor on the losses of the masks; with 0 the cascade needs no masks (HASSOD's teacher branch).

    """

    drop_loss_iou: float | None = None
    mask_weight: float = 1.0


@dataclass(frozen=True, kw_only=True)
class InstanceOptions:
    """What becomes of predictions on their way into Instances.

    Attributes:
        score_threshold: Detections must score higher.
        mask_threshold: Pixels of a higher probability belong to the mask.
        cover: Share of a mask that its parent contains. None: the detector's own.
        color_weight: How far outlines follow the colours of the image, see `follow_colors`.

    """

    score_threshold: float = 0.0
    mask_threshold: float = 0.5
    cover: float | None = None
    color_weight: float = 0.0


DEFAULT_LOSSES, DEFAULT_INSTANCES = LossOptions(), InstanceOptions()


class Predictions(Protocol):
    """What a detector finds in one image.

    Attributes:
        size: (height, width) of the image in the network's input, without padding.

    """

    @property
    def size(self) -> tuple[int, int]:
        """See above."""
        ...

    @property
    def scores(self) -> Tensor:
        """(N,) float32 in [0, 1]."""
        ...

    def __len__(self) -> int: ...

    def to_instances(
        self,
        size: tuple[int, int],
        options: InstanceOptions = DEFAULT_INSTANCES,
        image: np.ndarray | None = None,
    ) -> Instances:
        """Instances at the image's own size, by descending score; what has no pixel is left out.

        Args:
            size: (H, W) of the image before it was resized for the network.
            options: See the class.
            image: (H, W, 3) uint8, needed where outlines follow its colours.

        """
        ...


class Detector(nn.Module):
    """A network that finds objects of three levels.

    Attributes:
        config: What it is built from, a frozen dataclass of plain values.

    """

    config: Any

    @abstractmethod
    def losses(
        self,
        images: Tensor,
        sizes: Sequence[tuple[int, int]],
        targets: Sequence[Targets],
        options: LossOptions = DEFAULT_LOSSES,
    ) -> dict[str, Tensor]:
        """Weighted scalars by name, whose sum is minimised; in training mode.

        Args:
            images: (B, 3, H, W) RGB 0 ... 255, padded at the right and at the bottom.
            sizes: (height, width) of each image.
            targets: Of each image.
            options: See the class.

        """

    @abstractmethod
    def forward(self, images: Tensor, sizes: Sequence[tuple[int, int]] | None = None) -> Sequence[Predictions]:
        """Detections of each image, by descending score; images and sizes as above. Default: no padding."""
