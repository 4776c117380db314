"""One process or many: who this one is, and what they share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import nn

from hassod_ros.errors import InputError


@dataclass(frozen=True)
class World:
    """Where this process stands among those that torchrun started.

    Attributes:
        rank: Its number; 0 writes files and speaks.
        size: How many there are.
        device: Where it computes.

    """

    rank: int
    size: int
    device: torch.device

    @property
    def speaks(self) -> bool:
        """Whether this process writes files and prints."""
        return self.rank == 0


@contextmanager
def join_world(device: str) -> Iterator[World]:
    """Join the processes of torchrun (NCCL on GPUs, gloo on CPUs), or be the only one.

    More processes than GPUs share them in turn, over gloo: NCCL refuses two processes on one GPU.

    Args:
        device: "auto", "cpu", "cuda" or "cuda:N".

    Raises:
        InputError: The device is not there.

    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        wanted = torch.device(device)
    except RuntimeError as error:
        raise InputError(f"run.device {device} is unknown; use auto, cpu or cuda") from error
    if wanted.type == "cuda" and not torch.cuda.is_available():
        raise InputError(f"run.device is {device}, but torch sees no GPU; use --run.device cpu or mend the driver")
    size = int(os.environ.get("WORLD_SIZE", 1))
    backend = "gloo"
    if wanted.type == "cuda":
        gpus = torch.cuda.device_count()
        rank = os.environ.get("LOCAL_RANK")
        wanted = torch.device("cuda", (wanted.index or 0) if rank is None else int(rank) % gpus)
        torch.cuda.set_device(wanted)
        if int(os.environ.get("LOCAL_WORLD_SIZE", 1)) <= gpus:
            backend = "nccl"
    if size == 1:
        yield World(0, 1, wanted)
        return
    dist.init_process_group(backend)
    try:
        yield World(dist.get_rank(), size, wanted)
    finally:
        dist.destroy_process_group()


def share_buffers(module: nn.Module, world: World) -> None:
    """Give every process rank 0's floating-point buffers (batch norm statistics) in one message."""
    if world.size == 1:
        return
    buffers = [buffer for buffer in module.buffers() if buffer.is_floating_point()]
    if buffers:
        message = torch.cat([buffer.flatten() for buffer in buffers])
        dist.broadcast(message, 0)
        for buffer, values in zip(buffers, message.split([buffer.numel() for buffer in buffers]), strict=True):
            buffer.copy_(values.view_as(buffer))


def mean_of(values: dict[str, float], world: World) -> dict[str, float]:
    """Mean of each value over all processes; all must call it with the same keys."""
    if world.size == 1:
        return values
    message = torch.tensor(list(values.values()), dtype=torch.float64, device=world.device)
    dist.all_reduce(message)
    return dict(zip(values, (message / world.size).tolist(), strict=True))
