"""Mean Teacher with adaptive targets (HASSOD, section 3.3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from hassod_ros.detection.base import Detector, InstanceOptions, LossOptions, Predictions, Targets
from hassod_ros.detection.detections import Detections
from hassod_ros.learning.config import MeanTeacherConfig
from hassod_ros.learning.dataset import Batch
from hassod_ros.learning.distributed import World, share_buffers
from hassod_ros.learning.loop import SupervisedBatch
from hassod_ros.learning.schedules import branch_weights
from hassod_ros.learning.thresholds import SizeThresholds


class MeanTeacher:
    """A student that learns from the labels and from its own moving average.

    The teacher sees the weak view of an unlabelled picture; what it finds with a score above the threshold is the
    student's target on the strong view. The weight of the labels falls while that of the teacher rises.

    Args:
        student: The detector after burn-in.
        stage: All switches.
        world: The processes that train together.

    """

    def __init__(self, student: Detector, stage: MeanTeacherConfig, world: World) -> None:
        self.student = student
        self._stage, self._world = stage, world
        self.teacher = AveragedModel(student, multi_avg_fn=get_ema_multi_avg_fn(stage.ema_decay), use_buffers=True)
        self.teacher.update_parameters(student)  # the first update copies; from now on it averages
        self.teacher.requires_grad_(False)
        self.teacher.train(stage.teacher_mode == "train")
        self.thresholds = (
            SizeThresholds(stage.score_threshold, stage.threshold_bounds) if stage.threshold == "dynamic" else None
        )

    def supervise(self, batches: Sequence[Batch], iteration: int) -> tuple[list[SupervisedBatch], dict[str, float]]:
        """One batch from the labels and one from the teacher; `batches` are a labelled and an unlabelled one."""
        labelled, unlabelled = batches
        stage = self._stage
        label_weight, teacher_weight = branch_weights(
            iteration, stage.iterations, label=stage.label_weights, teacher=stage.teacher_weights
        )
        with torch.no_grad():
            found = self.teacher(unlabelled.images, unlabelled.sizes)
        targets = [
            teacher_targets(
                detections,
                threshold=stage.score_threshold,
                masks=stage.teacher_mask_weight > 0,
                by_size=self.thresholds,
            )
            for detections in found
        ]
        assert labelled.strong is not None
        assert unlabelled.strong is not None
        views: dict[str, list[Tensor]] = {
            "weak": [labelled.images],
            "strong": [labelled.strong],
            "both": [labelled.images, labelled.strong],
        }
        seen = views[stage.label_views]
        supervised = [
            SupervisedBatch(
                "label",
                torch.cat(seen),
                labelled.sizes * len(seen),
                labelled.targets * len(seen),
                weight=label_weight,
                options=LossOptions(mask_weight=stage.mask_weight, drop_loss_iou=stage.drop_loss_iou),
            ),
            SupervisedBatch(
                "teacher",
                unlabelled.strong,
                unlabelled.sizes,
                targets,
                weight=teacher_weight,
                options=LossOptions(mask_weight=stage.teacher_mask_weight),
            ),
        ]
        boxes = sum(len(target.boxes) for target in targets) / len(targets)
        figures = {"label_weight": label_weight, "teacher_weight": teacher_weight, "teacher_boxes": boxes}
        return supervised, figures | (self.thresholds.figures() if self.thresholds else {})

    def average(self) -> Detector:
        """The teacher as a detector."""
        return cast(Detector, self.teacher.module)

    def stepped(self) -> None:
        """Move the teacher towards the student, batch norm statistics included."""
        self.teacher.update_parameters(self.student)
        share_buffers(self.teacher, self._world)
        if self.thresholds:
            share_buffers(self.thresholds, self._world)

    def modules(self) -> dict[str, nn.Module]:
        """Student and teacher, and the thresholds where they move."""
        held = {"student": self.student, "teacher": self.teacher}
        return held | ({"thresholds": self.thresholds} if self.thresholds else {})


def teacher_targets(
    detections: Predictions,
    *,
    threshold: float,
    masks: bool,
    cover: float = 0.75,
    by_size: SizeThresholds | None = None,
) -> Targets:
    """What the student learns from the teacher's detections in one picture.

    Args:
        detections: Everything the teacher found.
        threshold: Scores must be strictly greater.
        masks: Give the masks, too; without a mask loss they are not needed.
        cover: Coverage threshold between the teacher's masks, whose forest tells the levels, not the level head.
        by_size: Thresholds that follow the teacher's scores, instead of `threshold`; they take note of these.

    Returns:
        Targets on the detections' device; what covers no pixel is left out.

    """
    if isinstance(detections, Detections):
        detections = replace(detections, level_probabilities=detections.level_probabilities[:, :0])
    lowest = threshold if by_size is None else by_size.lowest
    found = detections.to_instances(detections.size, InstanceOptions(score_threshold=lowest, cover=cover))
    if by_size is not None:
        by_size.observe(found.areas, found.scores)
        found = found.select(found.scores > by_size.of(found.areas))
    device = detections.scores.device
    return Targets(
        boxes=torch.from_numpy(found.boxes).to(device),
        levels=torch.from_numpy(found.levels.astype(np.int64)).to(device),
        masks=torch.from_numpy(found.dense()).to(device) if masks else None,
        parents=torch.from_numpy(found.parents.astype(np.int64)).to(device),
    )
