"""RoIAlign as Gather and MatMul, for processors: ONNX Runtime's own takes much of a small detector's time there.

With one sample in each cell, a value is the weighted sum of the four cells of the map around it. Once the map lies
channels last, these cells are one Gather of rows, and the sums are products of four weights and four rows: the same
values, in less time, the more the more threads, and in half of that on bytes (see `pooled_bytes`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper, shape_inference

from hassod_ros.deploy.graph_search import only_user

PREFIX = "gathered_pooling"  # of the names of its nodes
_EXACT = 2**24  # whole numbers below it are exact in float32, in which cells are counted


def gather_pooling(model: onnx.ModelProto) -> int:
    """Replace each RoiAlign that takes one sample a cell, in place.

    Samples must lie within a map: those more than a cell outside of it are zero for RoIAlign, and here its border.

    Returns:
        How many were replaced; 0 where a graph has none.

    """
    graph = model.graph
    shapes = {
        value.name: tuple(axis.dim_value for axis in value.type.tensor_type.shape.dim)
        for value in shape_inference.infer_shapes(model).graph.value_info
    }
    rows: dict[str, str] = {}
    nodes: list[onnx.NodeProto] = []
    replaced = 0
    for node in list(graph.node):
        shape = shapes.get(node.input[0], ()) if node.op_type == "RoiAlign" else ()
        if len(shape) != 4 or not _fits(node, shape):
            nodes.append(node)
            continue
        builder = _Builder(graph, nodes, f"{PREFIX}_{replaced}")
        if node.input[0] not in rows:
            last = builder.node("Transpose", node.input[0], perm=(0, 2, 3, 1))
            rows[node.input[0]] = builder.node("Reshape", last, builder.constant([-1, shape[1]], np.int64))
        _gather(builder, node, rows[node.input[0]], *shape[1:])
        replaced += 1
    del graph.node[:]
    graph.node.extend(nodes)
    return replaced


def _fits(node: onnx.NodeProto, shape: tuple[int, ...]) -> bool:
    given = {each.name: helper.get_attribute_value(each) for each in node.attribute}
    usual = {"spatial_scale": 1.0, "mode": b"avg", "coordinate_transformation_mode": b"half_pixel"}  # where not said
    same = given.get("sampling_ratio") == 1 and all(given.get(name, value) == value for name, value in usual.items())
    return same and given["output_height"] == given["output_width"] and shape[2] * shape[3] < _EXACT


class _Builder:
    """Appends nodes and constants under names that start alike."""

    def __init__(self, graph: onnx.GraphProto, nodes: list[onnx.NodeProto], prefix: str) -> None:
        self.graph, self._nodes, self._prefix = graph, nodes, prefix
        self._made = 0

    def constant(self, value: Any, dtype: type = np.float32) -> str:
        name = self._name()
        self.graph.initializer.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def node(self, operator: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        name = self._name()
        self._nodes.append(helper.make_node(operator, list(inputs), [output or name], name=name, **attributes))
        return output or name

    def _name(self) -> str:
        self._made += 1
        return f"{self._prefix}_{self._made}"


def _gather(build: _Builder, node: onnx.NodeProto, rows: str, channels: int, height: int, width: int) -> None:
    """The nodes instead of one RoiAlign on a map whose cells are `rows`."""
    side = next(each.i for each in node.attribute if each.name == "output_height")
    half, one, zero = build.constant(0.5), build.constant(1), build.constant(0)
    steps = build.constant([(np.arange(side) + 0.5) / side])
    edges = [build.node("Gather", node.input[1], build.constant([i], np.int64), axis=1) for i in range(4)]  # (R, 1)

    def before(low: str, high: str, cells: int, axis: int) -> tuple[str, str]:
        """The cell before each sample, and the share of the next one; the middle of cell i is at i + 0.5.

        Both are (R, S) with a new axis.
        """
        sample = build.node("Add", low, build.node("Mul", build.node("Sub", high, low), steps))
        sample = build.node("Clip", build.node("Sub", sample, half), zero, build.constant(cells - 1))
        cell = build.node("Min", build.node("Floor", sample), build.constant(cells - 2))
        new = build.constant([axis], np.int64)
        return build.node("Unsqueeze", cell, new), build.node("Unsqueeze", build.node("Sub", sample, cell), new)

    column, right = before(edges[0], edges[2], width, 1)
    line, down = before(edges[1], edges[3], height, 2)
    first = build.node("Add", build.node("Mul", line, build.constant(width)), column)  # (R, S, S)
    image = build.node("Unsqueeze", node.input[2], build.constant([1, 2], np.int64))
    image = build.node("Mul", image, build.constant(height * width, np.int64))
    first = build.node("Add", build.node("Cast", first, to=TensorProto.INT64), image)
    first = build.node("Reshape", first, build.constant([-1, 1], np.int64))
    index = build.node("Add", first, build.constant([0, 1, width, width + 1], np.int64))  # (R S S, 4)
    both = build.node("Mul", down, right)
    only_right, only_down = build.node("Sub", right, both), build.node("Sub", down, both)
    neither = build.node("Sub", build.node("Sub", one, right), only_down)
    flat = build.constant([1, -1], np.int64)
    each_share = [build.node("Reshape", share, flat) for share in (neither, only_right, only_down, both)]
    shares = build.node("Transpose", build.node("Concat", *each_share, axis=0), perm=(1, 0))
    shares = build.node("Unsqueeze", shares, build.constant([1], np.int64))  # (R S S, 1, 4)
    cells = build.node("Gather", rows, index, axis=0)  # (R S S, 4, C)
    layer = _fully_connected(build.graph, node.output[0])
    if layer is None:
        pooled = build.node("MatMul", shares, cells)  # (R S S, 1, C)
        pooled = build.node("Reshape", pooled, build.constant([-1, side, side, channels], np.int64))
        build.node("Transpose", pooled, perm=(0, 3, 1, 2), output=node.output[0])
    else:  # its weights go into the order (S, S, C) instead
        _reorder(layer, side)
        build.node("MatMul", shares, cells, output=node.output[0])
        _forget_shape(build.graph, node.output[0])


def _forget_shape(graph: onnx.GraphProto, name: str) -> None:
    for value in list(graph.value_info):
        if value.name == name:
            graph.value_info.remove(value)


def _fully_connected(graph: onnx.GraphProto, value: str) -> onnx.TensorProto | None:
    """Weights (outputs, C * S * S) of the only layer that takes a pooled value, flattened."""
    flat = only_user(graph, value)
    layer = only_user(graph, flat.output[0]) if flat is not None and flat.op_type == "Reshape" else None
    if layer is None or layer.op_type != "Gemm":
        return None
    transposed = any(each.name == "transB" and each.i == 1 for each in layer.attribute)
    uses = sum(layer.input[1] in node.input for node in graph.node)
    weights = next((each for each in graph.initializer if each.name == layer.input[1]), None)
    return weights if transposed and uses == 1 else None


def _reorder(weights: onnx.TensorProto, side: int) -> None:
    values = numpy_helper.to_array(weights)
    values = values.reshape(len(values), -1, side, side).transpose(0, 2, 3, 1).reshape(len(values), -1)
    weights.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(values), weights.name))
