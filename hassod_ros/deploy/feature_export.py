"""The ViT of discovery as a static ONNX graph: fixed size, position embedding baked in."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import onnx
import onnxruntime
import torch
from torch import Tensor, nn

from hassod_ros.deploy.onnx_export import OPSET, check_graph
from hassod_ros.discovery.features.onnx import METADATA_KEY, SCHEMA
from hassod_ros.discovery.features.vit import ViTFeatures
from hassod_ros.errors import InputError
from hassod_ros.files import atomic_path, revision
from hassod_ros.images import list_images, read_image

MIN_COSINE = 0.9999
_PARITY_IMAGES = 4


class FeatureGraph(nn.Module):
    """What `ViTFeatures` does to a batch, as one module for one size."""

    mean: Tensor
    std: Tensor

    def __init__(self, features: ViTFeatures, size: tuple[int, int]) -> None:
        super().__init__()
        self.grid = (size[0] // features.patch_size, size[1] // features.patch_size)
        features._fit_positions(self.grid)
        self.model = features._model
        self.register_buffer("mean", features._mean)
        self.register_buffer("std", features._std)

    def forward(self, images: Tensor) -> Tensor:
        """(B, H, W, 3) uint8 -> keys (B, C, h, w) float32."""
        pixels = images.float().permute(0, 3, 1, 2)  # cast first: TensorRT takes uint8 as an input only
        tokens = self.model.forward_features((pixels - self.mean) / self.std)
        return tokens[:, self.model.num_prefix_tokens :].transpose(1, 2).unflatten(2, self.grid)


def export_features(
    features: ViTFeatures,
    destination: str | os.PathLike,
    *,
    size: tuple[int, int],
    images: str | os.PathLike,
    batch: int = 1,
    report: Callable[[str], None] = print,
) -> None:
    """Write a float32 ViT on the CPU as ONNX, or nothing.

    Args:
        features: Of precision fp32 and device cpu.
        destination: The `.onnx` file.
        size: (H, W) of the images, multiples of the patch size.
        images: Photographs for the comparison (`list_images`).
        batch: Images per call.
        report: Takes a line of progress at a time.

    Raises:
        InputError: The size does not divide into patches, or a gate is not passed: onnx.checker, TensorRT's support
            table, cosine of torch's and ONNX Runtime's keys.

    """
    if min(size) < 1 or size[0] % features.patch_size or size[1] % features.patch_size:
        raise InputError(f"a size of {size} does not divide into patches of {features.patch_size}; give multiples")
    if features.precision != "fp32":
        raise InputError("features are exported in fp32; give that precision")
    report(f"exporting {features.name} at {size[0]}x{size[1]}, opset {OPSET}")
    module = FeatureGraph(features, size).eval()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the exporter's own, about names it replaces
        program = torch.onnx.export(
            module,
            (torch.zeros((batch, *size, 3), dtype=torch.uint8),),
            dynamo=True,
            opset_version=OPSET,
            input_names=["images"],
            output_names=["keys"],
            verbose=False,
        )
    assert program is not None
    graph = program.model_proto
    for value in (*graph.graph.node, *graph.graph.value_info, *graph.graph.input, *graph.graph.output, graph.graph):
        del value.metadata_props[:]
    values = {
        "schema": SCHEMA,
        "name": features.name,
        "patch_size": features.patch_size,
        "dim": features.dim,
        "size": size,
        "weights_sha256": features.weights_sha256,
        "revision": revision(),
    }
    onnx.helper.set_model_props(graph, {METADATA_KEY: json.dumps(values)})
    check_graph(graph, report)
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    worst = min(_cosine(features, session, path, size, batch) for path in list_images(images)[:_PARITY_IMAGES])
    report(f"  least cosine of torch's and ONNX Runtime's keys: {worst:.6f}, at least {MIN_COSINE} is needed")
    if not worst >= MIN_COSINE:
        raise InputError(f"the exported features are not the model's: cosine {worst:.6f}, at least {MIN_COSINE}")
    with atomic_path(destination) as temporary:
        onnx.save(graph, temporary)
    report(f"wrote {destination}")


def _cosine(
    features: ViTFeatures, session: onnxruntime.InferenceSession, path: Path, size: tuple[int, int], batch: int
) -> float:
    """Least cosine over the patches of one photograph."""
    image = cv2.resize(read_image(path), size[::-1], interpolation=cv2.INTER_AREA)[None].repeat(batch, axis=0)
    expected, found = features(image), session.run(["keys"], {"images": image})[0]
    norms = np.linalg.norm(expected, axis=1) * np.linalg.norm(found, axis=1)
    return float(((expected * found).sum(axis=1) / norms).min())
