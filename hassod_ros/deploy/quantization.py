"""float32 ONNX -> int8 ONNX, by ONNX Runtime's static quantisation."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.calibrate import CalibrationDataReader

TARGETS = ("x86", "x86_avx2", "tensorrt")
_OPERATORS = ["Conv", "Gemm", "MatMul"]


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
    """Quantise convolutions and fully connected layers; everything else stays float32.

    Box decoding, TopK, RoIAlign and suppression are no such layers, and the suppression's matrix products are left out.
    So are the layers that predict boxes: their errors are pixels.

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
    quantize_static(
        str(source),
        str(destination),
        _Batches(batches),
        quant_format=QuantFormat.QDQ,
        activation_type=QuantType.QUInt8 if for_x86 else QuantType.QInt8,
        weight_type=QuantType.QInt8,
        per_channel=True,
        reduce_range=target == "x86_avx2",
        calibrate_method=CalibrationMethod.MinMax,
        op_types_to_quantize=_OPERATORS,
        nodes_to_exclude=_left_out(onnx.load(source)),
        extra_options=options,
    )


def _left_out(model: onnx.ModelProto) -> list[str]:
    """Names of layers without trained weights, and of those that predict boxes (four values a box)."""
    weights = {value.name: tuple(value.dims) for value in model.graph.initializer}
    return [
        node.name
        for node in model.graph.node
        if node.op_type in _OPERATORS and (node.input[1] not in weights or _predicts_boxes(node, weights))
    ]


def _predicts_boxes(node: onnx.NodeProto, weights: dict[str, tuple[int, ...]]) -> bool:
    return "bbox_pred" in node.input[1] or "anchor_deltas" in node.input[1]
