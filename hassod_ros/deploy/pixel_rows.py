"""Pixels made ready for a network in whole rows, for processors.

The graph subtracts a mean and divides by a deviation channel by channel. ONNX Runtime does so on pixels as they come,
(H, W, 3), and is slow where the last axis is that short; on rows (H, 3 W) it takes a tenth of the time.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper

from hassod_ros.deploy.graph_search import only_user


def normalize_rows(model: onnx.ModelProto) -> bool:
    """Rewrite Cast, Transpose, Sub and Div behind an input (B, H, W, 3) in place; whether there were such."""
    graph = model.graph
    source = graph.input[0]
    constants = {each.name: each for each in graph.initializer}
    chain, value = [], source.name
    for operator in ("Cast", "Transpose", "Sub", "Div"):
        node = only_user(graph, value)
        if node is None or node.op_type != operator:
            return False
        chain.append(node)
        value = node.output[0]
    cast, transpose, subtract, divide = chain
    if subtract.input[1] not in constants or divide.input[1] not in constants:
        return False
    batch, height, width, channels = (axis.dim_value for axis in source.type.tensor_type.shape.dim)
    mean, std = (numpy_helper.to_array(constants[node.input[1]]).reshape(-1) for node in (subtract, divide))

    def constant(name: str, value: np.ndarray) -> str:
        graph.initializer.append(numpy_helper.from_array(value, f"pixel_rows_{name}"))
        return f"pixel_rows_{name}"

    rows = constant("rows", np.array([batch, height, width * channels]))
    pixels = constant("pixels", np.array([batch, height, width, channels]))
    made = [
        helper.make_node("Reshape", [cast.output[0], rows], ["pixel_rows"], name="pixel_rows_reshape"),
        helper.make_node("Sub", ["pixel_rows", constant("mean", np.tile(mean, width))], ["pixel_rows_sub"]),
        helper.make_node("Mul", ["pixel_rows_sub", constant("scale", np.tile(1 / std, width))], ["pixel_rows_mul"]),
        helper.make_node("Reshape", ["pixel_rows_mul", pixels], ["pixel_rows_back"], name="pixel_rows_back"),
        helper.make_node("Transpose", ["pixel_rows_back"], [value], name="pixel_rows_transpose", perm=(0, 3, 1, 2)),
    ]
    nodes = list(graph.node)
    first = nodes.index(cast) + 1
    kept = [node for node in nodes[first:] if node not in (transpose, subtract, divide)]
    del graph.node[:]
    graph.node.extend([*nodes[:first], *made, *kept])
    return True
