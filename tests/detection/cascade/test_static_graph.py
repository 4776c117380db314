"""The static graph against its oracle, the ordinary detector made of torchvision's operators."""

import dataclasses

import cv2
import numpy as np
import pytest
import torch
from torchvision.ops import nms, roi_align

from hassod_ros.detection.cascade.mask_head import MaskHead
from hassod_ros.detection.cascade.model import CascadeMaskRCNN
from hassod_ros.detection.cascade.roi_heads import pool_features
from hassod_ros.detection.cascade.static_graph import StaticDetector, SubpixelMaskHead, suppress, with_limits
from hassod_ros.errors import InputError
from tests.tiny_network import narrow_cascade

SMALL = narrow_cascade(rpn_post_nms=(100, 60), rpn_pre_nms=(100, 80), detections=25)


def spread(model: CascadeMaskRCNN) -> CascadeMaskRCNN:
    """Random weights whose detections differ: fresh heads say the same of every place."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if any(part in name for part in ("objectness", "cls_score", "level_predictor", "mask_head.predictor")):
                value.copy_(torch.randn(value.shape, generator=generator) * (0.5 if value.ndim > 1 else 0.1))
            elif "deltas" in name or "bbox_pred" in name:
                value.copy_(torch.randn(value.shape, generator=generator) * 0.05)
        for name, value in model.named_buffers():
            if name.endswith("running_mean"):
                value.copy_(torch.randn(value.shape, generator=generator) * 0.1)
            elif name.endswith("running_var"):
                value.copy_(torch.rand(value.shape, generator=generator) + 0.5)
    return model.eval()


def detector(**changes: object) -> CascadeMaskRCNN:
    torch.manual_seed(0)
    return spread(CascadeMaskRCNN(dataclasses.replace(SMALL, **changes)))


def picture(height: int, width: int, seed: int = 0) -> torch.Tensor:
    """(1, H, W, 3) uint8: smooth blobs."""
    noise = np.random.default_rng(seed).integers(0, 256, (12, 12, 3)).astype(np.uint8)
    return torch.from_numpy(cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC))[None]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"backbone": "mobilenet_v3_large", "fpn_norm": "none"},
        {"backbone_norm": "frozen", "fpn_norm": "frozen"},
        {"stage_ious": (0.5,)},
        {"score_threshold": 0.4},
        {"canonical_box": 60.0, "canonical_mask": 150.0},
    ],
    ids=lambda changes: ",".join(changes) or "default",
)
@torch.no_grad()
def test_static_equals_ordinary(changes):
    model = detector(**changes)
    images = picture(128, 160)
    (expected,) = model(images.permute(0, 3, 1, 2).float())
    boxes, scores, levels, masks, count, converged, features = StaticDetector(model, input_size=(128, 160))(images)
    n = int(count[0])
    assert converged.tolist() == [True]
    assert n == len(expected) > 3
    torch.testing.assert_close(boxes[0, :n], expected.boxes, atol=1e-3, rtol=0)
    torch.testing.assert_close(scores[0, :n], expected.scores, atol=1e-5, rtol=0)
    torch.testing.assert_close(levels[0, :n], expected.level_probabilities, atol=1e-5, rtol=0)
    torch.testing.assert_close(masks[0, :n], expected.mask_probabilities, atol=1e-4, rtol=0)
    assert (scores[0, n:] == 0).all()
    finest = model.pyramid(images.permute(0, 3, 1, 2).float(), [(128, 160)])[0]
    torch.testing.assert_close(features, finest, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_batches_equal_single_images():
    model = detector()
    images = torch.cat([picture(96, 96, seed) for seed in range(3)])
    together = StaticDetector(model, batch=3, input_size=(96, 96))(images)
    single = StaticDetector(model, input_size=(96, 96))
    for i in range(3):
        for values, expected in zip(together, single(images[i : i + 1]), strict=True):
            torch.testing.assert_close(values[i].float(), expected[0].float(), atol=1e-3, rtol=0)


@torch.no_grad()
def test_without_level_heads_everything_is_a_whole():
    model = detector(level_head=False)
    levels = StaticDetector(model, input_size=(96, 96))(picture(96, 96))[2]
    assert (levels.argmax(-1) == 0).all()


@torch.no_grad()
def test_float16_stays_close():
    model = detector()
    images = picture(96, 128)
    exact = StaticDetector(model, input_size=(96, 128))(images)
    half = StaticDetector(model, input_size=(96, 128), half=True)
    found = half(images)
    assert half.backbone.bottom_up.stem.conv1.weight.dtype == torch.float16
    assert all(value.dtype in (torch.float32, torch.int32, torch.bool) for value in found)
    # Best detections only: below, equal scores change places.
    torch.testing.assert_close(found[1][0, :3], exact[1][0, :3], atol=5e-3, rtol=0)
    torch.testing.assert_close(found[0][0, :3], exact[0][0, :3], atol=1.0, rtol=0)


@torch.no_grad()
def test_the_model_is_left_alone():
    model = detector()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    StaticDetector(model, input_size=(64, 64), half=True)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, before[name])


def greedy(boxes: torch.Tensor, threshold: float) -> list[int]:
    return nms(boxes, torch.linspace(1, 0, len(boxes)), threshold).sort().values.tolist()


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.65])
def test_fixpoint_suppression_is_greedy_suppression(threshold):
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        corner = torch.rand(80, 2, generator=generator) * 60
        boxes = torch.cat([corner, corner + torch.rand(80, 2, generator=generator) * 40 + 1], dim=1)
        keep, converged = suppress(boxes, torch.ones(80, dtype=torch.bool), threshold, 12)
        assert converged
        assert torch.nonzero(keep)[:, 0].tolist() == greedy(boxes, threshold)


def test_a_chain_too_long_is_reported():
    """Each box overlaps only the next: greedy keeps every second one, which takes n - 1 steps to find out."""
    boxes = torch.tensor([[3.0 * i, 0, 3.0 * i + 10, 10] for i in range(10)])
    everything = torch.ones(10, dtype=torch.bool)
    few, converged = suppress(boxes, everything, 0.5, 5)
    assert not converged
    assert torch.nonzero(few)[:, 0].tolist() != greedy(boxes, 0.5)
    enough, converged = suppress(boxes, everything, 0.5, 10)
    assert converged
    assert torch.nonzero(enough)[:, 0].tolist() == greedy(boxes, 0.5) == [0, 2, 4, 6, 8]


def test_invalid_boxes_neither_stay_nor_suppress():
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 10], [0, 0, 0, 0], [0, 0, 0, 0]])
    keep, _ = suppress(boxes, torch.tensor([False, True, True, True]), 0.5, 4)
    assert keep.tolist() == [False, True, True, True]


@pytest.mark.parametrize(("canonical", "samples"), [(224.0, 0), (100.0, 0), (100.0, 1)])
@torch.no_grad()
def test_one_atlas_pools_like_the_pyramid_also_at_the_border(canonical, samples):
    static = StaticDetector(detector(sampling_ratio=samples), input_size=(160, 256))
    generator = torch.Generator().manual_seed(3)
    pyramid = [torch.randn(1, 5, 160 // s, 256 // s, generator=generator) for s in (4, 8, 16, 32)]
    corner = torch.rand(60, 2, generator=generator) * torch.tensor([256, 160])
    boxes = torch.cat([corner - torch.rand(60, 2) * 250, corner + torch.rand(60, 2) * 250], dim=1)
    boxes = torch.minimum(boxes.clamp(min=0), torch.tensor([256.0, 160, 256, 160]))
    boxes[:3] = torch.tensor([[0.0, 0, 256, 160], [0, 0, 3, 2], [250, 150, 256, 160]])
    from hassod_ros.detection.cascade.static_graph import _pack

    expected = pool_features(pyramid, torch.cat([torch.zeros(60, 1), boxes], dim=1), 7, canonical, samples)
    torch.testing.assert_close(static._pool(_pack(pyramid), boxes[None], 7, canonical), expected, atol=1e-4, rtol=0)
    direct = roi_align(pyramid[0], [boxes[1:2]], 7, 0.25, samples, aligned=True)
    torch.testing.assert_close(static._pool(_pack(pyramid), boxes[None, 1:2], 7, canonical), direct, atol=1e-5, rtol=0)


@torch.no_grad()
def test_subpixel_mask_head_is_exact():
    torch.manual_seed(0)
    head = MaskHead(8, 12, 2)
    torch.nn.init.normal_(head.deconv.bias)
    torch.nn.init.normal_(head.predictor.weight)
    x = torch.randn(3, 8, 14, 14)
    torch.testing.assert_close(SubpixelMaskHead(head)(x), head(x), atol=1e-5, rtol=1e-5)


def test_limits_change_nothing_but_the_numbers():
    model = detector()
    limited = with_limits(model, proposals=10, detections=5)
    assert (limited.config.rpn_post_nms[1], limited.config.rpn_pre_nms[1], limited.config.detections) == (10, 10, 5)
    torch.testing.assert_close(limited.state_dict(), model.state_dict())


@pytest.mark.parametrize("size", [(100, 128), (0, 32), (31, 32)])
def test_sizes_that_cannot_be(size):
    with pytest.raises(InputError, match="multiples of 32"):
        StaticDetector(detector(), input_size=size)


def test_more_detections_than_proposals():
    with pytest.raises(InputError, match="cannot come from"):
        with_limits(detector(), proposals=5, detections=6)
