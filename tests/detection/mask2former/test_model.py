import copy
import dataclasses
import inspect
from pathlib import Path

import pytest
import torch

from hassod_ros.default_model import default_model
from hassod_ros.detection.base import Detector, InstanceOptions, LossOptions, Targets
from hassod_ros.detection.cascade.config import DetectorConfig
from hassod_ros.detection.checkpoints import (
    build_detector,
    load_weights,
    open_cascade,
    open_detector,
    read_config,
    save_weights,
)
from hassod_ros.detection.mask2former.config import Mask2FormerConfig
from hassod_ros.detection.mask2former.model import Mask2Former, best_overlap
from hassod_ros.errors import InputError
from hassod_ros.learning.config import read_recipe

RECIPE = Path(__file__).parents[3] / "config" / "recipes" / "default_model.yaml"
SIZES = [(60, 90), (50, 80)]


def images() -> torch.Tensor:
    return torch.rand(2, 3, 60, 90, generator=torch.Generator().manual_seed(1)) * 255


def cut(target: Targets) -> Targets:
    assert target.masks is not None
    return dataclasses.replace(target, masks=target.masks[:, :50, :80])


def test_it_keeps_the_protocols_promises():
    wanted, there = (inspect.signature(kind.losses).parameters for kind in (Detector, Mask2Former))
    assert list(wanted) == list(there)
    assert issubclass(Mask2Former, Detector)


def test_detections_come_by_score_and_without_padding(mask2former):
    with torch.no_grad():
        found = copy.deepcopy(mask2former).eval()(images(), SIZES)
    assert [each.masks.shape for each in found] == [(12, 15, 23), (12, 13, 20)]
    for each in found:
        assert (each.scores.diff() <= 0).all()
        assert ((each.ancestors >= 0) & (each.ancestors <= 1)).all()
        assert each.to_instances((100, 160)).image_size == (100, 160)


@pytest.mark.parametrize("kinds", ["nested nested", "nested empty", "empty empty"])
@pytest.mark.parametrize("drop", [None, 0.01])
def test_every_parameter_learns_whatever_there_is_to_find(mask2former, nested, empty, kinds, drop):
    model = copy.deepcopy(mask2former).train()
    first, second = ({"nested": nested, "empty": empty}[kind] for kind in kinds.split())
    losses = model.losses(images(), SIZES, [first, cut(second)], LossOptions(drop_loss_iou=drop))
    assert set(losses) == {"loss_class", "loss_mask", "loss_dice", "loss_ancestor"}
    assert (float(losses["loss_mask"].detach()) > 0) == ("nested" in kinds)
    torch.stack(list(losses.values())).sum().backward()
    assert [
        name for name, each in model.named_parameters() if each.grad is None or not each.grad.isfinite().all()
    ] == []


def test_more_objects_than_queries_or_than_are_wanted(mask2former, nested):
    many = Targets(
        *(
            getattr(nested, name).repeat(10, *[1] * (getattr(nested, name).dim() - 1))
            for name in ("boxes", "levels", "masks")
        )
    )
    chain = dataclasses.replace(many, parents=torch.arange(-1, 29))
    sample = mask2former._sample(chain)
    assert len(sample.boxes) == len(sample.masks) == 12  # as many as there are queries
    assert sample.parents.tolist() == list(range(-1, 11))  # the nearest ancestor that stays
    losses = mask2former.losses(images()[:1], SIZES[:1], [chain])
    assert all(value.isfinite() for value in losses.values())


def test_masks_are_asked_for(mask2former, nested):
    with pytest.raises(InputError, match=r"set mean_teacher\.teacher_mask_weight above 0"):
        mask2former.losses(images()[:1], SIZES[:1], [dataclasses.replace(nested, masks=None)])


def test_weights_weigh(mask2former, nested):
    def losses(weight: float = 1.0, **values) -> dict[str, float]:
        model = copy.deepcopy(mask2former)
        model.config = dataclasses.replace(model.config, **values)
        torch.manual_seed(0)
        with torch.no_grad():
            return {
                k: float(v)
                for k, v in model.losses(images()[:1], SIZES[:1], [nested], LossOptions(mask_weight=weight)).items()
            }

    base, halved = losses(), losses(0.5)
    assert halved["loss_mask"] == pytest.approx(base["loss_mask"] / 2)
    assert halved["loss_dice"] == pytest.approx(base["loss_dice"] / 2)
    assert halved["loss_class"] == pytest.approx(base["loss_class"])
    assert losses(ancestor_weight=3.0)["loss_ancestor"] == pytest.approx(3 * base["loss_ancestor"])


def test_overlap_is_the_best_iou():
    truth = torch.zeros(2, 16, 16)
    truth[0, :8, :8] = 1
    truth[1, 8:, :] = 1
    logits = torch.full((3, 4, 4), -1.0)
    logits[0, :2, :2] = 1  # the first object
    logits[1, 1:, :2] = 1  # 6 cells: 4 of the second object's 8
    cells = torch.nn.functional.avg_pool2d(truth, 4).flatten(1)
    assert best_overlap(logits, cells).tolist() == pytest.approx([1, 4 / 10, 0])
    assert best_overlap(logits, cells[:0]).tolist() == [0, 0, 0]


def test_it_learns_a_picture_by_heart(small_query_config, nested):
    """Masks and the ancestors among them, in a few seconds: each object's outline, and who contains whom."""
    torch.manual_seed(0)
    model = Mask2Former(small_query_config.changed(ancestor_weight=2.0)).train()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    image = images()[:1]
    for mask, shade in zip(nested.masks, (40.0, 120.0, 220.0), strict=True):
        image[0, :, mask] = shade
    for _ in range(70):
        loss = torch.stack(list(model.losses(image, SIZES[:1], [nested]).values())).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        (found,) = model(image, SIZES[:1])  # with the batch's own statistics, as it has learned
    found = found.select(slice(3))
    assert float(found.scores.min()) > 0.5
    learned = found.to_instances(SIZES[0], InstanceOptions(cover=0.0))
    masks, wanted = torch.from_numpy(learned.dense()).flatten(1).float(), nested.masks.flatten(1).float()
    common = masks @ wanted.T
    overlap = (common / (masks.sum(1)[:, None] + wanted.sum(1) - common)).tolist()
    best = [max(range(3), key=row.__getitem__) for row in overlap]
    assert sorted(best) == [0, 1, 2]
    assert min(row[i] for row, i in zip(overlap, best, strict=True)) > 0.5  # the smallest is 2 x 2 cells
    parents = {child: best[parent] if parent >= 0 else -1 for child, parent in zip(best, learned.parents, strict=True)}
    assert parents == {0: -1, 1: 0, 2: 1}


def test_a_vit_serves_as_trunk(small_query_config):
    model = Mask2Former(small_query_config.changed(backbone="vit_tiny_patch16_224"))
    assert [each.shape[-1] for each in model.backbone(torch.zeros(1, 3, 64, 96))] == [24, 12, 6, 3]


def test_checkpoints_say_what_they_hold(mask2former, small_query_config, tmp_path):
    path = tmp_path / "queries.pth"
    save_weights(mask2former, path)
    assert read_config(path) == small_query_config
    again = open_detector(path)
    assert isinstance(again, Mask2Former)
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in mask2former.state_dict().items())
    with pytest.raises(InputError, match="holds a mask2former detector, this works with a cascade only"):
        open_cascade(path)


def test_checkpoints_of_the_other_detector_are_refused(mask2former, small_config, tmp_path):
    cascade = build_detector(small_config)
    save_weights(cascade, tmp_path / "cascade.pth")
    with pytest.raises(InputError, match="holds a cascade detector, wanted is a mask2former"):
        load_weights(mask2former, tmp_path / "cascade.pth")
    save_weights(mask2former, tmp_path / "queries.pth")
    with pytest.raises(InputError, match="holds a mask2former detector, wanted is a cascade"):
        load_weights(cascade, tmp_path / "queries.pth")


def test_a_cascade_gives_its_trunk_where_that_is_asked_for(mask2former, small_query_config, tmp_path):
    """Of a checkpoint as it is; of an export with normalisations that change nothing."""
    torch.manual_seed(1)
    cascade = build_detector(DetectorConfig(backbone="resnet18", backbone_width=0.25, fpn_channels=16, box_width=32))
    save_weights(cascade, tmp_path / "cascade.pth")
    model = copy.deepcopy(mask2former)
    before = copy.deepcopy(model.state_dict())
    report = load_weights(model, tmp_path / "cascade.pth", trunk_of_others=True)
    assert {name.split(".")[0] for name in report.loaded} == {"backbone"}
    for name, value in model.state_dict().items():
        assert torch.equal(value, cascade.state_dict()[name] if name in report.loaded else before[name]), name

    half = Mask2Former(small_query_config.changed(backbone_width=0.5))
    load_weights(half, default_model(), trunk_of_others=True)
    shipped = build_detector(read_recipe(["--config", str(RECIPE)], prog="detector", description="").model)
    load_weights(shipped, default_model())
    pixels = images()[:, :, :32, :64]
    with torch.no_grad():
        wanted = shipped.eval().backbone.bottom_up(pixels)
        for one, other in zip(half.eval().backbone(pixels), wanted, strict=True):
            torch.testing.assert_close(one, other)
    with pytest.raises(InputError, match=r"does not fit the model: \d+ misshapen tensors"):
        load_weights(model, default_model(), trunk_of_others=True)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"width": 40}, "width must be a multiple of 32"),
        ({"queries": 0}, "queries must be at least 1"),
        ({"cover": 2.0}, "cover must lie in"),
        ({"ancestor_limit": 0.5}, "ancestor_limit must be at least 1"),
        ({"backbone_norm": "group"}, "choose one of batch, sync, frozen"),
        ({"mask_threshold": 1.0}, "mask_threshold must lie between 0 and 1"),
    ],
)
def test_names_what_cannot_be(values, message):
    with pytest.raises(InputError, match=message):
        Mask2FormerConfig(**values)


def test_what_only_a_cascade_has_is_named():
    with pytest.raises(InputError, match="Mask2Former has no nms"):
        Mask2FormerConfig().changed(nms=0.5)
    assert DetectorConfig().changed(nms=0.6).nms == 0.6
