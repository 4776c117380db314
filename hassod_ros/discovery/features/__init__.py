"""Dense features of images by name: what regions are compared by (HASSOD, section 3.1)."""

from __future__ import annotations

import os
from typing import Any

from hassod_ros.discovery.features.base import HANDCRAFTED, TINY, Features
from hassod_ros.errors import InputError

DEFAULT = "vit_base_patch8_224.dino"
# (n, px) of `SohesConfig.tiles`. Attention costs the square of a view's patches, and the small ViT learns from pictures
# of 96 to 160 px: many small tiles show it more, sooner.
TINY_TILES = ((1, 160), (1, 320), (2, 160), (3, 160), (4, 160), (6, 160))


def suited_options(name: str, method: str = "hassod") -> dict[str, Any]:
    """Options of `hassod` or `sohes` that differ from their own where features ask for it: `handcrafted`, `tiny`, both.

    All patches of `tiny` are alike, for they share a large mean. Less that, they merge where `handcrafted` do, whose
    mean is taken out already. SOHES looks at more and smaller tiles with it.

    Args:
        name: As for `load_features`.
        method: Whose options.

    """
    parts = {part.partition(":")[0] for part in name.split("+")}
    if not parts <= {HANDCRAFTED, TINY}:
        return {}
    from hassod_ros.discovery.features.handcrafted import CENTRING, THRESHOLDS

    options: dict[str, Any] = {"thresholds": list(THRESHOLDS)}
    if TINY in parts:
        options["centring"] = CENTRING
        if method == "sohes":
            options["tiles"] = [list(each) for each in TINY_TILES]
    return options


def load_features(
    name: str = DEFAULT,
    weights: str | os.PathLike | None = None,
    device: str | None = None,
    precision: str | None = None,
) -> Features:
    """Make a feature extractor by name.

    Args:
        name: A ViT that timm knows, such as `vit_base_patch8_224.dino`, `vit_base_patch14_dinov2.lvd142m` or
            `vit_base_patch16_dinov3.lvd1689m`; or `handcrafted`, which needs no weights and no torch;
            or `tiny`, the small ViT of `pretrain_features`;
            either with `:q`, `:v` or `:tokens` behind it for what is taken instead of the last block's keys;
            or the path of an `.onnx` file of `features_to_onnx`, which says all the rest itself;
            or several of these joined by `+`, such as `tiny+handcrafted`.
        weights: File of weights (`.pth` or `.safetensors`). Default: for `tiny` the file in
            `hassod_ros/models`, else timm downloads those that belong to the name. Of joined features one alone may
            need weights.
        device: `cpu`, `cuda` or `cuda:1`. Default: the first GPU where there is one, else the CPU.
        precision: `bf16` or `fp32`. Default: `bf16` where the hardware computes in it, else `fp32`.

    Raises:
        InputError: Unknown name, device or precision, weights that do not fit the name or cannot be fetched, or joined
            features of different patch sizes.

    """
    if "+" in name and not os.path.isfile(name):
        parts = name.split("+")
        takers = [part for part in parts if part != HANDCRAFTED]
        if weights is not None and len(takers) != 1:
            raise InputError(f"{weights} could belong to any of {name}; leave it out, or join a ViT with {HANDCRAFTED}")
        from hassod_ros.discovery.features.joined import JoinedFeatures

        return JoinedFeatures(
            [load_features(part, weights if part in takers else None, device, precision) for part in parts]
        )
    if name.partition(":")[0] == TINY:
        from hassod_ros.discovery.features.tiny import load_tiny

        return load_tiny(weights, name=name, device=device, precision=precision)
    if name == HANDCRAFTED:
        if weights is not None:
            raise InputError(f"{HANDCRAFTED} features have no weights; leave {weights} out or name a ViT")
        from hassod_ros.discovery.features.handcrafted import HandcraftedFeatures

        return HandcraftedFeatures()
    if name.endswith(".onnx"):
        from hassod_ros.discovery.features.onnx import OnnxFeatures

        return OnnxFeatures(name)
    from hassod_ros.discovery.features.vit import load_vit  # torch: training machines only

    return load_vit(name, weights=weights, device=device, precision=precision)
