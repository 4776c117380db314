"""float32 ONNX -> int8 ONNX, by ONNX Runtime's static quantisation."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.calibrate import CalibrationDataReader

from hassod_ros.deploy.gathered_pooling import gather_pooling
from hassod_ros.deploy.half_storage import restore_float
from hassod_ros.deploy.pixel_rows import normalize_rows
from hassod_ros.deploy.pooled_bytes import pool_bytes

_LAYERS = ("Conv", "Gemm", "MatMul")
# What lies between layers of a picture: on x86 it stays int8 as well, else each layer would go to float32 and back.
_BETWEEN = ("Relu", "MaxPool", "Resize", "Add")


class _Batches(CalibrationDataReader):  # type: ignore[misc]
    """Feeds batches to the calibration."""

    def __init__(self, batches: Iterable[np.ndarray]) -> None:
        self._batches = iter(batches)

    def get_next(self) -> dict[str, np.ndarray] | None:
        """The next input, None at the end."""
        images = next(self._batches, None)
        return None if images is None else {"images": images}


def quantize(
    source: str | os.PathLike, destination: str | os.PathLike, batches: Iterable[np.ndarray], *, target: str
) -> None:
    """Quantise convolutions and fully connected layers, for x86 also what lies between them; the rest stays float32.

    The rest are box decoding, TopK, suppression with its matrix products, and layers that predict boxes: their errors
    are pixels. For x86 RoIAlign is written otherwise, see `gathered_pooling`.

    Args:
        source: float32 model of `to_onnx`.
        destination: Where the int8 model goes.
        batches: Inputs of the model to take the value ranges from; some dozen images like those of later use.
        target: "x86": uint8 activations, as its dot-product instructions (VNNI) want them. "x86_avx2": the same with
            weights of 7 bits: without VNNI two products are added in 16 bits, which overflows with 8. "tensorrt":
            symmetric int8 activations and float biases.

    """
    for_x86 = target != "tensorrt"
    options: dict[str, Any] = {"ActivationSymmetric": not for_x86, "WeightSymmetric": True, "QuantizeBias": for_x86}
    # The running mean of the ranges keeps one odd frame from widening them, and memory from growing with the images.
    options["CalibMovingAverage"] = True
    model = onnx.load(source)
    restore_float(model)
    if for_x86:
        normalize_rows(model)
        gather_pooling(model)
    with tempfile.TemporaryDirectory() as folder:
        prepared = Path(folder) / "prepared.onnx"
        onnx.save(model, prepared)
        quantize_static(
            str(prepared),
            str(destination),
            _Batches(batches),
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8 if for_x86 else QuantType.QInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
            reduce_range=target == "x86_avx2",
            calibrate_method=CalibrationMethod.MinMax,
            op_types_to_quantize=[*_LAYERS, *(_BETWEEN if for_x86 else ())],
            nodes_to_exclude=_left_out(model),
            extra_options=options,
        )
    if for_x86:
        quantized = onnx.load(destination)
        if pool_bytes(quantized):
            onnx.save(quantized, destination)


def _left_out(model: onnx.ModelProto) -> list[str]:
    """Names of layers without trained weights, of those that predict boxes, and of what lies between no layers."""
    weights = {value.name: tuple(value.dims) for value in model.graph.initializer}
    pictures: set[str] = set()  # values that come from a convolution by nothing but what lies between
    left = []
    for node in model.graph.node:
        if node.op_type == "Conv" or (node.op_type in _BETWEEN and _inputs(node) <= pictures):
            pictures.add(node.output[0])
        if node.op_type in _LAYERS:
            wanted = node.input[1] in weights and not _predicts_boxes(node)
        else:
            wanted = node.output[0] in pictures
        if node.op_type in (*_LAYERS, *_BETWEEN) and not wanted:
            left.append(node.name)
    return left


def _inputs(node: onnx.NodeProto) -> set[str]:
    """Names of a node's values, without its parameters."""
    return set(node.input if node.op_type == "Add" else node.input[:1])


def _predicts_boxes(node: onnx.NodeProto) -> bool:
    """Four values a box."""
    return "bbox_pred" in node.input[1] or "anchor_deltas" in node.input[1]
