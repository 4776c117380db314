"""Time ViT features against the published way of computing them, side by side, with random weights.

The published way (HASSOD's feature code over DINO's ViT): float32, attention written out, every block finished, keys
picked up by a hook on the last projection. Ours: fused attention, the last block stopped after its keys, and bf16 where
the hardware has it.

    python benchmarks/features.py --model vit_base_patch8_224.dino --size 480 --repeats 3
"""

import argparse
import copy
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from hassod_ros.discovery.features.vit import ViTFeatures, build, choose_device, choose_precision, resize_positions


def published(model: Any, images: torch.Tensor) -> torch.Tensor:
    """(B, 3, H, W) normalised float32 -> keys (B, C, h, w), as the published code gets them."""
    caught: list[torch.Tensor] = []
    hook = model.blocks[-1].attn.qkv.register_forward_hook(lambda module, inputs, output: caught.append(output))
    model.forward_features(images)
    hook.remove()
    batch, tokens, channels = caught[0].shape
    keys = caught[0].reshape(batch, tokens, 3, channels // 3)[:, 1:, 1]
    return keys.transpose(1, 2).reshape(batch, channels // 3, *model.patch_embed.grid_size)


def main() -> None:
    """Print one line per variant: seconds an image, how many times faster, and the smallest cosine to the first."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="vit_base_patch8_224.dino")
    parser.add_argument("--size", type=int, default=480)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)

    device = choose_device(None)
    model = build(options.model, pretrained=False).to(device).eval()
    noise = np.random.default_rng(0).integers(0, 256, (1, 12, 12, 3), dtype=np.uint8)
    image = np.ascontiguousarray(noise.repeat(options.size // 12, 1).repeat(options.size // 12, 2))
    ours = {
        f"ours, {precision}": ViTFeatures(copy.deepcopy(model), name=options.model, device=device, precision=precision)
        for precision in dict.fromkeys(("fp32", choose_precision(device, None)))
    }
    eager = copy.deepcopy(model)
    # The published code resizes positions as ours does; timm finds the result fitting.
    patch, train_grid = model.patch_embed.patch_size[0], tuple(model.patch_embed.grid_size)
    grid = (options.size // patch, options.size // patch)
    eager.pos_embed = nn.Parameter(resize_positions(model.pos_embed.detach(), train_grid, grid, antialias=False))
    eager.patch_embed.grid_size = grid
    for block in eager.blocks:
        block.attn.fused_attn = False
    mean, std = (torch.tensor(model.pretrained_cfg[key]).view(1, 3, 1, 1) for key in ("mean", "std"))
    pixels = ((torch.from_numpy(image).permute(0, 3, 1, 2) / 255 - mean) / std).to(device)

    def run_published() -> np.ndarray:
        with torch.inference_mode():
            return published(eager, pixels).cpu().numpy()

    runs: dict[str, Callable[[], np.ndarray]] = {"published": run_published}
    runs |= {label: partial(features, image) for label, features in ours.items()}
    results = {label: run() for label, run in runs.items()}  # also warms up
    seconds = {label: float("inf") for label in runs}
    for _ in range(options.repeats):  # interleaved: all meet the same load
        for label, run in runs.items():
            start = time.perf_counter()
            run()
            seconds[label] = min(seconds[label], time.perf_counter() - start)

    size = f"{options.size}x{options.size}"
    print(f"{options.model}, {size}, {device}, {options.threads} threads, best of {options.repeats}")
    wanted = results["published"]
    for label, result in results.items():
        cosine = (result * wanted).sum(1) / (np.linalg.norm(result, axis=1) * np.linalg.norm(wanted, axis=1))
        faster = seconds["published"] / seconds[label]
        print(f"{label:12} {seconds[label]:7.3f} s  {faster:6.2f}x  min cosine {cosine.min():.5f}")


if __name__ == "__main__":
    main()
