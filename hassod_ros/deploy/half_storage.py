"""Weights kept as float16 in a file that computes in float32: half the size."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from hassod_ros.detection.cascade.onnx_weights import HALF

_SMALL = 1024  # values; below it nothing is gained
_WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")  # nodes whose inputs are weights; anchors are not


def store_half(graph: onnx.ModelProto) -> None:
    """Replace large float32 weights by float16 ones and a Cast, which runtimes carry out once, at load.

    Weights that float16 cannot hold (above 65504) stay as they are, and so do other constants that it would round.
    """
    casts = []
    learned = {name for node in graph.graph.node if node.op_type in _WEIGHTED for name in node.input}
    for weights in graph.graph.initializer:
        if weights.data_type != TensorProto.FLOAT or np.prod(weights.dims) < _SMALL:
            continue
        values = numpy_helper.to_array(weights)
        if abs(values).max() > np.finfo(np.float16).max:
            continue
        half, name = values.astype(np.float16), weights.name
        if name not in learned and (half != values).any():
            continue
        weights.CopyFrom(numpy_helper.from_array(half, name + HALF))
        casts.append(helper.make_node("Cast", [weights.name], [name], name=f"{name}_widen", to=TensorProto.FLOAT))
    nodes = list(graph.graph.node)
    del graph.graph.node[:]
    graph.graph.node.extend([*casts, *nodes])


def restore_float(graph: onnx.ModelProto) -> None:
    """Undo `store_half`: float32 weights of the same values, for tools that look for a layer's weights beside it."""
    halves = {each.name: each for each in graph.graph.initializer if each.name.endswith(HALF)}
    casts = [node for node in graph.graph.node if node.op_type == "Cast" and node.input[0] in halves]
    for cast in casts:
        weights = halves[cast.input[0]]
        weights.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weights).astype(np.float32), cast.output[0]))
        graph.graph.node.remove(cast)
