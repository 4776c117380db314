"""Exports of a tiny detector with random weights; every gate is made to fail once."""

import dataclasses
import json

import cv2
import numpy as np
import onnx
import pytest
import torch

from hassod_ros.deploy import onnx_export
from hassod_ros.deploy.export_options import ExportOptions
from hassod_ros.deploy.half_storage import store_half
from hassod_ros.deploy.onnx_export import check_graph, check_recall, export_onnx
from hassod_ros.deploy.parity import Parity, ParityLimits, compare
from hassod_ros.deploy.photographs import load_batches
from hassod_ros.detection.cascade.config import DetectorConfig
from hassod_ros.detection.cascade.model import CascadeMaskRCNN
from hassod_ros.detection.checkpoints import save_weights
from hassod_ros.errors import InputError
from hassod_ros.export import quantize, to_onnx
from hassod_ros.runtime.backends import open_backend
from hassod_ros.runtime.backends.torch_backend import TorchBackend
from hassod_ros.runtime.model_info import read_model_info
from hassod_ros.runtime.postprocess import RawDetections
from hassod_ros.runtime.segmenter import Segmenter
from tests.tiny_network import narrow_cascade

TINY = narrow_cascade(fpn_channels=8, mask_channels=8, box_width=16, box_layers=1, stage_ious=(0.5,))
SIZE, PROPOSALS, DETECTIONS = (96, 128), 30, 12


def silent(line: str) -> None:
    """Swallow progress."""


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    model = CascadeMaskRCNN(TINY)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if any(part in name for part in ("objectness", "cls_score", "level_predictor", "mask_head.predictor")):
                value.normal_(std=0.5)
            elif "deltas" in name or "bbox_pred" in name:
                value.normal_(std=0.05)
    return model.eval()


@pytest.fixture(scope="module")
def photos(tmp_path_factory, shared):
    """Two real photographs of the shared set, as a list."""
    files = sorted((shared / "data" / "photos" / "images").rglob("*.jpg"))[:2]
    path = tmp_path_factory.mktemp("photos") / "photos.txt"
    path.write_text("\n".join(str(file) for file in files))
    return path


@pytest.fixture(scope="module")
def options(photos):
    return ExportOptions(
        input_size=SIZE,
        proposals=PROPOSALS,
        detections=DETECTIONS,
        images=photos,
        parent_coverage=0.6,
        color_weight=2.5,
    )


@pytest.fixture(scope="module")
def exported(model, options, tmp_path_factory):
    path = tmp_path_factory.mktemp("exported") / "model.onnx"
    info = export_onnx(model, path, options, weights_sha256="a" * 64, report=silent)
    return path, info


@pytest.fixture(scope="module")
def annotated(tmp_path_factory):
    """One image with one annotated square."""
    folder = tmp_path_factory.mktemp("annotated")
    cv2.imwrite(str(folder / "one.png"), np.full((96, 128, 3), 100, np.uint8))
    square = [[10, 10, 50, 10, 50, 50, 10, 50]]
    entry = {"id": 1, "image_id": 1, "category_id": 1, "segmentation": square, "bbox": [10, 10, 40, 40], "area": 1600}
    content = {
        "images": [{"id": 1, "file_name": "one.png", "height": 96, "width": 128}],
        "categories": [{"id": 1, "name": "thing"}],
        "annotations": [entry | {"iscrowd": 0}],
    }
    (folder / "set.json").write_text(json.dumps(content))
    return folder


@pytest.fixture
def kept_recall(monkeypatch):
    """A recall that is the same for every model: that of random weights is chance, another one on every kind of CPU.

    The files whose recall was asked for, by their names.
    """
    asked = []

    def average_recall(model, *_):
        asked.append(model.name)
        return 0.5

    monkeypatch.setattr(onnx_export, "average_recall", average_recall)
    return asked


def test_the_file_says_what_it_is(exported):
    path, info = exported
    assert read_model_info(path) == info
    assert (info.input_size, info.proposals, info.detections) == (SIZE, PROPOSALS, DETECTIONS)
    assert (info.weights_sha256, info.parent_coverage, info.color_weight) == ("a" * 64, 0.6, 2.5)
    graph = onnx.load(path)
    assert [entry.version for entry in graph.opset_import] == [18]
    assert not {"NonMaxSuppression", "NonZero", "If", "Loop", "ConvTranspose"} & {n.op_type for n in graph.graph.node}


def test_nothing_in_the_file_tells_of_the_exporting_machine(exported):
    assert b"site-packages" not in exported[0].read_bytes()
    assert b"static_graph.py" not in exported[0].read_bytes()


def test_it_runs_like_any_model(exported):
    path, _ = exported
    segmenter = Segmenter(path, options=None)
    segmenter.options = dataclasses.replace(segmenter.options, score_thresholds=(0.0, 0.0, 0.0))
    image = np.random.default_rng(0).integers(0, 256, (200, 300, 3), np.uint8)
    instances = segmenter(image)
    assert instances.image_size == (200, 300)
    assert 0 < len(instances) <= DETECTIONS


def test_the_torch_backend_gives_the_same(exported, model, options, tmp_path):
    checkpoint = tmp_path / "model.pth"
    limited = onnx_export.with_limits(model, proposals=PROPOSALS, detections=DETECTIONS)
    save_weights(limited, checkpoint)
    torch_backend = open_backend(checkpoint, input_size=SIZE, device="cpu")
    backend = open_backend(exported[0], "onnxruntime-cpu")
    (batch, *_) = load_batches(onnx_export.list_images(options.images), backend.info)
    expected, found = torch_backend.infer(batch), backend.infer(batch)
    assert expected.count == found.count
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-4)
    assert torch_backend.info.detections == DETECTIONS


def test_a_graph_that_differs_is_refused(exported, model, options):
    """Hold the export against a detector with one other bias."""
    wrong = onnx_export.with_limits(model, proposals=PROPOSALS, detections=DETECTIONS)
    with torch.no_grad():
        wrong.roi_heads.box_predictor[0].cls_score.bias += torch.tensor([0.2, 0.0])
    path, info = exported
    batches = load_batches(onnx_export.list_images(options.images), info)
    with pytest.raises(InputError, match=r"not the trained one: only \d+ of \d+ detections are in both"):
        compare(TorchBackend(wrong, info), open_backend(path, "onnxruntime-cpu"), batches)


def test_a_failed_gate_leaves_no_file(exported, model, options, tmp_path, monkeypatch):
    graph = onnx.load(exported[0])
    graph.graph.node.append(onnx.helper.make_node("NonZero", ["scores"], ["places"], name="find_places"))
    monkeypatch.setattr(onnx_export, "trace", lambda *_: graph)
    with pytest.raises(InputError, match=r"node find_places \(NonZero\) .* nothing was written"):
        export_onnx(model, tmp_path / "model.onnx", options, weights_sha256="", report=silent)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("changes", [{"parent_coverage": 2.0}, {"color_weight": -1.0}])
def test_recommendations_that_cannot_be_are_named_before_the_work(model, changes, tmp_path):
    (name, value) = next(iter(changes.items()))
    options = ExportOptions(
        input_size=SIZE, proposals=PROPOSALS, detections=DETECTIONS, images=tmp_path / "none", **changes
    )
    with pytest.raises(InputError, match=f"{name} cannot be {value}"):
        export_onnx(model, tmp_path / "model.onnx", options, weights_sha256="", report=silent)


def test_an_invalid_graph_is_refused(exported):
    graph = onnx.load(exported[0])
    graph.graph.node[0].input[0] = "nowhere"
    with pytest.raises(InputError, match="not valid ONNX"):
        check_graph(graph, silent)


def test_a_loss_of_recall_is_refused(annotated, monkeypatch):
    given = annotated / "set.json", annotated
    recalls = iter([0.5, 0.495, 0.5, 0.48])
    monkeypatch.setattr(onnx_export, "average_recall", lambda *_: next(recalls))
    check_recall("fp32", "int8", *given, silent)
    with pytest.raises(InputError, match=r"int8 loses 2\.00 points of AR"):
        check_recall("fp32", "int8", *given, silent)


@pytest.mark.parametrize(("target", "bits"), [("x86", 8), ("x86_avx2", 7), ("tensorrt", 8)])
def test_int8(exported, model, options, annotated, tmp_path, target, bits, monkeypatch, kept_recall):
    monkeypatch.setattr(onnx_export, "trace", lambda *_: onnx.load(exported[0]))  # traced once is enough
    given = dataclasses.replace(
        options, precision="int8", target=target, annotations=annotated / "set.json", annotated_images=annotated
    )
    export_onnx(model, tmp_path / "int8.onnx", given, weights_sha256="", report=silent)
    assert kept_recall == ["fp32.onnx", "int8.onnx"]
    graph = onnx.load(tmp_path / "int8.onnx")
    assert read_model_info(tmp_path / "int8.onnx").precision == "int8"
    initializers = {value.name: value for value in graph.graph.initializer}
    activations = {
        initializers[node.input[2]].data_type for node in graph.graph.node if node.op_type == "QuantizeLinear"
    }
    assert activations == {onnx.TensorProto.INT8 if target == "tensorrt" else onnx.TensorProto.UINT8}
    weights = [onnx.numpy_helper.to_array(value) for name, value in initializers.items() if name.endswith("_quantized")]
    weights = [value.astype(int) for value in weights if value.dtype == np.int8]
    assert 2 ** (bits - 2) < max(abs(value).max() for value in weights) <= 2 ** (bits - 1)
    left_float = [
        node for node in graph.graph.node if node.op_type in ("Gemm", "Conv") and node.input[1] in initializers
    ]
    assert left_float
    made_by = {name: node.op_type for node in graph.graph.node for name in node.output}
    pooling = next(node for node in graph.graph.node if node.op_type == "MaxPool")
    assert (made_by[pooling.input[0]] == "DequantizeLinear") == (target != "tensorrt")
    assert all("bbox_pred" in node.input[1] or "anchor_deltas" in node.input[1] for node in left_float)
    assert open_backend(tmp_path / "int8.onnx").infer(np.zeros((1, *SIZE, 3), np.uint8)).boxes.shape == (
        1,
        DETECTIONS,
        4,
    )


def test_weights_stored_as_float16(exported, model, options, annotated, tmp_path, monkeypatch, kept_recall):
    monkeypatch.setattr(onnx_export, "trace", lambda *_: onnx.load(exported[0]))
    given = dataclasses.replace(
        options, store_half=True, annotations=annotated / "set.json", annotated_images=annotated
    )
    export_onnx(model, tmp_path / "half.onnx", given, weights_sha256="", report=silent)
    assert (tmp_path / "half.onnx").stat().st_size < 0.7 * exported[0].stat().st_size
    assert read_model_info(tmp_path / "half.onnx").precision == "fp32"
    large = [value for value in onnx.load(tmp_path / "half.onnx").graph.initializer if np.prod(value.dims) >= 1024]
    kept = [value for value in large if value.data_type == onnx.TensorProto.FLOAT]
    assert 0 < len(kept) < len(large) / 2
    assert {value.dims[-1] for value in kept} == {4}  # anchors: half a pixel is too coarse for coordinates
    image = np.random.default_rng(0).integers(0, 256, (1, *SIZE, 3)).astype(np.uint8)
    plain, half = (open_backend(path).infer(image) for path in (exported[0], tmp_path / "half.onnx"))
    np.testing.assert_allclose(half.scores[0, :3], plain.scores[0, :3], atol=5e-3)


def test_fp16(exported, model, options, annotated, tmp_path, monkeypatch, kept_recall):
    real = onnx_export.trace

    def trace(detector, info):
        return real(detector, info) if detector.dtype == torch.float16 else onnx.load(exported[0])

    monkeypatch.setattr(onnx_export, "trace", trace)
    given = dataclasses.replace(
        options, precision="fp16", annotations=annotated / "set.json", annotated_images=annotated
    )
    export_onnx(model, tmp_path / "fp16.onnx", given, weights_sha256="", report=silent)
    graph = onnx.shape_inference.infer_shapes(onnx.load(tmp_path / "fp16.onnx")).graph
    types = {value.name: value.type.tensor_type.elem_type for value in graph.value_info}
    types |= {value.name: value.data_type for value in graph.initializer}
    half, single = onnx.TensorProto.FLOAT16, onnx.TensorProto.FLOAT
    assert {types[node.input[1]] for node in graph.node if node.op_type in ("Conv", "Gemm")} == {half}
    assert {types[node.input[1]] for node in graph.node if node.op_type == "RoiAlign"} == {single}
    assert {types[node.input[0]] for node in graph.node if node.op_type == "TopK"} == {single}
    assert read_model_info(tmp_path / "fp16.onnx").precision == "fp16"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"precision": "fp8"}, "choose one of fp32, fp16, int8"),
        ({"precision": "int8"}, "needs an annotated set"),
        ({"target": "arm"}, "choose one of x86, x86_avx2, tensorrt"),
        ({"batch": 0}, "at least 1"),
    ],
)
def test_options_that_cannot_be(options, changes, message):
    with pytest.raises(InputError, match=message):
        dataclasses.replace(options, **changes)


def test_parity_counts_what_has_no_partner():
    def raw(boxes, scores):
        n = len(boxes)
        return RawDetections(
            boxes=np.array(boxes, np.float32)[None],
            scores=np.array(scores, np.float32)[None],
            level_probabilities=np.tile(np.float32([1, 0, 0]), (1, n, 1)),
            masks=np.zeros((1, n, 4, 4), np.float32),
            count=np.array([n], np.int32),
            converged=np.ones(1, bool),
        )

    limits = ParityLimits()
    parity = Parity()
    parity.add(raw([[0, 0, 9, 9], [20, 20, 30, 30]], [0.9, 0.8]), raw([[0, 0, 9, 9.25]], [0.9]), limits)
    assert (parity.matched, parity.detections, parity.differences["box"]) == (1, 2, 0.25)
    assert parity.offence(limits) == "only 1 of 2 detections are in both"
    assert parity.offence(dataclasses.replace(limits, unmatched=0.5)) is None
    assert "nothing was detected" in Parity().offence(limits)


@pytest.mark.parametrize("limit", ["box", "score", "level", "mask"])
def test_every_limit_of_parity_counts(limit):
    rng = np.random.default_rng(0)
    shapes = {"boxes": (1, 3, 4), "scores": (1, 3), "level_probabilities": (1, 3, 3), "masks": (1, 3, 4, 4)}
    arrays = {name: rng.random(shape).astype(np.float32) * 100 for name, shape in shapes.items()}
    rest = {"count": np.array([3], np.int32), "converged": np.ones(1, bool)}
    name = {"box": "boxes", "score": "scores", "level": "level_probabilities", "mask": "masks"}[limit]
    parity = Parity()
    parity.add(
        RawDetections(**arrays, **rest),
        RawDetections(**(arrays | {name: arrays[name] + 0.6}), **rest),
        ParityLimits(box=0.5, score=0.5, level=0.5, mask=0.5),
    )
    assert (parity.matched, parity.detections) == (0, 3)


def test_script_says_what_is_wrong(tmp_path, capsys):
    status = to_onnx.main([str(tmp_path / "none.pth"), "--images", str(tmp_path), "--out", str(tmp_path / "m.onnx")])
    assert status == 2
    assert "none.pth does not exist" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        to_onnx.main(["model.pth", "--images", "x", "--out", "y", "--size", "480"])
    assert "not HEIGHTxWIDTH" in capsys.readouterr().err


def test_the_script_changes_what_was_trained(model, tmp_path, monkeypatch):
    save_weights(model, tmp_path / "model.pth")
    configs: list[DetectorConfig] = []
    monkeypatch.setattr(onnx_export, "export_onnx", lambda model, *_, **__: configs.append(model.config))
    given = [str(tmp_path / "model.pth"), "--images", str(tmp_path), "--out", str(tmp_path / "m.onnx")]
    for more in ([], ["--rpn-nms", "0.7", "--nms", "0.6", "--mask-threshold", "0.4", "--sampling-ratio", "1"]):
        assert to_onnx.main([*given, *more]) == 0
    assert configs == [
        model.config,
        model.config.changed(rpn_nms=0.7, nms=0.6, mask_threshold=0.4, sampling_ratio=1),
    ]


def test_the_features_are_those_of_the_trunk(exported, model):
    images = np.random.default_rng(0).integers(0, 256, (1, *SIZE, 3), np.uint8)
    found = open_backend(exported[0], features=True).infer(images).features
    with torch.no_grad():
        expected = model.pyramid(torch.from_numpy(images).permute(0, 3, 1, 2).float(), [SIZE])[0].numpy()
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert exported[1].feature_stride == SIZE[0] // found.shape[2] == SIZE[1] // found.shape[3]
    assert open_backend(exported[0]).infer(images).features is None  # large, so only where asked for


def test_parity_sees_other_features(model, exported):
    info = exported[1]
    batch = [np.random.default_rng(0).integers(0, 256, (1, *SIZE, 3), np.uint8)]
    backend = open_backend(exported[0], features=True)

    class Shifted:
        info = backend.info

        def infer(self, images):
            raw = backend.infer(images)
            return dataclasses.replace(raw, features=raw.features + 0.1)

    limited = onnx_export.with_limits(model, proposals=PROPOSALS, detections=DETECTIONS)
    with pytest.raises(InputError, match="the output `features` differs"):
        compare(TorchBackend(limited, info, features=True), Shifted(), batch)


def test_quantize_takes_an_exported_file(exported, annotated, tmp_path, monkeypatch, kept_recall, capsys):
    half, out = tmp_path / "half.onnx", tmp_path / "int8.onnx"
    graph = onnx.load(exported[0])
    store_half(graph)
    onnx.save(graph, half)
    words = ["--images", str(annotated), "--annotations", str(annotated / "set.json")]
    words += ["--annotated-images", str(annotated), "--out", str(out)]
    assert quantize.main([str(half), *words]) == 0
    assert kept_recall == ["half.onnx", "int8.onnx"]
    assert read_model_info(out) == dataclasses.replace(read_model_info(half), precision="int8")
    images = np.random.default_rng(0).integers(0, 256, (1, *SIZE, 3), np.uint8)
    assert open_backend(out).infer(images).boxes.shape == (1, DETECTIONS, 4)
    assert quantize.main([str(out), *words]) == 2
    assert "is int8; give the float32 file that it came from" in capsys.readouterr().err
    monkeypatch.setattr(onnx_export, "average_recall", lambda path, *_: 0.5 * (path.name != "int8.onnx"))
    out.unlink()
    assert quantize.main([str(half), *words]) == 2
    assert not out.exists()
