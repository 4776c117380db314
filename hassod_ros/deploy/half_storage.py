"""Weights kept as float16 in a file that computes in float32: half the size."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

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
        weights.CopyFrom(numpy_helper.from_array(half, f"{name}_half"))
        casts.append(helper.make_node("Cast", [weights.name], [name], name=f"{name}_widen", to=TensorProto.FLOAT))
    nodes = list(graph.graph.node)
    del graph.graph.node[:]
    graph.graph.node.extend([*casts, *nodes])
