"""Pre-training of the small ViT on raw photographs, from a folder to one file of features.

DINO (Caron et al., 2021) for what a picture shows, iBOT's masked patches (Zhou et al., 2022) for what each place shows.
"""

from __future__ import annotations

import functools
import hashlib
import math
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightly.models.utils import get_weight_decay_parameters, update_momentum
from lightly.utils.scheduler import cosine_schedule
from PIL import Image
from torch import Tensor, nn

from hassod_ros.detection.checkpoints import write_tensors
from hassod_ros.discovery.features.tiny import centre_keys, save_tiny
from hassod_ros.errors import InputError
from hassod_ros.files import alone, revision
from hassod_ros.images import list_images, read_image
from hassod_ros.learning.dataset import seed_of
from hassod_ros.learning.distributed import join_world
from hassod_ros.learning.monitor import Monitor
from hassod_ros.learning.pretraining.config import PretrainConfig
from hassod_ros.learning.pretraining.descriptors import descriptors_of
from hassod_ros.learning.pretraining.networks import Losses, Network
from hassod_ros.learning.pretraining.views import Views, block_masks, colours, crop
from hassod_ros.learning.resume import load_state
from hassod_ros.learning.schedules import learning_rate_factor

CHECKPOINT, FEATURES = "checkpoint.pt", "features.safetensors"
_CENTRING_PICTURES = 64
_NO_BETTER_THAN_CHANCE = 0.98  # of ln K, the loss between views where all K outputs are equal
_INITIAL, _ORDER, _VIEWS = range(3)  # keys of the random numbers


def pretrain(config: PretrainConfig) -> Path:
    """Train, or go on where a killed run stopped; everything random follows from the seed and the step's number.

    Returns:
        `<output>/features.safetensors`, for `load_features("tiny", weights=...)`; beside it lie the checkpoint and
        TensorBoard's files.

    Raises:
        InputError: No photograph can be read, the loss is not finite, the checkpoint is of other settings or the disk
            is full.

    """
    folder = Path(config.output)
    with join_world(config.device) as world, ExitStack() as held:
        if world.size > 1:
            raise InputError("features are pre-trained by one process; start it without torchrun")
        device = world.device
        precision = config.precision
        if precision == "auto":
            precision = "bf16" if device.type == "cuda" else "fp32"
        if not config.images:
            raise InputError("pre-training needs photographs; give their folder or list with --images")
        paths = list_images(config.images)
        held.enter_context(alone(folder))
        pictures = load_pictures(paths, config.picture_side)
        settings = {**config.settings(), "precision": precision, "pictures": _fingerprint(pictures)}

        torch.manual_seed(seed_of(config.seed, _INITIAL))
        student, teacher = Network(config).to(device), Network(config).to(device)
        teacher.load_state_dict(student.state_dict())
        teacher.requires_grad_(False)
        losses = Losses(config).to(device)
        optimizer = _make_optimizer(student, config)
        parts: dict[str, Any] = {"student": student, "teacher": teacher, "losses": losses, "optimizer": optimizer}
        start = 0
        if state := load_state(folder / CHECKPOINT, settings, device):
            for name, part in parts.items():
                part.load_state_dict(state[name])
            start = state["iteration"]

        source = pictures.to(device)
        monitor = Monitor(folder, world, every=config.log_every, start=start, iterations=config.iterations)
        view_losses = deque[float](maxlen=config.log_every)
        for iteration in range(start, config.iterations):
            rate = config.learning_rate * learning_rate_factor(
                iteration, config.iterations, warmup=config.warmup, shape="cosine"
            )
            decayed, kept = optimizer.param_groups
            decayed["lr"] = kept["lr"] = rate
            decayed["weight_decay"] = float(cosine_schedule(iteration, config.iterations, *config.weight_decay))
            chosen = drawn(len(source), config.batch_size, iteration, config.seed)
            torch.manual_seed(seed_of(config.seed, _VIEWS, iteration))
            batch = source[chosen.to(device)].permute(0, 3, 1, 2).float() / 255
            views = make_views(batch, config, mean_std=_statistics(student, device))
            with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
                found = losses(student, teacher, views, _temperature(config, iteration))
            total = torch.stack(list(found.values())).sum()
            values = {"loss": float(total.detach()), **{name: float(loss.detach()) for name, loss in found.items()}}
            if not math.isfinite(values["loss"]):
                raise InputError(
                    f"the loss is not finite at iteration {iteration}; lower learning_rate or use precision fp32, "
                    "then start again with another output"
                )
            view_losses.extend([values["views"]] if "views" in values else [])
            total.backward()
            student.head.cancel_last_layer_gradients(iteration)
            if config.clip_norm:
                nn.utils.clip_grad_norm_(student.parameters(), config.clip_norm)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            update_momentum(student, teacher, cosine_schedule(iteration, config.iterations, *config.momentum))

            monitor.step(iteration, values, learning_rate=rate, pictures=len(batch))
            done = iteration + 1
            if done % config.checkpoint_every == 0 or done == config.iterations:
                state = {name: part.state_dict() for name, part in parts.items()}
                write_tensors(folder / CHECKPOINT, {"settings": settings, "iteration": done, **state})
        monitor.close()
        if view_losses and np.mean(view_losses) > _NO_BETTER_THAN_CHANCE * config.views_weight * math.log(
            config.prototypes
        ):
            print(
                "warning: the features have collapsed (the loss between views is that of outputs which are all equal); "
                "train for longer, on more pictures, in larger batches, or with --descriptor_weight 1",
                flush=True,
            )

        model = teacher.backbone.vit.cpu().eval()
        centre_keys(model, pictures[:: max(1, len(pictures) // _CENTRING_PICTURES)])
        facts = {"settings": settings, "photographs": len(pictures), "revision": revision()}
        save_tiny(model, config.architecture, folder / FEATURES, facts)
    return folder / FEATURES


def load_pictures(paths: Sequence[Path], side: int) -> Tensor:
    """Photographs as squares in memory, decoded once; what cannot be read is listed on the screen and left out.

    Args:
        paths: Of the photographs, at least one.
        side: Of the squares in pixels; the aspect ratio is lost, as in discovery.

    Returns:
        (N, side, side, 3) uint8 RGB.

    Raises:
        InputError: None can be read.

    """
    pictures = torch.empty((len(paths), side, side, 3), dtype=torch.uint8)

    def load(place: int) -> str:
        try:
            pixels = Image.fromarray(read_image(paths[place])).resize((side, side), Image.Resampling.BILINEAR)
        except InputError as error:
            return str(error)
        pictures[place] = torch.from_numpy(np.array(pixels))
        return ""

    with ThreadPoolExecutor() as pool:  # Pillow lets go of the interpreter while it decodes
        errors = list(pool.map(load, range(len(paths))))
    for error in filter(None, errors):
        print(f"left out: {error}", flush=True)
    good = [place for place, error in enumerate(errors) if not error]
    if not good:
        raise InputError(f"none of {len(paths)} photographs in {paths[0].parent} can be read; give others")
    return pictures if len(good) == len(paths) else pictures[good]


def drawn(count: int, batch_size: int, iteration: int, seed: int) -> Tensor:
    """(B,) int64 numbers of the pictures of one step: every epoch sees each of `count` pictures once, in its own order.

    Example:
        >>> sorted(torch.cat([drawn(4, 2, 0, seed=0), drawn(4, 2, 1, seed=0)]).tolist())
        [0, 1, 2, 3]

    """
    places = range(iteration * batch_size, (iteration + 1) * batch_size)
    return torch.tensor([_order(count, place // count, seed)[place % count] for place in places])


@functools.lru_cache(maxsize=4)
def _order(count: int, epoch: int, seed: int) -> list[int]:
    return np.random.default_rng([seed, _ORDER, epoch]).permutation(count).tolist()


def make_views(batch: Tensor, config: PretrainConfig, *, mean_std: tuple[Tensor, Tensor]) -> Views:
    """All views of one step.

    Args:
        batch: (B, 3, S, S) float32 RGB in [0, 1].
        config: Sizes, shares, and what is learned: without a loss between views there is nothing to change colours for.
        mean_std: (1, 3, 1, 1) each.

    """
    mean, std = mean_std

    def view(size: int, scale: tuple[float, float], blur: float, solarise: float) -> Tensor:
        part = crop(batch, size, scale)
        return colours(part, blur=blur, solarise=solarise) if config.learns_views else part

    large = torch.cat([view(config.global_size, config.global_scale, *change) for change in ((1.0, 0.0), (0.1, 0.2))])
    small = []
    if config.learns_views:
        small = [view(config.local_size, config.local_scale, 0.5, 0.0) for _ in range(config.local_views)]
    masks = None
    if config.learns_patches or (config.learns_descriptors and config.masked_views):
        masks = block_masks(
            len(large),
            config.global_size // config.patch_size,
            probability=config.masked_views,
            share=config.masked_share,
            device=batch.device,
        )
    descriptors = descriptors_of(large) if config.learns_descriptors else None
    return Views((large - mean) / std, [(each - mean) / std for each in small], masks, descriptors)


def _statistics(network: Network, device: torch.device) -> tuple[Tensor, Tensor]:
    cfg = network.backbone.vit.pretrained_cfg  # discovery normalises by the same
    mean, std = (torch.tensor(cfg[key], device=device).view(1, 3, 1, 1) for key in ("mean", "std"))
    return mean, std


def _temperature(config: PretrainConfig, iteration: int) -> float:
    low, high = config.teacher_temperature
    return low + (high - low) * min(1.0, iteration / max(1, config.temperature_warmup))


def _make_optimizer(network: Network, config: PretrainConfig) -> torch.optim.Optimizer:
    decayed, kept = (
        [parameter for parameter in group if parameter.requires_grad]
        for group in get_weight_decay_parameters([network])
    )
    groups: list[dict[str, Any]] = [{"params": decayed}, {"params": kept, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=config.learning_rate)


def _fingerprint(pictures: Tensor) -> str:
    return hashlib.sha256(pictures.numpy().data).hexdigest()
