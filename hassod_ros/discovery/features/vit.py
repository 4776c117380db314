"""Keys of a ViT's last block as dense features (HASSOD, section 3.1), through timm; or queries, values, tokens.

Follows DINO (Caron et al., 2021): the class token is dropped, and the position embedding is resized as DINO does it.
For keys the last block is never finished: only its first normalisation and its key projection run. Keys are taken as
they leave the projection, before rotary embeddings or key normalisation of models that have these.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import logging
import os
import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from hassod_ros.discovery.features.base import HANDCRAFTED, check_images
from hassod_ros.discovery.features.hub import HUB, without_retries
from hassod_ros.errors import InputError
from hassod_ros.precision import bf16_is_fast

_log = logging.getLogger(__name__)
KINDS = ("q", "k", "v", "tokens")  # queries, keys, values; tokens: what leaves the network, after its last norm
_PRECISIONS = {"bf16": torch.bfloat16, "fp32": torch.float32}
# Where training code puts the state dict of the network that is meant to be used, in the order of preference.
_NESTS = ("teacher", "model_ema", "state_dict", "model")
_PREFIXES = ("module.", "backbone.", "encoder.")
# Names that tell the official DINOv2 and DINOv3 files from timm's.
_FOREIGN = ("mask_token", "storage_tokens")


class ViTFeatures:
    """Last-block keys of a timm ViT; see `Features`.

    Args:
        model: timm VisionTransformer or Eva built with `dynamic_img_size=True` and `num_classes=0`. It is taken over
            and changed: unless it gives tokens, its last block is cut after the projection.
        name: Name that the features are known by.
        device: Where to compute.
        precision: `bf16` or `fp32`.
        kind: What is taken of the last block, see `KINDS`.

    """

    def __init__(self, model: Any, *, name: str, device: str = "cpu", precision: str = "fp32", kind: str = "k") -> None:
        self.name = name
        self.precision = precision
        self.weights_sha256 = _fingerprint(model)
        self.patch_size = int(model.patch_embed.patch_size[0])
        self._device, self._dtype = torch.device(device), _PRECISIONS[precision]
        self._mean, self._std = (
            torch.tensor(model.pretrained_cfg[key], device=self._device).mul(255).view(1, 3, 1, 1)
            for key in ("mean", "std")
        )
        self._train_grid = tuple(model.patch_embed.grid_size)
        self._grid = self._train_grid
        self._positions = None if model.pos_embed is None else model.pos_embed.detach().to(self._device)

        self.dim = int(model.embed_dim)
        if kind != "tokens":
            model.blocks[-1] = _Projection(model.blocks[-1], kind)
            model.norm = nn.Identity()
            self.dim = model.blocks[-1].project.out_features
        rope = copy.deepcopy(getattr(model, "rope", None))
        self._model = model.to(self._device, self._dtype).eval().requires_grad_(False)
        if rope is not None:  # its frequencies lose too much in bf16
            self._model.rope = rope.to(self._device)

    @torch.inference_mode()
    def __call__(self, images: np.ndarray) -> np.ndarray:
        """(B, H, W, 3) uint8 RGB -> (B, C, h, w) float32; see `Features`."""
        check_images(images, self.patch_size)
        grid = (images.shape[1] // self.patch_size, images.shape[2] // self.patch_size)
        self._fit_positions(grid)
        pixels = torch.from_numpy(np.require(images, requirements=("C", "W"))).to(self._device).permute(0, 3, 1, 2)
        tokens = self._model.forward_features(((pixels - self._mean) / self._std).to(self._dtype))  # (B, N, C)
        keys = tokens[:, self._model.num_prefix_tokens :].float().transpose(1, 2).reshape(len(images), -1, *grid)
        if not torch.isfinite(keys).all():
            raise InputError(f"{self.name} gives values that are not finite; check its weights, or use precision fp32")
        return keys.cpu().numpy()

    def _fit_positions(self, grid: tuple[int, int]) -> None:
        """Give the model the position embedding of a patch grid; timm finds it fitting and leaves it alone."""
        if self._positions is None or grid == self._grid:
            return
        has_registers = getattr(self._model, "reg_token", None) is not None
        fitted = resize_positions(self._positions, self._train_grid, grid, antialias=has_registers)
        self._model.pos_embed = nn.Parameter(fitted.to(self._dtype), requires_grad=False)
        self._model.patch_embed.grid_size = grid
        self._grid = grid


class _Projection(nn.Module):
    """The beginning of a transformer block: tokens -> queries, keys or values (`kind` q, k or v)."""

    def __init__(self, block: Any, kind: str) -> None:
        super().__init__()
        self.norm = block.norm1
        attention = block.attn
        if getattr(attention, "qkv", None) is None:
            self.project = getattr(attention, f"{kind}_proj")
            return
        dim = attention.qkv.out_features // 3
        first = KINDS.index(kind) * dim
        rows = slice(first, first + dim)
        bias = attention.qkv.bias
        if bias is not None:
            bias = bias[rows]
        elif kind != "k":  # where Eva keeps its bias apart, that of the keys is zero
            bias = getattr(attention, f"{kind}_bias", None)
        self.project = nn.Linear(attention.qkv.in_features, dim, bias=bias is not None)
        self.project.weight = nn.Parameter(attention.qkv.weight.detach()[rows].clone())
        if bias is not None:
            self.project.bias = nn.Parameter(bias.detach().clone())

    def forward(self, tokens: Tensor, **_: object) -> Tensor:
        """(B, N, C) -> (B, N, C); rotary embeddings and masks belong to the part that was cut off."""
        return self.project(self.norm(tokens))


def load_vit(
    name: str, *, weights: str | os.PathLike | None = None, device: str | None = None, precision: str | None = None
) -> ViTFeatures:
    """Build the ViT `name` with its weights; arguments and errors as in `load_features`."""
    device = choose_device(device)
    precision = choose_precision(device, precision)
    architecture, kind = split_kind(name)
    content = None if weights is None else _read(Path(weights))
    model = build(architecture, pretrained=content is None)
    if content is not None:
        _fill(model, content, f"{weights}", architecture)
    return ViTFeatures(model, name=name, device=device, precision=precision, kind=kind)


def split_kind(name: str) -> tuple[str, str]:
    """`vit_small_patch16_224.dino:tokens` -> name of the ViT and what is taken of it; default: keys.

    Raises:
        InputError: Neither of `KINDS`.

    """
    architecture, colon, kind = name.partition(":")
    if colon and kind not in KINDS:
        raise InputError(f"a ViT gives {', '.join(KINDS)}, not {kind!r}; name one of them behind {architecture}:")
    return architecture, kind or "k"


def build(name: str, *, pretrained: bool) -> Any:
    """A timm ViT for any image size, with random weights or those that timm downloads.

    Raises:
        InputError: No such model, not a ViT, or the download failed.

    """
    architecture = name.split(".")[0]
    if not timm.is_model(architecture):
        near = ", ".join(timm.list_models(f"{architecture[:8]}*")[:5]) or "see timm.list_models('vit*')"
        raise InputError(f"timm knows no model {name!r}; name a ViT ({near}) or {HANDCRAFTED}")
    try:
        model: Any = timm.create_model(name, pretrained=False, num_classes=0, dynamic_img_size=True)
    except (TypeError, RuntimeError) as error:  # another architecture's constructor; an unknown tag
        raise InputError(f"{name} is not a ViT that features can be taken from ({error}); name another") from error
    parts = (getattr(model, "patch_embed", None), getattr(model, "num_prefix_tokens", None))
    if None in parts or not hasattr(model.blocks[-1], "attn") or not hasattr(model.blocks[-1], "norm1"):
        raise InputError(f"{name} is not a ViT that features can be taken from; name another")
    if pretrained:
        answers = True
        try:
            with without_retries() as answers:
                model = timm.create_model(name, pretrained=True, num_classes=0, dynamic_img_size=True)
        except Exception as error:  # the hub's clients raise many unrelated types
            reason = error if answers else f"{HUB} does not answer and they are not in its cache"
            raise InputError(
                f"the weights of {name} could not be downloaded ({reason}); give a file of them with --weights, or use "
                f"--features {HANDCRAFTED}, which need none"
            ) from error
    return model


def _fill(model: Any, content: dict, path: str, name: str) -> None:
    """Put the weights that `path` holds into `model`, or say what does not fit."""
    state, steps = _unwrap(content)
    if any(key in state for key in _FOREIGN):
        state = _to_timm(state, model)
        steps.append("renamed to timm's names")
    own = model.state_dict()
    wrong = [f"{key} is missing" for key in own if key not in state]
    wrong += [
        f"{key} has shape {tuple(state[key].shape)}, not {tuple(value.shape)}"
        for key, value in own.items()
        if key in state and state[key].shape != value.shape
    ]
    if wrong:
        raise InputError(
            f"{path} does not hold the weights of {name}: {'; '.join(wrong[:3])}{' ...' * (len(wrong) > 3)}"
            f" ({len(wrong)} of {len(own)} tensors); name the model that they belong to"
        )
    model.load_state_dict({key: state[key] for key in own})
    unused = [key for key in state if key not in own]
    if unused:
        steps.append(f"left out {len(unused)} tensors that the features do not need: {', '.join(unused[:4])}")
    _log.info("%s: read %d tensors%s", path, len(own), "".join(f"; {step}" for step in steps))


def _read(path: Path) -> dict:
    if not path.is_file():
        raise InputError(f"the weights {path} do not exist; check the path")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        # DINO's full checkpoints carry their command line; a Namespace only holds values.
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise InputError(
            f"{path} holds more than weights and is not opened; save its state dict alone or as safetensors"
        ) from error
    except (SafetensorError, RuntimeError, EOFError, OSError) as error:
        raise InputError(f"{path} is damaged or not a file of weights ({error}); fetch it again") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} holds a {type(content).__name__}, not named weights; save a state dict")
    return content


def _unwrap(content: dict) -> tuple[dict[str, Tensor], list[str]]:
    """Find the state dict of the network and take prefixes off its names; also returns what was done."""
    steps = []
    while nest := next((key for key in _NESTS if isinstance(content.get(key), dict)), None):
        content = content[nest]
        steps.append(f"took {nest!r}")
    state = {key: value for key, value in content.items() if isinstance(value, Tensor)}
    while prefix := next((p for p in _PREFIXES if any(key.startswith(p) for key in state)), None):
        # Only names with the prefix belong to the network: a head beside the backbone is left out.
        state = {key[len(prefix) :]: value for key, value in state.items() if key.startswith(prefix)}
        steps.append(f"took the names that begin with {prefix!r}")
    return state, steps


def _to_timm(state: dict[str, Tensor], model: Any) -> dict[str, Tensor]:
    """Names of the official DINOv2 and DINOv3 files -> timm's, by timm's own table."""
    renamed = sys.modules[type(model).__module__].checkpoint_filter_fn(dict(state), model)
    # timm would silently resample another patch or training size; the originals let the difference show.
    own = model.state_dict()
    for key, surplus in (("patch_embed.proj.weight", (0,)), ("pos_embed", (0, 1))):
        if key in own and key in state:
            given, wanted = state[key].shape, own[key].shape
            fits = given[2:] == wanted[2:] and given[1] - wanted[1] in surplus
            renamed[key] = renamed[key] if fits else state[key]
    return renamed


def resize_positions(
    positions: Tensor, train_grid: tuple[int, int], grid: tuple[int, int], *, antialias: bool
) -> Tensor:
    """Position embedding (1, prefix + N, C) of another patch grid, as DINO and DINOv2 resize it.

    Both hand bicubic interpolation the factor (n + 0.1) / n_train instead of the size, which shifts the sampled points
    a little. DINOv2's models with registers were made for exact sizes with antialiasing.
    """
    if grid == train_grid:
        return positions
    patches = train_grid[0] * train_grid[1]
    prefix = positions.shape[1] - patches
    image = positions[:, prefix:].reshape(1, *train_grid, -1).permute(0, 3, 1, 2)
    if antialias:
        resized = F.interpolate(image, size=grid, mode="bicubic", antialias=True)
    else:
        factor = tuple((new + 0.1) / old for new, old in zip(grid, train_grid, strict=True))
        resized = F.interpolate(image, scale_factor=factor, mode="bicubic")
    return torch.cat([positions[:, :prefix], resized.flatten(2).transpose(1, 2)], dim=1)


def _fingerprint(model: Any) -> str:
    """SHA-256 over names, shapes and float32 values: the same for equal weights, whatever file they came from."""
    digest = hashlib.sha256()
    for key, value in sorted(model.state_dict().items()):
        digest.update(f"{key}{tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().float().numpy().tobytes())
    return digest.hexdigest()


def choose_device(device: str | None) -> str:
    """The device asked for, or the best one there is; InputError where it does not exist."""
    if device is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        kind = torch.device(device).type
    except RuntimeError as error:
        raise InputError(f"{device!r} is not a device; use cpu, cuda or cuda:N") from error
    if kind == "cuda" and not torch.cuda.is_available():
        raise InputError("there is no GPU that torch can use; install its CUDA build or use the device cpu")
    return device


def choose_precision(device: str, precision: str | None) -> str:
    """The precision asked for, or `bf16` where `device` computes in it; InputError for an unknown one."""
    if precision is not None:
        if precision not in _PRECISIONS:
            raise InputError(f"precision must be one of {', '.join(_PRECISIONS)}, not {precision!r}")
        return precision
    return "bf16" if bf16_is_fast(device) else "fp32"
