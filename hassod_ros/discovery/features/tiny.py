"""The small ViT that `train/pretrain_features.py` makes: architecture and weights in one file, no network needed.

A ViT-Ti of patches of 8 pixels with registers (Darcet et al., "Vision Transformers Need Registers", 2024). Patches of 8
because regions cannot be finer than patches, and HASSOD clusters 60 x 60 of them; registers because without them some
patches of the background carry global information instead of their own.
"""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from hassod_ros.discovery.features.base import HANDCRAFTED, TINY
from hassod_ros.discovery.features.vit import ViTFeatures, choose_device, choose_precision, split_kind
from hassod_ros.errors import InputError
from hassod_ros.files import atomic_path

SHIPPED = Path(__file__).resolve().parents[2] / "models" / "tiny_features.safetensors"
METADATA_KEY = "hassod_ros_features"
SCHEMA = 1
MOST_BYTES = 12_000_000  # of a file: it ships inside the package


@dataclass(frozen=True)
class TinyViT:
    """Architecture of the small ViT.

    Attributes:
        patch_size: Side of a patch in pixels.
        width: Channels C of a token.
        depth: Blocks; discovery computes all but the last one.
        heads: Attention heads; they divide `width`.
        registers: Tokens without a place.
        image_size: Side in pixels of the pictures that the position embedding was made for; others are interpolated.

    """

    patch_size: int = 8
    width: int = 192
    depth: int = 8
    heads: int = 3
    registers: int = 4
    image_size: int = 160


def build_tiny(architecture: TinyViT) -> Any:
    """A timm VisionTransformer for any image size, with random weights.

    Raises:
        InputError: The sizes do not divide each other.

    """
    for part, whole in (("heads", "width"), ("patch_size", "image_size")):
        divisor, dividend = getattr(architecture, part), getattr(architecture, whole)
        if divisor < 1 or dividend < 1 or dividend % divisor:
            raise InputError(f"{whole} {dividend} of the ViT is no multiple of its {part} {divisor}; choose others")
    if architecture.depth < 1:
        raise InputError(f"the ViT needs at least 1 block, depth is {architecture.depth}")
    return timm.create_model(
        "vit_tiny_patch16_224",
        img_size=architecture.image_size,
        patch_size=architecture.patch_size,
        embed_dim=architecture.width,
        depth=architecture.depth,
        num_heads=architecture.heads,
        reg_tokens=architecture.registers,
        num_classes=0,
        dynamic_img_size=True,
    )


def save_tiny(model: Any, architecture: TinyViT, path: str | os.PathLike, facts: Mapping[str, Any]) -> None:
    """Write a ViT of `build_tiny` as float16 safetensors, with its architecture and `facts` as metadata.

    Raises:
        InputError: The file cannot be written, or would be larger than 12 MB.

    """
    tensors = {name: value.detach().cpu().half().contiguous() for name, value in model.state_dict().items()}
    size = sum(value.numel() * value.element_size() for value in tensors.values())
    if size > MOST_BYTES:
        raise InputError(f"{path} would hold {size / 1e6:.1f} MB, at most {MOST_BYTES // 1_000_000} are shipped")
    # One entry: safetensors does not keep the order of several, and equal weights shall give equal files.
    metadata = {"schema": SCHEMA, "architecture": asdict(architecture), "facts": facts}
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, metadata={METADATA_KEY: json.dumps(metadata, sort_keys=True)})


def read_tiny(path: str | os.PathLike) -> tuple[Any, dict[str, Any]]:
    """The ViT of a file that `save_tiny` wrote, in float32, and its facts.

    Raises:
        InputError: The file is missing, damaged, or holds something else.

    """
    if not Path(path).is_file():
        raise InputError(
            f"the {TINY} features {path} do not exist; make them with train/pretrain_features.py and name the file "
            f"with --weights, or use {HANDCRAFTED}"
        )
    try:
        with safe_open(path, framework="pt") as file:
            metadata = json.loads((file.metadata() or {}).get(METADATA_KEY, "{}"))
            tensors = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} is damaged or no safetensors file ({error}); make it again") from error
    if metadata.get("schema") != SCHEMA:
        raise InputError(f"{path} was not written by this version's pretrain_features; make it again with it")
    model = build_tiny(TinyViT(**metadata["architecture"]))
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise InputError(f"{path} does not hold the weights of the ViT that it names; make it again") from error
    return model, metadata["facts"]


def load_tiny(
    weights: str | os.PathLike | None = None,
    *,
    name: str = TINY,
    device: str | None = None,
    precision: str | None = None,
) -> ViTFeatures:
    """The features of a file of `save_tiny`; default: the shipped one. `name`: `tiny`, or `tiny:v` and the like."""
    device = choose_device(device)
    _, kind = split_kind(name)
    model, _ = read_tiny(SHIPPED if weights is None else weights)
    return ViTFeatures(model, name=name, device=device, precision=choose_precision(device, precision), kind=kind)


def centre_keys(model: Any, images: torch.Tensor) -> None:
    """Make the mean key of the last block zero over some pictures, so that unlike patches have negative cosines.

    The bias of the keys adds the same to all logits of a query, which the softmax takes out again: training leaves this
    bias undetermined, and moving it changes nothing but the features.

    Args:
        model: ViT of `build_tiny` on the CPU; its last block is changed.
        images: (N, H, W, 3) uint8 RGB, N >= 1, sides multiples of the patch size.

    """
    features = ViTFeatures(copy.deepcopy(model).float(), name=TINY)
    mean = torch.stack([torch.from_numpy(features(image[None].numpy())).mean((0, 2, 3)) for image in images]).mean(0)
    bias = model.blocks[-1].attn.qkv.bias
    with torch.no_grad():
        bias[len(mean) : 2 * len(mean)] -= mean
