"""The output `features` for files that were exported without it: one line of the graph, no weight changes."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import onnx
from onnx import TensorProto, helper

from hassod_ros.deploy.onnx_export import PARITY_IMAGES, check_graph, set_info
from hassod_ros.deploy.parity import ParityLimits, compare
from hassod_ros.deploy.photographs import load_batches
from hassod_ros.detection.cascade.fpn import STRIDES
from hassod_ros.errors import InputError
from hassod_ros.files import atomic_path
from hassod_ros.images import list_images
from hassod_ros.runtime.backends.onnxruntime_backend import FEATURES, OnnxRuntimeBackend
from hassod_ros.runtime.model_info import read_model_info

_FINEST = ("backbone.fpn_output2.", "backbone.simfp_2.")  # weights of the layer whose result is the finest level
_QUANTIZED = ("QuantizeLinear", "DequantizeLinear")


def add_features(
    source: str | os.PathLike,
    destination: str | os.PathLike,
    images: str | os.PathLike,
    *,
    report: Callable[[str], None] = print,
) -> None:
    """Write `source` with the output `features`, or write nothing.

    Gates: onnx.checker and TensorRT's support table (not for int8 with uint8 activations, which is for x86 alone), and
    the same detections as before on photographs.

    Args:
        source: A detector of `to_onnx`.
        destination: Where the new file goes; may be the same.
        images: Photographs, see `list_images`.
        report: Takes a line of progress at a time.

    Raises:
        InputError: The file has the output already, or its finest pyramid level is not found, or a gate is not passed.

    """
    info = read_model_info(source)
    if info.feature_stride:
        raise InputError(f"{source} has the output `features` already; use it as it is")
    info = replace(info, feature_stride=STRIDES[0])
    model = onnx.load(source)
    _expose(model.graph, str(source))
    set_info(model, info)
    check_graph(model, report, for_tensorrt=info.precision != "int8")
    with atomic_path(destination) as temporary:
        onnx.save(model, temporary)
        old, new = (OnnxRuntimeBackend.load(path, provider="cpu") for path in (source, temporary))
        paths = list_images(images)[: PARITY_IMAGES * info.batch]
        report(f"  {compare(old, new, load_batches(paths, info), ParityLimits())}")
    report(f"wrote {destination}")


def _expose(graph: onnx.GraphProto, name: str) -> None:
    """Make the finest pyramid level an output."""
    layers = [node for node in graph.node if node.op_type == "Conv" and node.input[1].startswith(_FINEST)]
    shapes = {value.name: value for value in graph.value_info}
    if not layers or layers[-1].output[0] not in shapes:
        raise InputError(f"{Path(name).name} has no finest pyramid level that can be told by its weights; export again")
    tensor = shapes[layers[-1].output[0]].type.tensor_type
    finest = _behind_quantization(graph, layers[-1].output[0])
    shape = [axis.dim_value for axis in tensor.shape.dim]
    if tensor.elem_type == TensorProto.FLOAT:
        node = helper.make_node("Identity", [finest], [FEATURES], name=FEATURES)
    else:
        node = helper.make_node("Cast", [finest], [FEATURES], name=FEATURES, to=TensorProto.FLOAT)
    graph.node.append(node)
    graph.output.append(helper.make_tensor_value_info(FEATURES, TensorProto.FLOAT, shape))


def _behind_quantization(graph: onnx.GraphProto, value: str) -> str:
    """The value after its quantisation where there is one: that stays a part of the layer, which is then one kernel."""
    for operator in _QUANTIZED:
        for node in graph.node:
            if node.op_type == operator and node.input[0] == value:
                value = node.output[0]
                break
    return value
