import dataclasses
import math

import pytest
import torch
import torchvision
from torch.utils._python_dispatch import TorchDispatchMode

from hassod_ros.detection.base import LossOptions, Targets
from hassod_ros.detection.boxes import encode_boxes
from hassod_ros.detection.cascade.losses import (
    LabelledRois,
    PaddedObjects,
    drop_loss_weights,
    label_proposals,
    mask_losses,
    object_crops,
    rpn_losses,
    stage_losses,
)
from hassod_ros.detection.cascade.model import CascadeMaskRCNN
from hassod_ros.detection.cascade.roi_heads import StageOutput
from hassod_ros.detection.cascade.rpn import AnchorPredictions
from tests.tiny_network import narrow_cascade

CONFIG = narrow_cascade(rpn_pre_nms=(200, 100), rpn_post_nms=(200, 50), box_samples=32)
SIZES = [(96, 128), (90, 110)]
NOTHING = Targets(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), torch.zeros(0, 96, 128, dtype=torch.bool))


def objects() -> Targets:
    masks = torch.zeros(3, 96, 128, dtype=torch.bool)
    masks[0, 10:60, 20:90] = True
    masks[1, 30:50, 30:60] = True
    masks[2, 40:80, 60:100] = True
    boxes = torch.tensor([[20, 10, 90, 60], [30, 30, 60, 50], [60, 40, 100, 80]], dtype=torch.float32)
    return Targets(boxes, torch.tensor([0, 1, 2]), masks)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return CascadeMaskRCNN(CONFIG).train()


@pytest.fixture
def images():
    return torch.rand(2, 3, 96, 128, generator=torch.Generator().manual_seed(0)) * 255


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def test_rpn_losses_by_hand():
    anchors = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 20], [50, 50, 60, 60], [0, 0, 10, 14]])
    logits = torch.tensor([[0.3, -0.2, 1.5, 9.0], [0.1, 0.2, 0.3, 0.4]])
    deltas = torch.randn(2, 4, 4, generator=torch.Generator().manual_seed(0))
    goal = torch.tensor([[0.0, 0, 10, 20]])  # IoU 0.5, 1, 0, 0.7
    targets = [Targets(goal, torch.zeros(1, dtype=torch.int64)), NOTHING]
    losses = rpn_losses(AnchorPredictions(anchors, logits, deltas, (4,)), PaddedObjects.of(targets), CONFIG)
    # Anchor 0 is ignored; 1 and 3 are foreground; in the second image all are background.
    entropy = -math.log(sigmoid(-0.2)) - math.log(sigmoid(9.0)) - math.log(1 - sigmoid(1.5))
    entropy -= sum(math.log(1 - sigmoid(value)) for value in (0.1, 0.2, 0.3, 0.4))
    assert losses["loss_rpn_cls"].item() == pytest.approx(entropy / (256 * 2), rel=1e-5)
    distance = deltas[0, 1].abs().sum()
    distance += (deltas[0, 3] - torch.tensor([0, 3 / 14, 0, math.log(20 / 14)])).abs().sum()
    assert losses["loss_rpn_loc"].item() == pytest.approx(distance.item() / (256 * 2), rel=1e-5)


def labelled() -> LabelledRois:
    rois = torch.tensor([[0.0, 0, 0, 10, 10], [0, 5, 5, 20, 20], [1, 0, 0, 8, 8], [1, 3, 3, 9, 9]])
    boxes = torch.tensor([[0.0, 0, 12, 10], [5, 5, 25, 20], [0, 0, 8, 8], [0, 0, 8, 8]])
    valid, positive = torch.ones(4, dtype=torch.bool), torch.tensor([True, True, False, False])
    return LabelledRois(rois, valid, positive, boxes, torch.tensor([0, 2, 1, 1]), torch.tensor([0, 1, 0, 0]))


def output(seed: int = 0) -> StageOutput:
    generator = torch.Generator().manual_seed(seed)
    return StageOutput(*(torch.randn(4, width, generator=generator) for width in (2, 4, 3)))


def test_stage_losses_by_hand():
    rois, found = labelled(), output()
    losses = stage_losses(rois, found, (10, 10, 5, 5))
    entropies = [
        -found.class_logits[i, column].item() + torch.logsumexp(found.class_logits[i], 0).item()
        for i, column in enumerate((0, 0, 1, 1))  # object first, background last
    ]
    assert losses["loss_cls"].item() == pytest.approx(sum(entropies) / 4, rel=1e-5)
    goal = encode_boxes(rois.rois[:2, 1:], rois.boxes[:2], (10, 10, 5, 5))
    assert losses["loss_box_reg"].item() == pytest.approx((found.deltas[:2] - goal).abs().sum().item() / 4, rel=1e-5)
    focal = 0.0
    for i, level in enumerate((0, 2)):
        for column in range(3):
            p = sigmoid(found.level_logits[i, column].item())
            focal += 0.25 * (1 - p) ** 2 * -math.log(p) if column == level else 0.75 * p**2 * -math.log(1 - p)
    assert losses["loss_level"].item() == pytest.approx(focal / 6, rel=1e-5)


def test_dropped_boxes_stay_in_the_mean():
    rois, found = labelled(), output()
    weights = torch.tensor([1.0, 0.0, 1.0, 0.0])
    entropy = torch.nn.functional.cross_entropy(found.class_logits, torch.tensor([0, 0, 1, 1]), reduction="none")
    losses, plain = stage_losses(rois, found, (10, 10, 5, 5), weights), stage_losses(rois, found, (10, 10, 5, 5))
    torch.testing.assert_close(losses["loss_cls"], (entropy[0] + entropy[2]) / 4)
    assert torch.equal(losses["loss_box_reg"], plain["loss_box_reg"])
    assert torch.equal(losses["loss_level"], plain["loss_level"])


def test_drop_loss_compares_with_every_object_of_the_image():
    # 101 objects: the last one counts as well.
    corner = torch.arange(101.0)[:, None] * 20
    targets = [
        Targets(torch.cat([corner, corner * 0, corner + 10, corner * 0 + 10], 1), torch.zeros(101).long()),
        NOTHING,
    ]
    boxes = torch.tensor([[0.0, 0, 10, 10], [2005, 5, 2015, 15], [12, 0, 18, 10], [9.95, 0, 19.95, 10], [0, 0, 10, 10]])
    weights = drop_loss_weights(torch.tensor([0.0, 0, 0, 0, 1]), boxes, PaddedObjects.of(targets), 0.01)
    assert weights.tolist() == [1, 1, 0, 0, 0]  # the fourth overlaps by 0.0025, the fifth lies in an empty image


def test_proposals_include_the_objects_and_their_labels():
    targets = [objects(), NOTHING]
    proposals = [torch.tensor([[21.0, 11, 90, 60], [100, 0, 120, 20]]), torch.tensor([[0.0, 0, 30, 30]])]
    found = label_proposals(proposals, PaddedObjects.of(targets), CONFIG)
    rows = {tuple(found.rois[i].tolist()): i for i in range(len(found.rois)) if found.valid[i]}
    assert len(rows) == 6  # 2 + 3 objects, 1 + 0
    near = rows[0.0, 21.0, 11.0, 90.0, 60.0]
    assert found.positive[near]
    assert found.boxes[near].tolist() == [20, 10, 90, 60]
    for i, box in enumerate(targets[0].boxes.tolist()):
        row = rows[(0.0, *box)]
        assert found.positive[row]
        assert (found.objects[row], found.levels[row]) == (i, i)
    assert not found.positive[rows[0.0, 100.0, 0.0, 120.0, 20.0]]
    assert not found.positive[rows[1.0, 0.0, 0.0, 30.0, 30.0]]


def test_proposals_are_sampled(model):
    corner = torch.rand(500, 2) * 40
    proposals = [torch.cat([corner, corner + 30], dim=1), torch.cat([corner, corner + 5], dim=1)]
    both = PaddedObjects.of([objects(), NOTHING])
    found = label_proposals(proposals, both, dataclasses.replace(CONFIG, box_positive=0.25))
    assert (found.rois[:, 0] == 0).sum() == (found.rois[:, 0] == 1).sum() == 32
    assert found.positive.sum() == 8


def test_mask_loss_by_hand(model, images):
    """Boxes of 28 x 28 pixels: each cell of the target is a pixel."""
    torch.nn.init.normal_(model.roi_heads.mask_head.predictor.weight, std=0.5)
    pyramid = model.eval().pyramid(images, SIZES)
    target = objects()
    rois = torch.tensor([[0.0, 10, 5, 38, 33], [0, 50, 30, 78, 58]])
    labelled = LabelledRois(
        rois=torch.cat([rois, torch.tensor([[1.0, 0, 0, 50, 50]] * 2)]),
        valid=torch.tensor([True, True, True, False]),
        positive=torch.tensor([True, True, False, False]),
        boxes=torch.zeros(4, 4),
        levels=torch.zeros(4, dtype=torch.int64),
        objects=torch.tensor([0, 2, 0, 0]),
    )
    losses = mask_losses(model.roi_heads, pyramid, labelled, [target, NOTHING])
    logits = model.roi_heads.masks(pyramid, rois)
    goal = torch.stack([target.masks[0, 5:33, 10:38], target.masks[2, 30:58, 50:78]]).float()
    expected = torch.nn.functional.binary_cross_entropy_with_logits(logits, goal)
    torch.testing.assert_close(losses["loss_mask"], expected)
    assert set(losses) == {"loss_mask"}


def names(stages: int) -> set[str]:
    each = ("loss_cls", "loss_box_reg", "loss_level")
    return {"loss_rpn_cls", "loss_rpn_loc", "loss_mask"} | {f"{n}_stage{k}" for n in each for k in range(stages)}


@pytest.mark.parametrize(
    ("targets", "drop_loss_iou"),
    [
        ((objects(), NOTHING), None),
        ((objects(), NOTHING), 0.01),
        ((NOTHING, NOTHING), None),
        ((NOTHING, NOTHING), 0.01),
    ],
    ids=["one", "one, DropLoss", "none", "none, DropLoss"],
)
def test_every_parameter_learns_whatever_the_targets(targets, drop_loss_iou, images):
    torch.manual_seed(0)
    model = CascadeMaskRCNN(CONFIG).train()
    losses = model.losses(images, SIZES, targets, LossOptions(drop_loss_iou=drop_loss_iou))
    assert set(losses) == names(3)
    assert all(loss.ndim == 0 and torch.isfinite(loss) for loss in losses.values())
    sum(losses.values()).backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())
    classes = [losses[f"loss_cls_stage{k}"].item() for k in range(3)]
    if targets[0] is NOTHING:
        assert losses["loss_mask"] == losses["loss_rpn_loc"] == losses["loss_box_reg_stage0"] == 0
        assert losses["loss_rpn_cls"] > 0
        assert (max(classes) == 0) == (drop_loss_iou is not None)
    else:
        assert min(classes) > 0
        assert losses["loss_mask"] > 0


def test_one_stage_without_levels(images):
    model = CascadeMaskRCNN(dataclasses.replace(CONFIG, stage_ious=(0.5,), level_head=False)).train()
    losses = model.losses(images, SIZES, [objects(), NOTHING])
    assert set(losses) == {"loss_rpn_cls", "loss_rpn_loc", "loss_cls_stage0", "loss_box_reg_stage0", "loss_mask"}


def test_chance_follows_the_seed(model, images):
    def losses(seed: int) -> list[float]:
        torch.manual_seed(seed)
        with torch.no_grad():
            found = model.losses(images, SIZES, [objects(), objects()])
        return [value.item() for value in found.values()]

    assert losses(1) == losses(1) != losses(2)


def test_the_weight_of_masks_scales_their_loss(model, images):
    def losses(weight: float) -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        return model.losses(images, SIZES, [objects(), NOTHING], LossOptions(mask_weight=weight))

    plain, weighted = losses(1.0), losses(2.0)
    for name, value in plain.items():
        torch.testing.assert_close(weighted[name], value * (2.0 if "mask" in name else 1.0))


def test_weight_zero_needs_no_masks(model, images):
    targets = [dataclasses.replace(objects(), masks=None), NOTHING]
    losses = model.losses(images, SIZES, targets, LossOptions(mask_weight=0.0))
    assert losses["loss_mask"] == 0
    sum(losses.values()).backward()
    gradient = model.roi_heads.mask_head.predictor.weight.grad
    assert gradient is not None
    assert not gradient.any()


def test_masks_are_missed_where_they_count(model, images):
    targets = [dataclasses.replace(objects(), masks=None), NOTHING]
    with pytest.raises(ValueError, match="mask_weight"):
        model.losses(images, SIZES, targets)


def test_bfloat16_stays_close(model, images):
    def losses() -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        return model.losses(images, SIZES, [objects(), NOTHING], LossOptions(drop_loss_iou=0.01))

    exact = losses()
    with torch.autocast("cpu", torch.bfloat16):
        found = losses()
    sum(found.values()).backward()
    for name, value in found.items():
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, exact[name], rtol=0.2, atol=0.03)
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())


def test_a_diverged_network_shows_in_the_losses(model, images):
    model.proposal_generator.rpn_head.conv.weight.data.fill_(float("nan"))
    losses = model.losses(images, SIZES, [objects(), NOTHING])
    assert torch.isnan(losses["loss_rpn_cls"])


def test_mask_targets_are_those_of_a_plane_for_every_box():
    """As Detectron2 crops them: one copy of the object's whole mask for each box, which is what this saves."""
    random = torch.Generator().manual_seed(3)
    masks = torch.rand(5, 60, 90, generator=random) > 0.5
    objects = torch.randint(0, 5, (40,), generator=random)
    corner = torch.rand(40, 2, generator=random) * 40
    boxes = torch.cat([corner, corner + 3 + torch.rand(40, 2, generator=random) * 40], dim=1)
    target = Targets(boxes, objects, masks)
    found = object_crops(0, target, torch.cat([torch.full((40, 1), 7.0), boxes], dim=1), objects, 28)
    rois = torch.cat([torch.arange(40.0)[:, None], boxes], dim=1)
    expected = torchvision.ops.roi_align(
        masks[objects].float()[:, None], rois, 28, 1.0, sampling_ratio=0, aligned=True
    )[:, 0]
    assert torch.equal(found, expected >= 0.5)
    assert object_crops(0, target, rois[:0], objects[:0], 28).shape == (0, 28, 28)


class Asked(TorchDispatchMode):
    """Operations whose result's shape depends on values: for each of them a GPU would be waited for."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        indices = args[1] if name in ("index", "index_put", "index_put_") else ()
        by_mask = any(each is not None and each.dtype == torch.bool for each in indices)
        if by_mask or name in ("nonzero", "bincount", "masked_select", "_unique2", "repeat_interleave"):
            self.names.append(name)
        return function(*args, **(kwargs or {}))


def test_no_shape_of_the_step_depends_on_values_but_the_proposals_and_masks(model, images):
    with Asked() as asked:
        losses = model.losses(images, SIZES, [objects(), NOTHING], LossOptions(drop_loss_iou=0.01))
        sum(losses.values()).backward()
    assert asked.names == []
