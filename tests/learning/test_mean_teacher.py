import numpy as np
import pytest
import torch

from hassod_ros.detection.base import LossOptions
from hassod_ros.detection.cascade.model import CascadeMaskRCNN
from hassod_ros.detection.detections import Detections
from hassod_ros.learning.annotations import load_annotations
from hassod_ros.learning.config import DataConfig, MeanTeacherConfig
from hassod_ros.learning.dataset import TrainingBatches
from hassod_ros.learning.distributed import World
from hassod_ros.learning.mean_teacher import MeanTeacher, teacher_targets

WORLD = World(0, 1, torch.device("cpu"))


def _detections(scores, boxes, levels=(0, 0, 0)):
    return Detections(
        boxes=torch.tensor(boxes, dtype=torch.float32),
        scores=torch.tensor(scores),
        level_probabilities=torch.eye(3)[torch.tensor(levels)],
        mask_probabilities=torch.ones(len(scores), 28, 28),
        size=(60, 80),
    )


NESTED = [[0, 0, 40, 40], [5, 5, 25, 25], [8, 8, 15, 15]]


def test_targets_need_a_score_strictly_above_the_threshold():
    found = teacher_targets(_detections([0.9, 0.7, 0.71], NESTED), threshold=0.7, cover=0.75, masks=True)
    assert found.boxes.tolist() == [NESTED[0], NESTED[2]]
    assert found.masks.shape == (2, 60, 80)
    assert found.masks.flatten(1).sum(1).tolist() == [1600, 49]


def test_target_levels_come_from_coverage_not_from_the_head():
    detections = _detections([0.9, 0.8, 0.8], NESTED, levels=[2, 0, 1])
    found = teacher_targets(detections, threshold=0.7, cover=0.75, masks=False)
    assert found.levels.tolist() == [0, 1, 2]
    assert found.masks is None


@pytest.mark.parametrize(("cover", "level"), [(0.75, 1), (0.9, 0)])
def test_cover_decides_who_is_a_part(cover, level):
    detections = _detections([0.9, 0.8], [[0, 0, 40, 40], [30, 0, 42, 20]], levels=[0, 0])  # 10 of 12 columns inside
    found = teacher_targets(detections, threshold=0.7, cover=cover, masks=False)
    assert found.levels.tolist() == [0, level]


def test_target_levels_follow_from_the_smallest_covering_masks():
    # The fourth lies in all others; the smallest of them reaches out of the first, which the runtime would pass over.
    boxes = [[0, 0, 60, 10], [0, 0, 44, 10], [35, 0, 77, 10], [36, 0, 43, 10]]
    found = teacher_targets(_detections([0.9] * 4, boxes, levels=[0] * 4), threshold=0.7, cover=0.75, masks=False)
    assert found.levels.tolist() == [0, 1, 0, 1]


def test_no_sure_detection_gives_no_target():
    found = teacher_targets(_detections([0.1], [[0, 0, 5, 5]], levels=[0]), threshold=0.7, cover=0.75, masks=True)
    assert found.boxes.shape == (0, 4)
    assert found.masks.shape == (0, 60, 80)
    assert found.levels.dtype == torch.int64


@pytest.fixture
def detector(tiny_detector):
    torch.manual_seed(0)
    return CascadeMaskRCNN(tiny_detector)


@pytest.fixture
def batches(toy_set):
    annotations = load_annotations(toy_set.labels, toy_set.images)
    stream = TrainingBatches(annotations, DataConfig(short_sides=(64,), max_side=80), batch_size=1, strong=True)
    return [stream[0], stream[1]]


def test_the_average_includes_batch_norm_statistics(detector):
    learner = MeanTeacher(detector, MeanTeacherConfig(ema_decay=0.75), WORLD)
    before = {name: value.clone() for name, value in detector.state_dict().items()}
    with torch.no_grad():
        for value in detector.state_dict().values():
            value.add_(4)
    learner.stepped()
    after = learner.teacher.module.state_dict()
    assert any(name.endswith("running_var") for name in after)
    for name, value in after.items():
        if value.is_floating_point():
            torch.testing.assert_close(value, before[name] + 1, msg=name)


def test_a_new_teacher_equals_the_student_and_does_not_learn_by_itself(detector):
    learner = MeanTeacher(detector, MeanTeacherConfig(), WORLD)
    own = learner.teacher.module.state_dict()
    assert all(torch.equal(value, own[name]) for name, value in detector.state_dict().items())
    assert not any(parameter.requires_grad for parameter in learner.teacher.parameters())
    assert all(parameter.requires_grad for parameter in detector.parameters())


@pytest.mark.parametrize(("mode", "training"), [("train", True), ("eval", False)])
def test_teacher_mode_decides_whether_its_statistics_move(detector, batches, mode, training):
    learner = MeanTeacher(detector, MeanTeacherConfig(teacher_mode=mode), WORLD)
    before = {name: value.clone() for name, value in learner.teacher.state_dict().items()}
    learner.supervise(batches, 0)
    moved = [name for name, value in learner.teacher.state_dict().items() if not torch.equal(value, before[name])]
    assert bool(moved) is training
    assert all("running_" in name or "num_batches" in name for name in moved)


@pytest.mark.parametrize(("views", "count"), [("both", 2), ("weak", 1), ("strong", 1)])
def test_batches_follow_the_switches(detector, batches, views, count):
    stage = MeanTeacherConfig(
        iterations=10, label_views=views, teacher_mask_weight=0.5, mask_weight=2.0, drop_loss_iou=0.01
    )
    supervised, figures = MeanTeacher(detector, stage, WORLD).supervise(batches, 5)
    label, teacher = supervised
    assert (label.weight, teacher.weight) == pytest.approx((0.5, 2.5))
    assert label.options == LossOptions(mask_weight=2.0, drop_loss_iou=0.01)
    assert teacher.options == LossOptions(mask_weight=0.5, drop_loss_iou=None)
    assert len(label.images) == len(label.sizes) == len(label.targets) == count
    assert torch.equal(label.images[0], batches[0].strong[0] if views == "strong" else batches[0].images[0])
    assert torch.equal(teacher.images, batches[1].strong)
    assert figures["teacher_boxes"] == len(teacher.targets[0].boxes)


def test_a_sure_teacher_teaches_what_it_finds_in_the_weak_view(detector, batches):
    stage = MeanTeacherConfig(score_threshold=0.0, teacher_mode="eval")
    learner = MeanTeacher(detector, stage, WORLD)
    target = learner.supervise(batches, 0)[0][1].targets[0]
    detector.eval()
    with torch.no_grad():
        found = detector(batches[1].images, batches[1].sizes)[0]
    assert 0 < len(target.boxes) <= len(found)
    known = {tuple(box) for box in np.round(found.boxes.numpy(), 3).tolist()}
    assert {tuple(box) for box in np.round(target.boxes.numpy(), 3).tolist()} <= known
