"""Would TensorRT take this graph? An answer from its published support table, without TensorRT.

The table (`tensorrt_operators.json`) is that of the ONNX parser of TensorRT 10.1, the oldest release that JetPack 6
robots run; its source and revision stand in the file.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper, shape_inference

TOPK_LIMIT = 3840
# In the table, but not for us: open wrong-result reports, and shapes that depend on the data.
_REFUSED = {
    "GridSample": "has open reports of wrong results",
    "NonMaxSuppression": "has an output whose shape depends on the data",
    "NonZero": "has an output whose shape depends on the data",
    "Loop": "hides its shapes and is slow",
    "If": "hides its shapes and is slow",
    "Scan": "hides its shapes and is slow",
}
_NEED_CONSTANT_AXES = {
    "Pad": 3, "Slice": 3, "Squeeze": 1, "Unsqueeze": 1, "CumSum": 1,
    **{f"Reduce{kind}": 1 for kind in ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum")},
}  # fmt: skip
_TYPE_NAMES: dict[int, str] = {
    TensorProto.FLOAT: "FP32",
    TensorProto.FLOAT16: "FP16",
    TensorProto.BFLOAT16: "BF16",
    TensorProto.INT32: "INT32",
    TensorProto.INT64: "INT64",
    TensorProto.INT8: "INT8",
    TensorProto.UINT8: "UINT8",
    TensorProto.BOOL: "BOOL",
}
_INPUT_ONLY = "UINT8"  # TensorRT knows it for inputs and outputs of the network


@cache
def support_table() -> dict[str, frozenset[str]]:
    """Operator -> names of the element types it is supported for."""
    table = json.loads(Path(__file__).with_name("tensorrt_operators.json").read_text(encoding="utf-8"))
    return {name: frozenset(types) for name, types in table["operators"].items()}


def offences(model: onnx.ModelProto) -> Iterator[str]:
    """What TensorRT would refuse, node by node in the graph's order: "node NAME (OPERATOR) ...".

    Checked are operators, element types, static shapes, constant axes, TopK's K, and zero points of quantisation.
    """
    graph = shape_inference.infer_shapes(model, data_prop=True).graph
    values = {value.name: value.type.tensor_type for value in (*graph.input, *graph.value_info, *graph.output)}
    constants: dict[str, Any] = {value.name: value for value in graph.initializer}
    constants |= {node.output[0]: node.attribute[0].t for node in graph.node if node.op_type == "Constant"}
    inputs = {value.name for value in graph.input}
    for value in graph.input:
        if not _is_static(values[value.name]):
            yield f"input {value.name} has no fixed shape"
    for i, node in enumerate(graph.node):
        for reason in _reasons(node, values, constants, inputs):
            yield f"node {node.name or i} ({node.op_type}) {reason}"


def _reasons(
    node: onnx.NodeProto,
    values: dict[str, Any],
    constants: dict[str, Any],
    inputs: set[str],
) -> Iterator[str]:
    if node.domain not in ("", "ai.onnx"):
        yield f"is of the domain {node.domain}"
        return
    if node.op_type in _REFUSED:
        yield _REFUSED[node.op_type]
        return
    types = support_table().get(node.op_type)
    if types is None:
        yield "is not in the support table"
        return
    for name in node.output:
        if name and not (name in values and _is_static(values[name])):
            yield f"has the output {name} without a fixed shape"
    data = node.input[1 if node.op_type == "Where" else 0] if node.input else ""
    found = _type_name(data, values, constants)
    takes_an_input = found == _INPUT_ONLY and data in inputs and node.op_type == "Cast"
    if (found is not None and found not in types) or (found == _INPUT_ONLY and not takes_an_input):
        yield f"works on {found}"
    axes = _NEED_CONSTANT_AXES.get(node.op_type)
    if axes is not None and len(node.input) > axes and node.input[axes] and node.input[axes] not in constants:
        yield "has axes that are computed"
    if node.op_type == "TopK":
        number = constants.get(node.input[1])
        if number is None:
            yield "has a K that is computed"
        elif int(numpy_helper.to_array(number).item()) > TOPK_LIMIT:
            yield f"asks for more than {TOPK_LIMIT}"
    if node.op_type in ("QuantizeLinear", "DequantizeLinear") and len(node.input) > 2:
        zero = constants.get(node.input[2])
        if zero is None or np.any(numpy_helper.to_array(zero)):
            yield "has a zero point other than 0"


def _type_name(name: str, values: dict[str, Any], constants: dict[str, TensorProto]) -> str | None:
    if name in constants:
        code = constants[name].data_type
    elif name in values:
        code = values[name].elem_type
    else:
        return None
    return _TYPE_NAMES.get(code, TensorProto.DataType.Name(code))


def _is_static(tensor: Any) -> bool:
    return tensor.HasField("shape") and all(side.HasField("dim_value") for side in tensor.shape.dim)
