"""Mask2Former as ONNX: what torch finds is what ONNX Runtime finds, and the whole path to Instances takes it."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
import onnx
import pytest
import torch

from hassod_ros.deploy import onnx_export
from hassod_ros.deploy.export_options import ExportOptions
from hassod_ros.deploy.onnx_export import export_onnx
from hassod_ros.deploy.parity import Parity, ParityLimits
from hassod_ros.detection.checkpoints import save_weights
from hassod_ros.detection.mask2former.model import Mask2Former
from hassod_ros.errors import InputError
from hassod_ros.instances import Instances
from hassod_ros.runtime.backends import open_backend
from hassod_ros.runtime.backends.torch_backend import TorchBackend
from hassod_ros.runtime.model_info import read_model_info
from hassod_ros.runtime.postprocess import PostprocessOptions, RawDetections
from hassod_ros.runtime.segmenter import Segmenter
from tests.tiny_network import tiny_mask2former

SIZE, DETECTIONS = (64, 96), 8


@pytest.fixture(scope="module")
def model() -> Mask2Former:
    """Random weights that draw masks of many shapes and relate some of them."""
    torch.manual_seed(0)
    model = Mask2Former(tiny_mask2former(queries=10, cover=0.3))
    with torch.no_grad():
        for name, value in model.body.pixel_decoder.encoder.named_parameters():
            if "sampling_offsets.bias" in name:  # samples beyond the border, too
                value.normal_(std=6)
        model.body.transformer_module.queries_features.weight.normal_(std=3)
        model.ancestor_head.ancestor.weight.mul_(5)
    return model.eval()


def picture(seed: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(0, 256, (8, 12, 3), np.uint8)
    return cv2.resize(noise, size[::-1], interpolation=cv2.INTER_CUBIC)


@pytest.fixture(scope="module")
def options(tmp_path_factory) -> ExportOptions:
    folder = tmp_path_factory.mktemp("pictures")
    for i in range(2):
        cv2.imwrite(str(folder / f"{i}.png"), picture(i))
    return ExportOptions(
        input_size=SIZE, detections=DETECTIONS, images=folder, score_thresholds=(0.0, 0.0, 0.0), recipe="toy"
    )


@pytest.fixture(scope="module")
def exported(model, options, tmp_path_factory):
    path = tmp_path_factory.mktemp("exported") / "model.onnx"
    lines: list[str] = []
    info = export_onnx(model, path, options, weights_sha256="a" * 64, report=lines.append)
    return path, info, lines


def test_the_file_says_what_it_is(exported):
    path, info, lines = exported
    assert read_model_info(path) == info
    assert (info.architecture, info.input_size, info.detections) == ("mask2former_resnet18", SIZE, DETECTIONS)
    assert (info.mask_stride, info.level_source, info.parent_coverage) == (4, "coverage", 0.3)
    assert any("TensorRT's support table passed" in line for line in lines)
    kinds = {node.op_type for node in onnx.load(path).graph.node}
    assert not {"GridSample", "NonZero", "If", "Loop"} & kinds


def test_onnx_runtime_finds_what_torch_finds(exported, model):
    path, info, _ = exported
    limited = Mask2Former(model.config.changed(detections=DETECTIONS))
    limited.load_state_dict(model.state_dict())
    expected, found = (
        TorchBackend(limited.eval(), info, features=True),
        open_backend(path, "onnxruntime", features=True),
    )
    for seed in range(3):
        image = picture(seed)[None]
        one, other = expected.infer(image), found.infer(image)
        assert one.count.tolist() == other.count.tolist() == [DETECTIONS]
        np.testing.assert_allclose(other.scores, one.scores, atol=1e-5)
        before, after = (raw.masks > 0.5 for raw in (one, other))
        shares = before.mean((2, 3))
        assert ((shares > 0.02) & (shares < 0.98)).sum() >= 4  # there is something to compare
        union = np.maximum((before | after).sum((2, 3)), 1)
        assert ((before & after).sum((2, 3)) / union >= 0.99)[(before | after).any((2, 3))].all()
        np.testing.assert_allclose(other.ancestors, one.ancestors, atol=1e-4)
        assert one.ancestors.std() > 0.1
        np.testing.assert_allclose(other.boxes, one.boxes, atol=0.5)
        np.testing.assert_allclose(other.features, one.features, atol=1e-3)


def test_the_runtime_arranges_masks_by_their_ancestors(exported, model):
    segmenter = Segmenter(exported[0])
    image = picture(5)
    found = segmenter(image)
    with torch.no_grad():
        (predictions,) = model(torch.from_numpy(image).permute(2, 0, 1)[None].float())
    wanted = predictions.select(slice(DETECTIONS)).to_instances(SIZE)
    assert found.parents.tolist() == wanted.parents.tolist()
    assert (found.parents >= 0).any()
    np.testing.assert_allclose(found.scores, wanted.scores, atol=1e-5)
    for one, other in zip(dense(found), dense(wanted), strict=True):
        assert (one & other).sum() >= 0.99 * (one | other).sum()


def dense(instances: Instances) -> np.ndarray:
    drawn = np.zeros((len(instances), *instances.image_size), bool)
    for target, (x0, y0, x1, y1), mask in zip(drawn, instances.regions.tolist(), instances.masks, strict=True):
        target[y0:y1, x0:x1] = mask
    return drawn


def test_pictures_of_any_size_and_thresholds(exported):
    segmenter = Segmenter(exported[0])
    everything = segmenter(picture(1, (200, 170)))
    assert everything.image_size == (200, 170)
    assert len(everything) > 2
    least = float(np.median(everything.scores))
    segmenter.options = dataclasses.replace(segmenter.options, score_thresholds=(least,) * 3)
    some = segmenter(picture(1, (200, 170)))
    assert 0 < len(some) < len(everything)
    assert (some.scores >= least).all()
    segmenter.options = dataclasses.replace(segmenter.options, max_instances=1)
    assert len(segmenter(picture(1, (200, 170)))) == 1


def test_a_checkpoint_runs_without_an_export(model, tmp_path):
    save_weights(model, tmp_path / "model.pth")
    segmenter = Segmenter(
        tmp_path / "model.pth", input_size=SIZE, device="cpu", options=PostprocessOptions(score_thresholds=(0, 0, 0))
    )
    assert len(segmenter(picture(2))) > 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"precision": "fp16", "annotations": "a", "annotated_images": "b"}, "choose fp32 or int8"),
        ({"color_weight": 1.0}, "leave them out for a Mask2Former"),
        ({"input_size": (64, 90)}, "give multiples of 32"),
    ],
)
def test_what_a_mask2former_cannot_be(model, options, tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        export_onnx(
            model,
            tmp_path / "m.onnx",
            dataclasses.replace(options, **changes),
            weights_sha256="",
            report=lambda _: None,
        )
    assert not list(tmp_path.iterdir())


def test_other_ancestors_are_no_parity():
    raw = RawDetections(
        boxes=np.array([[[0, 0, 8, 8], [0, 0, 4, 4]]], np.float32),
        scores=np.array([[0.9, 0.8]], np.float32),
        level_probabilities=np.tile(np.float32([1, 0, 0]), (1, 2, 1)),
        masks=np.zeros((1, 2, 4, 4), np.float32),
        count=np.array([2], np.int32),
        converged=np.ones(1, bool),
        ancestors=np.array([[[0.0, 0.1], [0.9, 0.0]]], np.float32),
        mask_stride=4,
    )
    parity, limits = Parity(), ParityLimits()
    swapped = dataclasses.replace(
        raw, boxes=raw.boxes[:, ::-1], scores=raw.scores[:, ::-1], ancestors=raw.ancestors[:, ::-1, ::-1]
    )
    parity.add(raw, swapped, limits)
    assert parity.offence(limits) is None
    parity.add(raw, dataclasses.replace(raw, ancestors=raw.ancestors + np.float32(2e-4)), limits)
    assert parity.offence(limits) == "the output `ancestors` differs by 0.0002"


def test_int8(exported, model, options, tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_export, "trace", lambda *_: onnx.load(exported[0]))  # traced once is enough
    monkeypatch.setattr(onnx_export, "average_recall", lambda *_: 0.5)
    given = dataclasses.replace(options, precision="int8", annotations="a.json", annotated_images="b")
    export_onnx(model, tmp_path / "int8.onnx", given, weights_sha256="", report=lambda _: None)
    assert read_model_info(tmp_path / "int8.onnx").precision == "int8"
    image = picture(3)[None]
    plain, small = (
        open_backend(path, "onnxruntime-cpu").infer(image) for path in (exported[0], tmp_path / "int8.onnx")
    )
    assert small.count.tolist() == plain.count.tolist()
    assert np.isfinite(small.ancestors).all()
    np.testing.assert_allclose(np.sort(small.scores), np.sort(plain.scores), atol=0.15)
