"""The loop that both stages share: batches, gradients, schedules, checkpoints, exact resume."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from hassod_ros.commands import reached, stop_between
from hassod_ros.detection.base import DEFAULT_LOSSES, Detector, LossOptions, Targets
from hassod_ros.detection.checkpoints import save_weights, write_tensors
from hassod_ros.errors import InputError
from hassod_ros.learning.config import RunConfig, StageConfig
from hassod_ros.learning.dataset import Batch, TrainingBatches, iterate, seed_of
from hassod_ros.learning.distributed import World
from hassod_ros.learning.monitor import Monitor
from hassod_ros.learning.preview import preview
from hassod_ros.learning.resume import load_state
from hassod_ros.learning.schedules import learning_rate_factor

CHECKPOINT, BEST = "checkpoint.pt", "best.pth"
_MOMENTUM = 0.9  # of SGD
Score = Callable[[Detector], Mapping[str, float]]  # figures of a detector, the first one the larger the better


@dataclasses.dataclass(frozen=True)
class SupervisedBatch:
    """Pictures and targets that the student learns from together, and how much they count.

    Attributes:
        name: Prefix of the losses in the log.
        images: (B, 3, H, W) uint8.
        sizes: (h, w) of each picture inside the padding.
        targets: What the pictures show.
        weight: Factor on all losses.
        options: How the labels count.

    """

    name: str
    images: Tensor
    sizes: list[tuple[int, int]]
    targets: list[Targets]
    weight: float = 1.0
    options: LossOptions = DEFAULT_LOSSES


class LossNetwork(nn.Module):
    """The detector as a module from batches with targets to losses: what DistributedDataParallel can wrap."""

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, supervised: Sequence[SupervisedBatch]) -> dict[str, Tensor]:
        """Weighted losses by "batch/loss"; their sum is what is minimised."""
        losses: dict[str, Tensor] = {}
        for batch in supervised:
            found = self.detector.losses(batch.images, batch.sizes, batch.targets, batch.options)
            losses |= {f"{batch.name}/{name}": batch.weight * loss for name, loss in found.items()}
        return losses


class Learner(Protocol):
    """What differs between burn-in and Mean Teacher."""

    student: Detector

    def supervise(self, batches: Sequence[Batch], iteration: int) -> tuple[list[SupervisedBatch], dict[str, float]]:
        """What the student learns in one step, and figures for the log."""

    def stepped(self) -> None:
        """The student has just been updated."""

    def modules(self) -> dict[str, nn.Module]:
        """Everything that a checkpoint must hold, by name."""


def fit(
    learner: Learner,
    streams: Sequence[TrainingBatches],
    stage: StageConfig,
    run: RunConfig,
    *,
    stage_key: int,
    settings: Mapping[str, Any],
    world: World,
    folder: Path,
    score: Score | None = None,
) -> None:
    """Train `learner.student` to the end of its stage, from `folder`'s checkpoint where there is one.

    Everything random in a step is drawn from (seed, stage, number of the step), and a batch from (seed, stream, number
    of the batch): a run that was killed at any point and started again ends with the same weights as one that was not.
    The numbers run on over accumulated steps and processes alike, so that the two can stand in for each other.

    Args:
        learner: Makes the batches that the student learns from in a step.
        streams: Sources of batches; one batch of each makes a step.
        stage: How to optimise.
        run: Where files go and how often.
        stage_key: Tells the random numbers of the stages apart.
        settings: What the run is made of; a checkpoint of other settings is refused.
        world: The processes that train together.
        folder: For the checkpoint and TensorBoard's files.
        score: Figures of the student every `run.evaluate_every` iterations, the first one the larger the better: the
            best student is kept in `best.pth`.

    Raises:
        InputError: A loss is not finite (the batch is saved), the checkpoint is of another recipe, the disk is full.

    """
    torch.use_deterministic_algorithms(run.deterministic)
    device = world.device
    network = LossNetwork(learner.student)
    # With statistics over all processes their buffers are equal anyway.
    own = any(isinstance(module, nn.BatchNorm2d) for module in learner.student.modules())
    parallel = DistributedDataParallel(network, broadcast_buffers=own) if world.size > 1 else None
    optimizer = make_optimizer(learner.student, stage)
    scaler = torch.amp.GradScaler(device.type, enabled=stage.precision == "fp16")
    held: dict[str, Any] = {**learner.modules(), "optimizer": optimizer, "scaler": scaler}
    start, best = 0, -math.inf
    if state := load_state(folder / CHECKPOINT, settings, device):
        for name, part in held.items():
            part.load_state_dict(state[name])
        start, best = state["iteration"], state["best"]
        for stream, group in zip(streams, state["groups"], strict=True):
            stream.group = group  # the order of the pictures goes on, also in other shares
    groups = [stream.group for stream in streams]
    if start >= stage.iterations:
        if world.speaks:
            print(
                f"already finished: {folder / CHECKPOINT} holds all {start} iterations; "
                f"to go on longer give more --{folder.name}.iterations",
                flush=True,
            )
        return

    numbers = range(start * stage.accumulate, stage.iterations * stage.accumulate)
    sources = [iterate(stream, numbers, workers=run.workers, pin=device.type == "cuda") for stream in streams]
    monitor = Monitor(folder, world, every=run.log_every, start=start, iterations=stage.iterations, best=best)
    watch = _Watch(folder, world)
    score = score if run.evaluate_every else None
    learner.student.train()
    # Several processes stop at once: they could not agree on an iteration.
    with stop_between("iteration") if world.size == 1 else nullcontext(lambda: False) as stopping:
        for iteration in range(start, stage.iterations):
            rate = stage.learning_rate * learning_rate_factor(
                iteration, stage.iterations, warmup=stage.warmup, shape=stage.schedule
            )
            for group in optimizer.param_groups:
                group["lr"] = rate
            values: dict[str, Tensor | float] = {}
            seen = 0
            for part in range(stage.accumulate):
                with monitor.waiting():
                    batches = [next(source) for source in sources]
                batches = [batch.to(device) for batch in batches]
                seen += sum(len(batch.names) for batch in batches)
                number = (iteration * stage.accumulate + part) * world.size + world.rank
                torch.manual_seed(seed_of(run.seed, stage_key, number))
                more = part + 1 < stage.accumulate
                with parallel.no_sync() if parallel and more else nullcontext():
                    with autocast(device, stage.precision):
                        supervised, figures = learner.supervise(batches, iteration)
                        losses = (parallel or network)(supervised)
                    total = torch.stack([loss.float() for loss in losses.values()]).sum()
                    scaler.scale(total / stage.accumulate).backward()
                watch.check()
                watch.keep(total, losses, (iteration, supervised, batches))
                found = {"loss": total.detach(), **{name: loss.detach().float() for name, loss in losses.items()}}
                for name, value in {**found, **figures}.items():
                    values[name] = values.get(name, 0.0) + value / stage.accumulate
            scaler.unscale_(optimizer)
            clip_gradients(learner.student, stage)
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad(set_to_none=True)
            learner.stepped()

            monitor.step(iteration, values, learning_rate=rate, pictures=seen * world.size)
            done = iteration + 1
            stopped = stopping()
            saves = done % run.checkpoint_every == 0 or done == stage.iterations or stopped
            if saves or (score and done % run.evaluate_every == 0):
                watch.check()
            if score and done % run.evaluate_every == 0 and world.speaks:
                found_better = monitor.scored(done, score(learner.student))
                if found_better:
                    save_weights(learner.student, folder / BEST)
            if run.picture_every and done % run.picture_every == 0 and world.speaks:
                monitor.picture("labels_and_predictions", preview(learner.student, batches[0]), iteration)
            if world.speaks and saves:
                state = {name: part.state_dict() for name, part in held.items()}
                about = {"settings": settings, "iteration": done, "best": monitor.best, "groups": groups}
                write_tensors(folder / CHECKPOINT, {**about, **state})
                reached(f"{done} of {stage.iterations} iterations")
            if stopped:
                break
        monitor.close()


def make_optimizer(model: nn.Module, stage: StageConfig) -> torch.optim.Optimizer:
    """SGD with momentum or AdamW; normalisation layers do not decay, as in Detectron2."""
    decayed: list[nn.Parameter] = []
    kept: list[nn.Parameter] = []
    for module in model.modules():
        norm = isinstance(module, (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm))
        for parameter in module.parameters(recurse=False):
            if parameter.requires_grad:
                (kept if norm else decayed).append(parameter)
    groups = [{"params": decayed, "weight_decay": stage.weight_decay}, {"params": kept, "weight_decay": 0.0}]
    fused = all(parameter.is_cuda for parameter in [*decayed, *kept])  # one kernel for all instead of some for each
    if stage.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=stage.learning_rate, fused=fused)
    return torch.optim.SGD(groups, lr=stage.learning_rate, momentum=_MOMENTUM, fused=fused)


def clip_gradients(model: nn.Module, stage: StageConfig) -> None:
    """Scale gradients whose L2 norm is above `stage.clip_norm` down to it: each parameter's alone, or all as one.

    A fresh ResNet-50 has a global norm of about 30, which a tenth of its parameters make up: clipped as one, all others
    would learn at a thirtieth of the rate.
    """
    if not stage.clip_norm:
        return
    if stage.clip == "global":
        nn.utils.clip_grad_norm_(model.parameters(), stage.clip_norm)
        return
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    norms = torch.stack(list(torch._foreach_norm(gradients)))  # one tensor: a GPU is not asked 231 times
    factors: list[Any] = list((stage.clip_norm / (norms + 1e-6)).clamp(max=1.0))
    torch._foreach_mul_(gradients, factors)


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Mixed precision of one step: "fp32" (off), "bf16" or "fp16"."""
    dtype = torch.bfloat16 if precision == "bf16" else torch.float16
    return torch.autocast(device.type, dtype=dtype, enabled=precision != "fp32")


def share_of(batch_size: int, name: str, accumulate: int, world: World) -> int:
    """Pictures of one step of one process.

    Raises:
        InputError: The batch cannot be divided.

    """
    parts = world.size * accumulate
    if batch_size % parts:
        raise InputError(
            f"{name} is {batch_size}, which {world.size} processes x {accumulate} accumulated steps cannot share; "
            f"take a multiple of {parts}"
        )
    return batch_size // parts


class _Watch:
    """Sees that losses are finite, one step late: a GPU is not waited for while it computes."""

    def __init__(self, folder: Path, world: World) -> None:
        self._folder, self._world = folder, world
        self._total: Tensor | None = None
        self._copied: torch.cuda.Event | None = None

    def keep(
        self, total: Tensor, losses: Mapping[str, Tensor], seen: tuple[int, Sequence[SupervisedBatch], Sequence[Batch]]
    ) -> None:
        """Remember a step: its loss, its terms, and its number, what was learned from and what the streams gave."""
        self._losses = {name: loss.detach() for name, loss in losses.items()}
        self._seen = seen
        if total.is_cuda:
            self._total = torch.empty(1, pin_memory=True).copy_(total.detach().reshape(1), non_blocking=True)
            self._copied = torch.cuda.Event()
            self._copied.record()
        else:
            self._total = total.detach().reshape(1)

    def check(self) -> None:
        """Stop the run if the loss of the step before was not finite."""
        if self._total is None:
            return
        if self._copied is not None:
            self._copied.synchronize()
        finite, self._total = math.isfinite(float(self._total)), None
        if not finite:
            iteration, supervised, batches = self._seen
            losses = {name: float(loss) for name, loss in self._losses.items()}
            _stop(self._folder, iteration, self._world, supervised, losses, batches)


def _stop(
    folder: Path,
    iteration: int,
    world: World,
    supervised: Sequence[SupervisedBatch],
    losses: Mapping[str, float],
    batches: Sequence[Batch],
) -> None:
    """Save what gave a loss that is not finite, then stop."""
    path = folder / f"not_finite_{iteration}_{world.rank}.pt"
    saved = [
        {
            "name": batch.name,
            "images": batch.images.cpu(),
            "sizes": batch.sizes,
            "targets": [
                {name: value.cpu() for name, value in vars(target).items() if value is not None}
                for target in batch.targets
            ],
        }
        for batch in supervised
    ]
    names = [name for batch in batches for name in batch.names]
    write_tensors(path, {"iteration": iteration, "losses": dict(losses), "names": names, "batches": saved})
    wrong = [name for name, value in losses.items() if not math.isfinite(value)]
    raise InputError(
        f"the loss is not finite at iteration {iteration} ({', '.join(wrong)}); the batch is in {path}; "
        "lower the learning rate or use precision bf16 or fp32, then start again: the last checkpoint is kept"
    )
