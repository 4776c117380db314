"""Weights of an exported detector, read back from its ONNX file: what ships can be trained on.

An export works batch normalisation into the convolutions before it, so scale, offset and statistics of a layer are one
weight and one bias. `tensors_of` gives each layer a normalisation that changes nothing: outputs are those of the file.
Trained like that, a batch's own statistics would change everything; `recover_norms` therefore measures the statistics
on pictures first and writes them into the normalisation and their inverse into its scale and offset.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hassod_ros.detection.cascade.layers import Conv
from hassod_ros.errors import InputError

_PREFIXES = {
    "backbone.": "backbone.",
    "rpn_head.": "proposal_generator.rpn_head.",
    "box_head.": "roi_heads.box_head.",
    "box_predictor.": "roi_heads.box_predictor.",
}
HALF = "_half"  # ending of weights that are stored as float16
_NORMS = (nn.BatchNorm2d, nn.SyncBatchNorm)


def tensors_of(path: str | os.PathLike, model: nn.Module) -> dict[str, Tensor]:
    """The file's weights under the names of `model`, float32, with normalisations that change nothing.

    Args:
        path: An exported cascade.
        model: A detector; of another kind than a cascade, it has the names of the trunk in common with the file.

    Raises:
        InputError: It is no ONNX file, or is int8, whose weights are rounded.

    """
    import onnx
    from onnx import numpy_helper

    try:
        graph = onnx.load(path).graph
    except Exception as error:  # protobuf raises kinds of its own
        raise InputError(f"{path} is no ONNX file that can be read ({error}); export it again") from error
    found: dict[str, Tensor] = {}
    for constant in graph.initializer:
        name = constant.name.removesuffix(HALF)
        prefix = next((prefix for prefix in (*_PREFIXES, "mask_head.") if name.startswith(prefix)), None)
        if prefix and name.endswith((".weight", ".bias")):
            tensor = torch.from_numpy(np.array(numpy_helper.to_array(constant), np.float32))
            found[_PREFIXES.get(prefix, prefix) + name.removeprefix(prefix)] = tensor
    if not any(name.startswith("backbone.") for name in found):
        raise InputError(f"{path} holds no weights of a detector in floating point; give the fp32 export, not int8")
    return _unfolded(model, _mask_head(found))


def sampling_ratio_of(path: str | os.PathLike) -> int:
    """Samples along the side of a cell that an exported detector pools with; see `DetectorConfig.sampling_ratio`."""
    import onnx

    for node in onnx.load(path).graph.node:
        for attribute in node.attribute if node.op_type == "RoiAlign" else ():
            if attribute.name == "sampling_ratio":
                return int(attribute.i)
    return 0


def _mask_head(found: dict[str, Tensor]) -> dict[str, Tensor]:
    """Undo `SubpixelMaskHead`."""
    renamed: dict[str, Tensor] = {}
    target = "roi_heads.mask_head."
    for name, value in found.items():
        if not name.startswith("mask_head."):
            renamed[name] = value
        elif name.startswith("mask_head.convs."):
            number, kind = name.removeprefix("mask_head.convs.").split(".")
            renamed[f"{target}mask_fcn{int(number) + 1}.{kind}"] = value
    expand, predictor = found["mask_head.expand.weight"], found["mask_head.predictor.weight"]
    outputs, inputs = len(expand) // 4, expand.shape[1]
    # (dy, dx, output) channels of a 1x1 convolution -> (inputs, outputs, dy, dx)
    renamed[f"{target}deconv.weight"] = expand.reshape(2, 2, outputs, inputs).permute(3, 2, 0, 1).contiguous()
    renamed[f"{target}deconv.bias"] = found["mask_head.expand.bias"][:outputs].clone()
    renamed[f"{target}predictor.weight"] = predictor[:1, :outputs].clone()
    renamed[f"{target}predictor.bias"] = found["mask_head.predictor.bias"][:1].clone()
    return renamed


def _unfolded(model: nn.Module, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    for conv, norm, layer in _normalised(model):
        if f"{conv}.bias" not in tensors:
            continue
        bias = tensors.pop(f"{conv}.bias")
        tensors |= {
            f"{norm}.weight": torch.ones_like(bias),
            f"{norm}.bias": bias,
            f"{norm}.running_mean": torch.zeros_like(bias),
            f"{norm}.running_var": torch.full_like(bias, 1 - layer.eps),
        }
    return tensors


def _normalised(model: nn.Module) -> Iterator[tuple[str, str, Any]]:
    """Names of each convolution and of the normalisation behind it, and the latter itself."""
    for name, module in model.named_modules():
        if isinstance(module, Conv) and module.norm is not None:
            yield name, f"{name}.norm", module.norm
        elif isinstance(module, nn.Sequential):
            for (first, conv), (second, norm) in itertools.pairwise(module.named_children()):
                if isinstance(conv, nn.Conv2d) and hasattr(norm, "running_var"):
                    yield f"{name}.{first}", f"{name}.{second}", norm


@torch.no_grad()
def recover_norms(model: nn.Module, batches: Iterable[Tensor]) -> None:
    """Give normalisations the statistics of (B, 3, H, W) uint8 pictures; in evaluation the outputs stay as they are."""
    norms: list[Any] = [norm for norm in model.modules() if isinstance(norm, _NORMS)]
    sums: dict[nn.Module, list[Tensor]] = {}

    def measure(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        values = inputs[0].double()
        new = [
            values.sum((0, 2, 3)),
            values.square().sum((0, 2, 3)),
            values.new_tensor(values.numel() / values.shape[1]),
        ]
        sums[norm] = [old + each for old, each in zip(sums[norm], new, strict=True)] if norm in sums else new

    handles = [norm.register_forward_pre_hook(measure) for norm in norms]
    training = model.training
    try:
        model.eval()
        for images in batches:
            model(images.float())
    finally:
        model.train(training)
        for handle in handles:
            handle.remove()
    for norm in norms:
        if norm not in sums:
            continue
        total, squares, count = sums[norm]
        mean = total / count
        variance = (squares / count - mean.square()).clamp(min=0)
        scale = (norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()).float()  # as it is now
        norm.bias.add_(((mean - norm.running_mean.double()) * scale).float())
        norm.weight.copy_(scale * (variance + norm.eps).sqrt())
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(variance)
