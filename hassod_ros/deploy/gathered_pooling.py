"""RoIAlign as Gather and MatMul, for processors: ONNX Runtime's own takes much of a small detector's time there.

With one sample in each cell, a value is the weighted sum of the four cells of the map around it. Once the map lies
channels last, these cells are one Gather of rows, and the sums, first along y, then along x, are two MatMul of banded
weights: the same values, in less time, the more the more threads.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper, shape_inference

from hassod_ros.deploy.graph_search import only_user

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
        builder = _Builder(graph, nodes, f"gathered_pooling_{replaced}")
        if node.input[0] not in rows:
            last = builder.node("Transpose", node.input[0], perm=(0, 2, 3, 1))
            rows[node.input[0]] = builder.node("Reshape", last, builder.constant([-1, shape[1]], np.int64))
        _gather(builder, node, rows[node.input[0]], shape[2], shape[3])
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


def _gather(build: _Builder, node: onnx.NodeProto, rows: str, height: int, width: int) -> None:
    """The nodes instead of one RoiAlign on a map whose cells are `rows`."""
    side = next(each.i for each in node.attribute if each.name == "output_height")
    half, one, zero = build.constant(0.5), build.constant(1), build.constant(0)
    steps = build.constant([(np.arange(side) + 0.5) / side])
    band = build.constant(np.eye(side)[..., None])  # (S, S, 1)
    edges = [build.node("Gather", node.input[1], build.constant([i], np.int64), axis=1) for i in range(4)]  # (R, 1)

    def around(low: str, high: str, cells: int) -> tuple[str, str]:
        """Both cells beside each sample (R, 2 S), and weights (R, S, 2 S); the middle of cell i is at i + 0.5."""
        sample = build.node("Add", low, build.node("Mul", build.node("Sub", high, low), steps))
        sample = build.node("Clip", build.node("Sub", sample, half), zero, build.constant(cells - 1))  # (R, S)
        cell = build.node("Min", build.node("Floor", sample), build.constant(cells - 2))
        share = build.node("Unsqueeze", build.node("Sub", sample, cell), build.constant([1, 3], np.int64))
        pair = build.node("Concat", build.node("Sub", one, share), share, axis=3)  # (R, 1, S, 2)
        weights = build.node("Reshape", build.node("Mul", pair, band), build.constant([-1, side, 2 * side], np.int64))
        cell = build.node("Unsqueeze", cell, build.constant([2], np.int64))
        cell = build.node("Concat", cell, build.node("Add", cell, one), axis=2)
        return build.node("Reshape", cell, build.constant([-1, 2 * side], np.int64)), weights

    columns, across = around(edges[0], edges[2], width)
    lines, down = around(edges[1], edges[3], height)
    lines = build.node("Unsqueeze", build.node("Mul", lines, build.constant(width)), build.constant([2], np.int64))
    index = build.node("Add", lines, build.node("Unsqueeze", columns, build.constant([1], np.int64)))  # (R, 2 S, 2 S)
    image = build.node("Unsqueeze", node.input[2], build.constant([1, 2], np.int64))
    image = build.node("Mul", image, build.constant(height * width, np.int64))
    index = build.node("Add", build.node("Cast", index, to=TensorProto.INT64), image)
    cells = build.node("Gather", rows, index, axis=0)  # (R, 2 S, 2 S, C)
    cells = build.node("Reshape", cells, build.constant([0, 2 * side, -1], np.int64))
    summed = build.node("MatMul", down, cells)  # (R, S, 2 S C)
    summed = build.node("Reshape", summed, build.constant([0, side, 2 * side, -1], np.int64))
    across = build.node("Unsqueeze", across, build.constant([1], np.int64))  # (R, 1, S, 2 S)
    layer = _fully_connected(build.graph, node.output[0])
    if layer is None:
        build.node("Transpose", build.node("MatMul", across, summed), perm=(0, 3, 1, 2), output=node.output[0])
    else:  # its weights go into the order (S, S, C) instead
        _reorder(layer, side)
        build.node("MatMul", across, summed, output=node.output[0])
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
