"""Detectron2's outputs on one image, from weights that follow from their names."""

import importlib.util
import json

import numpy as np
import pytest
import torch
from pycocotools import mask as rle
from torchvision.ops import box_iou

from hassod_ros.detection.boxes import to_rois
from hassod_ros.detection.cascade.config import DetectorConfig
from hassod_ros.detection.cascade.model import CascadeMaskRCNN
from hassod_ros.images import read_image

SIZES = [(480, 640)]


@pytest.fixture(scope="module")
def reference(shared):
    folder = shared / "reference"
    if not (folder / "detector_case.npz").is_file():
        pytest.skip(f"{folder} holds no detector_case.npz")
    return folder


@pytest.fixture(scope="module")
def case(reference):
    return np.load(reference / "detector_case.npz")


@pytest.fixture(scope="module")
def shapes(reference):
    return {name: tuple(shape) for name, shape in json.loads((reference / "detector_keys.json").read_text()).items()}


@pytest.fixture(scope="module")
def run(reference, shapes):
    """Model, pyramid, proposals, stage outputs and detections: one forward pass for all tests."""
    spec = importlib.util.spec_from_file_location("named_weights", reference / "named_weights.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    model = CascadeMaskRCNN(DetectorConfig(detections=300)).eval()
    weights = {name: torch.from_numpy(np.asarray(value)) for name, value in module.named_weights(shapes).items()}
    model.load_state_dict(weights)
    image = torch.from_numpy(read_image(reference / "detector_input_640x480.png")).permute(2, 0, 1)[None]
    with torch.inference_mode():
        pyramid = model.pyramid(image, SIZES)
        proposals = model.proposal_generator.propose(model.proposal_generator(pyramid), SIZES)[0]
        outputs, _ = model.roi_heads.run_stages(pyramid, to_rois([proposals.boxes]), SIZES)
        detections = model.roi_heads.detect(pyramid, [proposals.boxes], SIZES)[0]
    return pyramid, proposals, outputs, detections


def test_names_and_shapes_are_detectron2s(shapes):
    with torch.device("meta"):
        model = CascadeMaskRCNN(DetectorConfig())
    assert {name: tuple(value.shape) for name, value in model.state_dict().items()} == shapes


def test_pyramid(run, case):
    pyramid = run[0]
    np.testing.assert_allclose([level.mean().item() for level in pyramid], case["backbone_mean"], atol=1e-4)
    np.testing.assert_allclose([level.std().item() for level in pyramid], case["backbone_std"], atol=1e-4)
    np.testing.assert_allclose(pyramid[2][0, :8, :8, :8], case["p4_corner"], atol=1e-4)


def matched(found: torch.Tensor, expected: np.ndarray) -> np.ndarray:
    """Index in `expected` of each found box, one to one: equal scores may swap two of them."""
    order = box_iou(found, torch.from_numpy(expected)).argmax(dim=1).numpy()
    assert len(found) == len(expected) == len(np.unique(order))
    return order


def test_proposals(run, case):
    order = matched(run[1].boxes, case["proposals"])
    np.testing.assert_allclose(run[1].boxes, case["proposals"][order], atol=1e-3)
    np.testing.assert_allclose(run[1].logits, case["objectness"][order], atol=1e-3)
    assert np.abs(order - np.arange(1000)).max() <= 1


@pytest.mark.parametrize("stage", [0, 1, 2])
def test_stages(run, case, stage):
    output, order = run[2][stage], matched(run[1].boxes, case["proposals"])
    np.testing.assert_allclose(output.class_logits, case["stage_cls"][stage][order], atol=1e-3)
    np.testing.assert_allclose(output.deltas, case["stage_deltas"][stage][order], atol=1e-3)
    np.testing.assert_allclose(output.level_logits, case["stage_level"][stage][order], atol=1e-3)


def test_detections(run, case):
    found, order = run[3], matched(run[3].boxes, case["boxes"])
    assert box_iou(found.boxes, torch.from_numpy(case["boxes"][order])).diagonal().min() >= 0.999
    np.testing.assert_allclose(found.scores, case["scores"][order], atol=1e-4)
    np.testing.assert_array_equal(found.level_probabilities.argmax(dim=1), case["levels"][order])


def test_masks(run, case):
    instances, order = run[3].to_instances((480, 640)), matched(run[3].boxes, case["boxes"])
    codes = [{"size": [480, 640], "counts": code.encode("ascii")} for code in case["mask_rle"][order]]
    kept = [i for i, code in enumerate(codes) if rle.area(code)]
    assert len(instances) == len(kept)
    for i, mask in zip(kept, instances.dense(), strict=True):
        expected = rle.decode(codes[i]).astype(bool)
        assert (mask & expected).sum() / (mask | expected).sum() >= 0.99, f"mask {i}"
    np.testing.assert_array_equal(instances.levels, case["levels"][order][kept])
