import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from hassod_ros.deploy.tensorrt_support import TOPK_LIMIT, offences, support_table


def model(nodes, *, shape=(1, 5000), kind=TensorProto.FLOAT, constants=None, outputs=("y",)):
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in (constants or {}).items()],
    )
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)]
    )


def test_the_table_is_the_published_one():
    table = support_table()
    assert table["RoiAlign"] == {"FP32", "FP16"}
    assert "DynamicQuantizeLinear" not in table
    assert len(table) > 130
    assert "INT64" in table["Add"]


def test_a_plain_graph_passes():
    nodes = [
        helper.make_node("Cast", ["x"], ["a"], to=TensorProto.FLOAT),
        helper.make_node("Relu", ["a"], ["y"]),
    ]
    assert list(offences(model(nodes, kind=TensorProto.UINT8))) == []


@pytest.mark.parametrize(
    ("node", "constants", "message"),
    [
        (helper.make_node("NonZero", ["x"], ["y"], name="n"), {}, "node n (NonZero) has an output whose shape"),
        (helper.make_node("Det", ["x"], ["y"], name="n"), {}, "node n (Det) is not in the support table"),
        (
            helper.make_node("Relu", ["x"], ["y"], name="n", domain="com.microsoft"),
            {},
            "is of the domain com.microsoft",
        ),
        (
            helper.make_node("TopK", ["x", "k"], ["y", "i"], name="n"),
            {"k": np.array([TOPK_LIMIT + 1])},
            "more than 3840",
        ),
        (helper.make_node("Reshape", ["x", "s"], ["y"], name="n"), {}, "without a fixed shape"),
        (
            helper.make_node("QuantizeLinear", ["x", "s", "z"], ["y"], name="n"),
            {"s": np.float32(1), "z": np.int8(3)},
            "zero point other than 0",
        ),
    ],
)
def test_the_offending_node_is_named(node, constants, message):
    assert any(message in text for text in offences(model([node], constants=constants)))


def test_the_limit_itself_is_allowed():
    node = helper.make_node("TopK", ["x", "k"], ["y", "i"])
    assert list(offences(model([node], constants={"k": np.array([TOPK_LIMIT])}))) == []


def test_uint8_is_for_inputs_only():
    nodes = [helper.make_node("Transpose", ["x"], ["y"], perm=[1, 0], name="n")]
    assert "node n (Transpose) works on UINT8" in offences(model(nodes, kind=TensorProto.UINT8))


def test_a_shape_that_is_open_is_named():
    assert next(offences(model([helper.make_node("Relu", ["x"], ["y"])], shape=("batch", 4)))).startswith("input x")


def test_computed_axes_are_named():
    nodes = [
        helper.make_node("Cast", ["x"], ["axes"], to=TensorProto.INT64),
        helper.make_node("Squeeze", ["x", "axes"], ["y"], name="n"),
    ]
    assert any("n (Squeeze)" in text for text in offences(model(nodes, shape=(1,))))


def test_every_reason_survives_serialisation(tmp_path):
    """The table is read from its file; a graph from disk gives the same answer."""
    built = model([helper.make_node("GridSample", ["x", "x"], ["y"], name="n")])
    onnx.save(built, tmp_path / "m.onnx")
    assert list(offences(onnx.load(tmp_path / "m.onnx"))) == list(offences(built)) != []
