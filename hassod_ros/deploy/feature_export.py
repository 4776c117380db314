"""The ViT of discovery as a static ONNX graph: fixed size, position embedding baked in; with a head of HEAP or not."""

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
from hassod_ros.discovery.heap import Heap, load_head
from hassod_ros.discovery.regions import on_the_border
from hassod_ros.discovery.states import State, describe
from hassod_ros.errors import InputError
from hassod_ros.files import atomic_path, revision
from hassod_ros.images import list_images, read_image

MIN_COSINE = 0.9999
MAX_ODDS = 1e-2  # difference of a patch's log-odds of foreground
MIN_LABELS = 0.999  # share of patches in the same region
HEAP_OUTPUTS = ("odds", "labels", "groups", "clusters")
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


class HeapGraph(nn.Module):
    """`FeatureGraph` and a head of HEAP: keys, and what `Regions` is made of.

    Args:
        features: The ViT.
        size: (H, W) of the images.
        method: HEAP with the settings that the head was trained with.
        state: What it has learned of these features.

    """

    border: Tensor
    centres: Tensor

    def __init__(self, features: ViTFeatures, size: tuple[int, int], method: Heap, state: State) -> None:
        super().__init__()
        self.features = FeatureGraph(features, size)
        self.head = load_head(state, method.config.head)
        self.register_buffer("border", torch.from_numpy(np.flatnonzero(on_the_border(self.features.grid))))
        self.register_buffer("centres", torch.from_numpy(state.arrays["class_centres"]))

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """(B, H, W, 3) uint8 -> keys (B, C, h, w), odds (B, h, w) float32, labels (B, h, w) int32, groups
        (B, K, C) float32, clusters (B, K) int32.
        """
        keys = self.features(images)
        vectors = nn.functional.normalize(keys.flatten(2).transpose(1, 2), dim=2)
        grouped = self.head(vectors, self.border)
        labels = grouped.assignment.argmax(dim=2).to(torch.int32).unflatten(1, self.features.grid)
        clusters = (grouped.groups @ self.centres.T).argmax(dim=2).to(torch.int32)
        return keys, grouped.odds.unflatten(1, self.features.grid), labels, grouped.groups, clusters


def export_features(
    features: ViTFeatures,
    destination: str | os.PathLike,
    *,
    size: tuple[int, int],
    images: str | os.PathLike,
    batch: int = 1,
    heap: tuple[Heap, State] | None = None,
    report: Callable[[str], None] = print,
) -> None:
    """Write a float32 ViT on the CPU as ONNX, or nothing.

    Args:
        features: Of precision fp32 and device cpu.
        destination: The `.onnx` file.
        size: (H, W) of the images, multiples of the patch size.
        images: Photographs for the comparison (`list_images`).
        batch: Images per call.
        heap: A trained head of HEAP to go with it (`method.open_learner`): the file is then a segmenter, too.
        report: Takes a line of progress at a time.

    Raises:
        InputError: The size does not divide into patches, or a gate is not passed: onnx.checker, TensorRT's support
            table, cosine of torch's and ONNX Runtime's keys, agreement of the head's regions; or the head is of other
            features.

    """
    if min(size) < 1 or size[0] % features.patch_size or size[1] % features.patch_size:
        raise InputError(f"a size of {size} does not divide into patches of {features.patch_size}; give multiples")
    if features.precision != "fp32":
        raise InputError("features are exported in fp32; give that precision")
    report(f"exporting {features.name} at {size[0]}x{size[1]}, opset {OPSET}")
    values: dict[str, object] = {}
    if heap:
        method, state = heap
        state.require(describe(features))
        module: nn.Module = HeapGraph(features, size, method, state).eval()
        config = method.config
        values["heap"] = {
            "classes": len(state.arrays["class_centres"]),
            "cover": config.cover,
            "min_area": config.filters.min_area,
            "min_share": config.filters.min_share,
        }
    else:
        module = FeatureGraph(features, size).eval()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the exporter's own, about names it replaces
        program = torch.onnx.export(
            module,
            (torch.zeros((batch, *size, 3), dtype=torch.uint8),),
            dynamo=True,
            opset_version=OPSET,
            input_names=["images"],
            output_names=["keys", *(HEAP_OUTPUTS if heap else ())],
            verbose=False,
        )
    assert program is not None
    graph = program.model_proto
    for value in (*graph.graph.node, *graph.graph.value_info, *graph.graph.input, *graph.graph.output, graph.graph):
        del value.metadata_props[:]
    values |= {
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
    if heap:
        _check_head(module, session, list_images(images)[:_PARITY_IMAGES], size, batch, report)
    with atomic_path(destination) as temporary:
        onnx.save(graph, temporary)
    report(f"wrote {destination}")


def _check_head(
    module: nn.Module,
    session: onnxruntime.InferenceSession,
    paths: list[Path],
    size: tuple[int, int],
    batch: int,
    report: Callable[[str], None],
) -> None:
    """The head's foreground and regions in ONNX Runtime against torch's.

    Raises:
        InputError: They differ.

    """
    apart, same = 0.0, 1.0
    for path in paths:
        image = _stretched(path, size, batch)
        with torch.no_grad():
            _, odds, labels, *_ = module(torch.from_numpy(image))
        found, regions = session.run(["odds", "labels"], {"images": image})
        apart = max(apart, float(np.abs(found - odds.numpy()).max()))
        same = min(same, float((regions == labels.numpy()).mean()))
    report(
        f"  foreground of torch and ONNX Runtime: at most {apart:.1e} apart ({MAX_ODDS} is allowed), "
        f"{same:.2%} of the patches in the same region ({MIN_LABELS:.1%} is needed)"
    )
    if not (apart <= MAX_ODDS and same >= MIN_LABELS):
        raise InputError(f"the exported head is not the trained one: foreground {apart:.1e} apart; nothing was written")


def _stretched(path: Path, size: tuple[int, int], batch: int) -> np.ndarray:
    """(B, H, W, 3): a photograph at the exported size, as often as the batch wants."""
    return cv2.resize(read_image(path), size[::-1], interpolation=cv2.INTER_AREA)[None].repeat(batch, axis=0)


def _cosine(
    features: ViTFeatures, session: onnxruntime.InferenceSession, path: Path, size: tuple[int, int], batch: int
) -> float:
    """Least cosine over the patches of one photograph."""
    image = _stretched(path, size, batch)
    expected, found = features(image), session.run(["keys"], {"images": image})[0]
    norms = np.linalg.norm(expected, axis=1) * np.linalg.norm(found, axis=1)
    return float(((expected * found).sum(axis=1) / norms).min())
