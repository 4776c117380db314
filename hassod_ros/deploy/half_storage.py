"""Weights kept as float16 in a file that computes in float32: half the size."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

_SMALL = 1024  # values; below it nothing is gained


def store_half(graph: onnx.ModelProto) -> None:
    """Replace large float32 weights by float16 ones and a Cast, which runtimes carry out once, at load.

    Weights that float16 cannot hold (above 65504) stay as they are.
    """
    casts = []
    for weights in graph.graph.initializer:
        if weights.data_type != TensorProto.FLOAT or np.prod(weights.dims) < _SMALL:
            continue
        values = numpy_helper.to_array(weights)
        if abs(values).max() > np.finfo(np.float16).max:
            continue
        name = weights.name
        weights.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f"{name}_half"))
        casts.append(helper.make_node("Cast", [weights.name], [name], name=f"{name}_widen", to=TensorProto.FLOAT))
    nodes = list(graph.graph.node)
    del graph.graph.node[:]
    graph.graph.node.extend([*casts, *nodes])
