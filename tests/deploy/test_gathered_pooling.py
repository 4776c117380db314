"""RoIAlign by gathering, against ONNX Runtime's RoIAlign."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from hassod_ros.deploy.gathered_pooling import gather_pooling

CHANNELS, HEIGHT, WIDTH, SIDE = 3, 20, 30, 4


def graph(*, batch=1, ratio=1, layer=False):
    rois = helper.make_tensor_value_info("rois", TensorProto.FLOAT, [None, 4])
    images = helper.make_tensor_value_info("images", TensorProto.INT64, [None])
    source = helper.make_tensor_value_info("source", TensorProto.FLOAT, [batch, CHANNELS, HEIGHT, WIDTH])
    nodes = [
        helper.make_node("Identity", ["source"], ["map"]),
        helper.make_node(
            "RoiAlign",
            ["map", "rois", "images"],
            ["pooled"],
            output_height=SIDE,
            output_width=SIDE,
            sampling_ratio=ratio,
            coordinate_transformation_mode="half_pixel",
        ),
    ]
    weights, last, shape = [], "pooled", [None, CHANNELS, SIDE, SIDE]
    if layer:
        values = np.random.default_rng(0).standard_normal((5, CHANNELS * SIDE * SIDE)).astype(np.float32)
        weights = [numpy_helper.from_array(values, "w"), numpy_helper.from_array(np.array([-1, values.shape[1]]), "s")]
        nodes += [
            helper.make_node("Reshape", ["pooled", "s"], ["flat"]),
            helper.make_node("Gemm", ["flat", "w"], ["out"], transB=1),
        ]
        last, shape = "out", [None, 5]
    out = helper.make_tensor_value_info(last, TensorProto.FLOAT, shape)
    made = helper.make_graph(nodes, "g", [source, rois, images], [out], weights)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def run(model, *feed):
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, dict(zip(("source", "rois", "images"), feed, strict=True)))[0]


def both(feed, **options):
    model = graph(**options)
    expected = run(model, *feed)
    assert gather_pooling(model) == 1
    onnx.checker.check_model(model, full_check=True)
    assert "RoiAlign" not in [node.op_type for node in model.graph.node]
    return expected, run(model, *feed)


def boxes(number, seed=0):
    random = np.random.default_rng(seed)
    corner = random.uniform((1, 1), (WIDTH - 8, HEIGHT - 8), (number, 2))
    return np.hstack([corner, corner + random.uniform(0, 6, (number, 2))]).astype(np.float32)


@pytest.mark.parametrize("layer", [False, True])
def test_values_are_those_of_roi_align(layer):
    source = np.random.default_rng(1).standard_normal((2, CHANNELS, HEIGHT, WIDTH)).astype(np.float32)
    rois, images = boxes(200), np.arange(200) % 2
    expected, found = both((source, rois, images), batch=2, layer=layer)
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_boxes_at_the_border():
    source = np.random.default_rng(2).standard_normal((1, CHANNELS, HEIGHT, WIDTH)).astype(np.float32)
    rois = np.array([[0, 0, 3, 3], [WIDTH - 2, HEIGHT - 3, WIDTH, HEIGHT], [5, 5, 5, 5]], np.float32)
    expected, found = both((source, rois, np.zeros(3, np.int64)))
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_boxes_beyond_the_map_read_its_border():
    source = np.ones((1, CHANNELS, HEIGHT, WIDTH), np.float32)
    rois = np.array([[WIDTH - 2, HEIGHT - 2, WIDTH + 9, HEIGHT + 9]], np.float32)
    _, found = both((source, rois, np.zeros(1, np.int64)))
    assert (found == 1).all()


def test_more_samples_stay_roi_align():
    model = graph(ratio=2)
    before = model.SerializeToString()
    assert gather_pooling(model) == 0
    assert model.SerializeToString() == before
