"""Both stages with Mask2Former in the cascade's place."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from PIL import Image

from hassod_ros.detection.cascade.config import DetectorConfig
from hassod_ros.detection.checkpoints import build_detector, open_detector, save_weights
from hassod_ros.detection.mask2former.found import Found
from hassod_ros.errors import InputError
from hassod_ros.evaluation.predict import open_checkpoint
from hassod_ros.images import read_image
from hassod_ros.learning.config import DataConfig, MeanTeacherConfig, Recipe, RelabelConfig, RunConfig, StageConfig
from hassod_ros.learning.mean_teacher import teacher_targets
from hassod_ros.learning.relabel import label
from hassod_ros.learning.stages import burn_in, mean_teacher
from hassod_ros.learning.thresholds import SizeThresholds
from tests.tiny_network import TINY, tiny_mask2former

pytestmark = [pytest.mark.timeout(1200), pytest.mark.usefixtures("one_thread")]


@pytest.fixture
def recipe(toy_set, tmp_path) -> Recipe:
    stage = {"optimizer": "adamw", "learning_rate": 0.001, "warmup": 0, "precision": "fp32", "precise_bn": 0}
    return Recipe(
        detector="mask2former",
        mask2former=tiny_mask2former(),
        data=DataConfig(str(toy_set.images), str(toy_set.labels), short_sides=(64,), max_side=80),
        burn_in=StageConfig(iterations=2, batch_size=2, copy_paste=0.5, **stage),
        mean_teacher=MeanTeacherConfig(
            iterations=4,
            batch_size=2,
            unlabelled_batch=2,
            ema_decay=0.9,
            schedule="constant",
            label_weights=(1.0, 1.0),
            teacher_weights=(1.0, 1.0),
            teacher_mask_weight=1.0,
            score_threshold=0.2,
            threshold="dynamic",
            threshold_bounds=(0.0, 0.5),
            **stage,
        ),
        run=RunConfig(str(tmp_path / "run"), device="cpu", workers=0, checkpoint_every=2, picture_every=2),
    )


def _with(recipe: Recipe, **sections: dict) -> Recipe:
    changed = {name: dataclasses.replace(getattr(recipe, name), **values) for name, values in sections.items()}
    return dataclasses.replace(recipe, **changed)


def _draw_masks(path: Path) -> None:
    """Masks that cover the picture, whatever was learned: fresh ones may be empty."""
    detector = open_detector(path)
    with torch.no_grad():
        detector.body.pixel_decoder.mask_projection.bias.fill_(1.0)
        for name, value in detector.body.transformer_module.decoder.mask_predictor.mask_embedder.named_parameters():
            if name == "2.0.bias":
                value.fill_(1.0)
    save_weights(detector, path)


def test_both_stages_and_what_follows(recipe, toy_set):
    _draw_masks(burn_in(recipe))
    half = _with(recipe, mean_teacher={"iterations": 2})
    mean_teacher(half)
    state = torch.load(Path(recipe.run.output) / "mean_teacher" / "checkpoint.pt", weights_only=True)
    values = state["thresholds"]["values"]
    small, medium, large = (values != recipe.mean_teacher.score_threshold).tolist()
    assert medium  # what covers a picture of 64 x 80 pixels
    assert not small
    assert not large
    resumed = mean_teacher(recipe)

    straight = _with(recipe, run={"output": f"{recipe.run.output}_straight"})
    straight = _with(straight, mean_teacher={"initial": str(Path(recipe.run.output) / "burn_in" / "model.pth")})
    one, other = (open_detector(path).state_dict() for path in (resumed, mean_teacher(straight)))
    assert [name for name, value in one.items() if not torch.equal(value, other[name])] == []

    picture = next(toy_set.images.glob("*.png"))
    found = open_checkpoint(resumed, short_side=64, max_side=80)(read_image(picture))
    assert found.image_size == Image.open(picture).size[::-1]
    labels = label(open_detector(resumed), read_image(picture), RelabelConfig(sides=(64, 80), score_threshold=0.0))
    assert labels.image_size == found.image_size
    with pytest.raises(InputError, match="Mask2Former has no nms"):
        open_checkpoint(resumed, nms=0.5)


def test_it_begins_with_a_cascades_trunk_but_does_not_go_on_from_it(recipe, tmp_path):
    trunk = {"backbone": recipe.mask2former.backbone, "backbone_width": recipe.mask2former.backbone_width}
    cascade, path = build_detector(DetectorConfig(**trunk, **TINY)), str(tmp_path / "cascade.pth")
    save_weights(cascade, path)
    begun = open_detector(burn_in(_with(recipe, burn_in={"initial": path, "iterations": 1, "learning_rate": 1e-9})))
    name = "backbone.bottom_up.res3.0.conv1.weight"
    torch.testing.assert_close(begun.state_dict()[name], cascade.state_dict()[name])
    with pytest.raises(InputError, match="holds a cascade detector, wanted is a mask2former"):
        mean_teacher(_with(recipe, mean_teacher={"initial": path}))


def test_a_teacher_without_masks_is_refused_at_once(recipe):
    with pytest.raises(InputError, match=r"set mean_teacher\.teacher_mask_weight above 0"):
        mean_teacher(_with(recipe, mean_teacher={"teacher_mask_weight": 0.0}))


def test_the_teacher_moves_the_thresholds_and_they_decide_what_it_teaches():
    """A small, sure thing and a large, unsure one; the small one's threshold rises, the large one's falls."""
    masks = torch.zeros(2, 32, 32)
    masks[0, :4, :4] = masks[1, 4:, 4:] = 1  # 16 and 112 pixels wide
    found = Found(torch.tensor([0.9, 0.4]), masks, torch.zeros(2, 2), (128, 128))
    thresholds = SizeThresholds(0.5, (0.2, 0.8))

    def taught() -> list[float]:
        targets = teacher_targets(found, threshold=0.9, cover=0.5, masks=True, by_size=thresholds)
        return (targets.boxes[:, 2] - targets.boxes[:, 0]).tolist()

    assert taught() == [16]  # one fixed threshold of 0.5 for all
    for _ in range(60):
        last = taught()
    assert thresholds.values.tolist() == pytest.approx([0.8, 0.5, 0.4], abs=0.02)
    assert last == [16]  # the median is not above itself
    found = dataclasses.replace(found, scores=torch.tensor([0.75, 0.45]))
    assert taught() == [112]
