"""Training of HEAP's head: three losses on cached features, watched for collapse, resumed exactly."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hassod_ros.commands import reached, stop_between
from hassod_ros.discovery.heap_head.config import HeadConfig
from hassod_ros.discovery.heap_head.contrast import contrast_loss
from hassod_ros.discovery.heap_head.inter_image import inter_image_loss
from hassod_ros.discovery.heap_head.intra_image import modularity_loss
from hassod_ros.discovery.heap_head.network import Grouped, Head
from hassod_ros.errors import InputError
from hassod_ros.files import atomic_path

USED = 0.01  # share of the patches that makes a group count
_LEAST_GROUPS = 1.5  # on average: fewer is one region for everything
_FOREGROUND = (0.02, 0.9)  # mean foreground that is still one
_CHECK_FROM = 0.25  # of the training: before, groups are still finding their place


Report = Callable[[int, dict[str, float], Head], None]


def train_head(
    vectors: np.ndarray,
    border: np.ndarray,
    config: HeadConfig,
    *,
    device: str = "cpu",
    checkpoint: Path | None = None,
    provenance: dict[str, Any] | None = None,
    report: Report | None = None,
) -> Head:
    """Train a head.

    Args:
        vectors: (images, N, C) of length 1; may be memory-mapped.
        border: (N,) bool, the patches on the image's border.
        config: Settings.
        device: Where to compute.
        checkpoint: State of the run, written every `config.every` iterations; a run that finds one goes on exactly.
        provenance: What else decides the result; a checkpoint of another is refused.
        report: Gets the iteration, the means since the last report and the head, every `config.every` iterations.

    Raises:
        InputError: Fewer than two images, features that are not finite, another run's checkpoint, or a head that has
            collapsed: it uses one group, or calls nothing, everything or rather the border foreground.

    """
    if len(vectors) < 2:
        raise InputError(f"HEAP compares images and needs at least 2, got {len(vectors)}; give more")
    if all(np.array_equal(vectors[0], vectors[i]) for i in range(1, min(len(vectors), 32))):
        raise InputError("the images all look the same; HEAP learns from what differs between them, give others")
    torch.manual_seed(config.seed)
    head = Head(vectors.shape[2], config.tokens, config.blocks, config.temperature, config.rounds).to(device)
    optimizer = torch.optim.AdamW(head.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, config.iterations)
    ring = torch.from_numpy(border).to(device)
    facts = {"config": asdict(config), **(provenance or {})}
    start = _resume(checkpoint, facts, device, head, optimizer, schedule)
    sums: dict[str, float] = {}
    with stop_between("iteration") as stopped:
        for iteration in range(start, config.iterations):
            losses, grouped = _losses(head, _batch(vectors, config, iteration, device), ring, config)
            total = config.intra * losses["intra"] + config.neg * losses["neg"] + config.inter * losses["inter"]
            if not torch.isfinite(total):
                raise InputError("the loss is not finite; lower learning_rate, or check the features")
            optimizer.zero_grad()
            total.backward()
            torch.nn.utils.clip_grad_norm_(head.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            values: dict[str, Any] = {**losses, "loss": total, **_health(grouped, ring)}
            for name, value in values.items():
                sums[name] = sums.get(name, 0.0) + float(torch.as_tensor(value).detach())
            done = iteration + 1
            due = done % config.every == 0 or done == config.iterations
            if due:
                since = done - max(start, (done - 1) // config.every * config.every)
                means = {name: value / since for name, value in sums.items()}
                sums = {}
                if done >= _CHECK_FROM * config.iterations:
                    _check_collapse(means)
                if report:
                    report(done, means, head)
            if checkpoint and (due or stopped()):
                _save(checkpoint, facts, done, head, optimizer, schedule)
                reached(f"{done} of {config.iterations} iterations")
            if stopped():
                break
    return head.eval()


def _batch(vectors: np.ndarray, config: HeadConfig, iteration: int, device: str) -> Tensor:
    """Images of an iteration: drawn from the seed and the iteration alone, so that a resumed run draws the same."""
    rng = np.random.default_rng((config.seed, iteration))
    chosen = np.sort(rng.choice(len(vectors), min(config.batch, len(vectors)), replace=False))
    return torch.from_numpy(vectors[chosen].astype(np.float32)).to(device)


def _losses(head: Head, features: Tensor, border: Tensor, config: HeadConfig) -> tuple[dict[str, Tensor], Grouped]:
    grouped = head(features, border)
    foreground, background = grouped.embeddings(features)
    used = grouped.sizes > USED
    inside = grouped.scores > 0.5
    image = torch.arange(len(features), device=features.device)[:, None].expand_as(used)
    things, scene = used & inside, used & ~inside
    inter = inter_image_loss(grouped.groups[things], image[things]) + inter_image_loss(
        grouped.groups[scene], image[scene]
    )
    losses = {
        "intra": modularity_loss(features, grouped.assignment),
        "neg": contrast_loss(foreground, background),
        "inter": inter,
    }
    return losses, grouped


@torch.no_grad()
def _health(grouped: Grouped, border: Tensor) -> dict[str, float]:
    foreground = grouped.foreground
    return {
        "groups": float((grouped.sizes > USED).sum(dim=1).float().mean()),
        "foreground": float(foreground.mean()),
        "border": float(foreground[:, border].mean()),
    }


def _check_collapse(means: dict[str, float]) -> None:
    low, high = _FOREGROUND
    if means["groups"] < _LEAST_GROUPS:
        fault = f"it uses {means['groups']:.1f} groups an image"
    elif not low <= means["foreground"] <= high:
        fault = f"it calls {means['foreground']:.0%} of an image foreground"
    elif means["border"] > means["foreground"]:
        fault = f"it calls {means['border']:.0%} of the border foreground and {means['foreground']:.0%} of the image"
    else:
        return
    raise InputError(f"the head has collapsed: {fault}; lower learning_rate, or use more images or other features")


def _resume(path: Path | None, facts: dict[str, Any], device: str, head: Head, *others: Any) -> int:
    """Load a checkpoint into head, optimizer and schedule; the iteration that follows."""
    if path is None or not path.is_file():
        return 0
    try:
        state = torch.load(path, map_location=device, weights_only=True)
        found = state["facts"]
    except Exception as error:  # torch raises many kinds for a damaged file
        raise InputError(f"{path} is no checkpoint of this program ({error}); move it away to start again") from error
    different = [key for key in facts if found.get(key) != facts[key]]
    if different:
        raise InputError(
            f"{path} belongs to a run with other {', '.join(different)}; repeat its options, or move it away"
        )
    head.load_state_dict(state["head"])
    for part, name in zip(others, ("optimizer", "schedule"), strict=True):
        part.load_state_dict(state[name])
    return int(state["done"])


def _save(path: Path, facts: dict[str, Any], done: int, head: Head, optimizer: Any, schedule: Any) -> None:
    buffer = io.BytesIO()  # given a path, torch stores its name inside
    state = {"facts": facts, "done": done, "head": head.state_dict(), "optimizer": optimizer.state_dict()}
    torch.save({**state, "schedule": schedule.state_dict()}, buffer)
    with atomic_path(path) as temporary:
        temporary.write_bytes(buffer.getbuffer())
