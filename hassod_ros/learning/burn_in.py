"""Burn-in: the detector learns from the pseudo-labels alone (HASSOD, section 3.2)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from hassod_ros.detection.base import Detector, LossOptions
from hassod_ros.learning.config import StageConfig
from hassod_ros.learning.dataset import Batch
from hassod_ros.learning.loop import SupervisedBatch


class BurnIn:
    """A student and its labels; see `loop.Learner`."""

    def __init__(self, student: Detector, stage: StageConfig) -> None:
        self.student = student
        self._stage = stage

    def supervise(self, batches: Sequence[Batch], iteration: int) -> tuple[list[SupervisedBatch], dict[str, float]]:
        """One batch: the labels on the weak view."""
        (batch,) = batches
        labelled = SupervisedBatch(
            "label",
            batch.images,
            batch.sizes,
            batch.targets,
            options=LossOptions(mask_weight=self._stage.mask_weight, drop_loss_iou=self._stage.drop_loss_iou),
        )
        return [labelled], {}

    def stepped(self) -> None:
        """Nothing follows an update."""

    def modules(self) -> dict[str, nn.Module]:
        """The student."""
        return {"student": self.student}
