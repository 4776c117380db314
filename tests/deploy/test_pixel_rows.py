"""Pixels normalised in rows, against the graph as it is exported."""

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from hassod_ros.deploy.pixel_rows import normalize_rows

SHAPE = (2, 5, 7, 3)


def graph(operators=("Cast", "Transpose", "Sub", "Div")):
    constants = [
        numpy_helper.from_array(np.array([120, 110, 100], np.float32).reshape(3, 1, 1), "mean"),
        numpy_helper.from_array(np.array([58, 57, 56], np.float32).reshape(3, 1, 1), "std"),
    ]
    given = {"Cast": {"to": TensorProto.FLOAT}, "Transpose": {"perm": (0, 3, 1, 2)}}
    second = {"Sub": ["mean"], "Div": ["std"], "Mul": ["std"]}
    nodes, value = [], "images"
    for i, operator in enumerate(operators):
        inputs = [value, *second.get(operator, [])]
        value = f"v{i}"
        nodes.append(helper.make_node(operator, inputs, [value], **given.get(operator, {})))
    nodes.append(helper.make_node("Identity", [value], ["out"]))
    images = helper.make_tensor_value_info("images", TensorProto.UINT8, SHAPE)
    out = helper.make_tensor_value_info("out", TensorProto.FLOAT, [2, 3, 5, 7])
    return helper.make_model(
        helper.make_graph(nodes, "g", [images], [out], constants),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=9,
    )


def run(model):
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    images = np.random.default_rng(0).integers(0, 256, SHAPE, np.uint8)
    return session.run(None, {"images": images})[0]


def test_values_stay():
    model = graph()
    expected = run(model)
    assert normalize_rows(model)
    onnx.checker.check_model(model, full_check=True)
    assert "Div" not in [node.op_type for node in model.graph.node]
    np.testing.assert_allclose(run(model), expected, rtol=1e-6)


def test_another_beginning_is_left_alone():
    model = graph(("Cast", "Transpose", "Sub", "Mul"))
    before = model.SerializeToString()
    assert not normalize_rows(model)
    assert model.SerializeToString() == before
