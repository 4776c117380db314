"""Gathered pooling on bytes, for processors: a quarter of the memory to read, and no rounding after the sums."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper

from hassod_ros.deploy.gathered_pooling import PREFIX
from hassod_ros.deploy.graph_search import only_user

_ONWARD = ("Reshape", "Transpose")  # between a pooling and the rounding of its values
_TOGETHER = (*_ONWARD, "Concat", "Pad")  # from the levels of a pyramid to one map
_TOP = 255


def pool_bytes(model: onnx.ModelProto) -> int:
    """Let what `gather_pooling` made gather and sum uint8 values, in place.

    The model was quantised to uint8 since (QuantizeLinear and DequantizeLinear), except for these Gather and MatMul.
    One scale holds the ranges of all levels of the pyramid, weights are 255ths, and a sum is rounded once, to the
    scale that the next layer takes.

    Returns:
        How many poolings were changed; what is not followed by a rounding, or has a map of unknown range, is left.

    """
    graph = model.graph
    makers = {output: node for node in graph.node for output in node.output}
    constants = {each.name: numpy_helper.to_array(each) for each in graph.initializer}
    nodes: list[onnx.NodeProto] = []

    def constant(name: str, value: object) -> str:
        graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def rounded(value: str, name: str, scale: tuple[str, str]) -> str:
        nodes.append(helper.make_node("QuantizeLinear", [value, *scale], [f"{name}_bytes"], name=f"{name}_bytes"))
        return f"{name}_bytes"

    def restored(value: str, name: str, scale: tuple[str, str]) -> str:
        nodes.append(helper.make_node("DequantizeLinear", [value, *scale], [f"{name}_back"], name=f"{name}_back"))
        return f"{name}_back"

    of_weights: tuple[str, str] | None = None
    of_map: dict[str, tuple[tuple[str, str], str]] = {}  # by the value of the map: its scale, and its bytes
    dropped: set[str] = set()  # names of roundings that went before what is between
    changed: set[str] = set()  # values that are bytes now
    pooled = 0
    for node in graph.node:
        if node.name in dropped:
            continue
        gather = makers.get(node.input[1]) if node.op_type == "MatMul" and node.name.startswith(PREFIX) else None
        onward = _onward(graph, node.output[0]) if gather is not None else []
        found = _range(gather.input[0], makers, constants) if gather is not None and onward else None
        if gather is None or found is None:
            nodes.append(node)
            continue
        rows, name = gather.input[0], node.name
        if of_weights is None:
            of_weights = constant(f"{PREFIX}_unit", np.float32(1 / _TOP)), constant(f"{PREFIX}_none", np.uint8(0))
        if rows not in of_map:
            step = max((found[1] - found[0]) / _TOP, 1e-12)
            zero = np.clip(round(-found[0] / step), 0, _TOP)
            scale = constant(f"{rows}_step", np.float32(step)), constant(f"{rows}_zero", np.uint8(zero))
            of_map[rows] = scale, rounded(rows, rows, scale)
        scale, gather.input[0] = of_map[rows]
        nodes.remove(gather)  # to behind the bytes of its map
        nodes.append(gather)
        weights = restored(rounded(node.input[0], f"{name}_weights", of_weights), f"{name}_weights", of_weights)
        node.input[:] = [weights, restored(gather.output[0], f"{name}_cells", scale)]
        nodes.append(node)
        *between, rounding = onward
        following = (rounding.input[1], rounding.input[2])
        if between:
            between[0].input[0] = rounded(node.output[0], name, following)
            changed |= {gather.output[0], *(each.output[0] for each in between)}
            between[-1].output[0] = rounding.output[0]
            dropped.add(rounding.name)
        else:
            changed.add(gather.output[0])
        pooled += 1
    del graph.node[:]
    graph.node.extend(nodes)
    for value in [each for each in graph.value_info if each.name in changed]:
        graph.value_info.remove(value)
    return pooled


def _onward(graph: onnx.GraphProto, value: str) -> list[onnx.NodeProto]:
    """What takes a pooled value, up to the rounding, which is last; empty where there is none."""
    found: list[onnx.NodeProto] = []
    while (node := only_user(graph, value)) is not None and node.op_type in _ONWARD:
        found.append(node)
        value = node.output[0]
    return [*found, node] if node is not None and node.op_type == "QuantizeLinear" else []


def _range(
    value: str, makers: dict[str, onnx.NodeProto], constants: dict[str, np.ndarray]
) -> tuple[float, float] | None:
    """Least and largest value of a map that was put together from quantised ones, 0 included; None: it was not."""
    node = makers.get(value)
    if node is None:
        return None
    if node.op_type == "DequantizeLinear":
        step, zero = float(constants[node.input[1]]), int(constants[node.input[2]])
        return -zero * step, (_TOP - zero) * step
    if node.op_type not in _TOGETHER:
        return None
    parts = [
        _range(each, makers, constants) for each in node.input[: len(node.input) if node.op_type == "Concat" else 1]
    ]
    known = [each for each in parts if each is not None]
    if len(known) < len(parts):
        return None
    return min(0.0, *(low for low, _ in known)), max(0.0, *(high for _, high in known))
