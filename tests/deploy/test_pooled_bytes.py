"""Pooling of bytes, against the same pooling of floats."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from hassod_ros.deploy.gathered_pooling import gather_pooling
from hassod_ros.deploy.pooled_bytes import pool_bytes

CHANNELS, HEIGHT, WIDTH, SIDE = 8, 20, 30, 4
LOW, HIGH = -1.0, 3.0
STEP = (HIGH - LOW) / 255


def quantised(value, scale, name):
    return [
        helper.make_node("QuantizeLinear", [value, *scale], [f"{name}_q"], name=f"{name}_q"),
        helper.make_node("DequantizeLinear", [f"{name}_q", *scale], [name], name=name),
    ]


def graph(*, known=True, followed=True):
    """Two quantised maps side by side, pooled, and rounded where `followed`."""
    scales = {
        "left": (STEP, round(-LOW / STEP)),
        "right": (STEP / 2, 0),
        "pooled": (STEP, round(-LOW / STEP)),
    }
    constants = [numpy_helper.from_array(np.float32(step), f"{name}_s") for name, (step, _) in scales.items()]
    constants += [numpy_helper.from_array(np.uint8(zero), f"{name}_z") for name, (_, zero) in scales.items()]
    of = {name: (f"{name}_s", f"{name}_z") for name in scales}
    nodes = [*quantised("a", of["left"], "left"), *quantised("b", of["right"], "right")]
    nodes.append(helper.make_node("Concat", ["left", "right"], ["map"], axis=3))
    if not known:
        nodes.append(helper.make_node("Sqrt", ["map"], ["root"]))
    nodes.append(
        helper.make_node(
            "RoiAlign",
            ["map" if known else "root", "rois", "images"],
            ["raw"],
            output_height=SIDE,
            output_width=SIDE,
            sampling_ratio=1,
            coordinate_transformation_mode="half_pixel",
        )
    )
    constants.append(numpy_helper.from_array(np.array([-1, CHANNELS * SIDE * SIDE]), "shape"))
    nodes.append(helper.make_node("Reshape", ["raw", "shape"], ["flat"]))
    last = "flat"
    if followed:
        nodes += quantised("flat", of["pooled"], "out")
        last = "out"
    maps = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, CHANNELS, HEIGHT, WIDTH // 2]) for name in "ab"]
    rois = helper.make_tensor_value_info("rois", TensorProto.FLOAT, [None, 4])
    images = helper.make_tensor_value_info("images", TensorProto.INT64, [None])
    out = helper.make_tensor_value_info(last, TensorProto.FLOAT, [None, None])
    made = helper.make_graph(nodes, "g", [*maps, rois, images], [out], constants)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def feed():
    random = np.random.default_rng(1)
    a, b = random.uniform(LOW, HIGH, (2, 1, CHANNELS, HEIGHT, WIDTH // 2)).astype(np.float32)
    corner = random.uniform((1, 1), (WIDTH - 8, HEIGHT - 8), (100, 2))
    rois = np.hstack([corner, corner + random.uniform(0, 6, (100, 2))]).astype(np.float32)
    return {"a": a, "b": abs(b) / 2, "rois": rois, "images": np.zeros(100, np.int64)}


def run(model, path=None):
    options = onnxruntime.SessionOptions()
    if path is not None:
        options.optimized_model_filepath = str(path)
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, feed())[0]


def test_values_are_those_of_floats_but_for_rounding(tmp_path):
    model = graph()
    expected = run(model)
    assert gather_pooling(model) == 1
    assert pool_bytes(model) == 1
    onnx.checker.check_model(model, full_check=True)
    difference = abs(run(model, tmp_path / "optimized.onnx") - expected) / STEP
    assert difference.max() <= 3  # of 255: the map, four weights and the sum were rounded
    assert difference.mean() < 0.6
    operators = [node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node]
    assert "QLinearMatMul" in operators
    assert "MatMul" not in operators


@pytest.mark.parametrize("case", [{"followed": False}, {"known": False}])
def test_what_has_no_scales_stays_float(case):
    model = graph(**case)
    gather_pooling(model)
    before = run(model)
    assert pool_bytes(model) == 0
    np.testing.assert_array_equal(run(model), before)


def test_a_graph_without_pooling_stays():
    model = graph()
    before = model.SerializeToString()
    assert pool_bytes(model) == 0
    assert model.SerializeToString() == before
