"""What a person sees of a run: a progress line, TensorBoard scalars and pictures."""

from __future__ import annotations

import math
import resource
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from hassod_ros.files import make_folder
from hassod_ros.learning.distributed import World, mean_of


class Monitor:
    """Means of the losses since the last line, and where the time goes.

    Args:
        folder: Where TensorBoard's files go.
        world: Only rank 0 prints and writes.
        every: Iterations between two lines.
        start: First iteration of this run.
        iterations: Length of the whole run.
        best: The best first figure of an evaluation so far.

    """

    def __init__(
        self, folder: Path, world: World, *, every: int, start: int, iterations: int, best: float = -math.inf
    ) -> None:
        self.best = best
        self._world, self._every, self._start, self._iterations = world, every, start, iterations
        if world.speaks:
            make_folder(folder)
        self._writer = SummaryWriter(str(folder), purge_step=start) if world.speaks else None
        self._sums: dict[str, Tensor | float] = defaultdict(float)  # tensors stay where they are until a line is due
        self._steps, self._pictures, self._waited = 0, 0, 0.0
        self._since = time.perf_counter()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Time spent inside counts as waiting for data."""
        begin = time.perf_counter()
        yield
        self._waited += time.perf_counter() - begin

    def step(
        self, iteration: int, values: Mapping[str, Tensor | float], *, learning_rate: float, pictures: int
    ) -> None:
        """Take in one iteration; prints and writes after every `every` of them, and prints the first."""
        for name, value in values.items():
            self._sums[name] += value
        self._steps += 1
        self._pictures += pictures
        done = iteration + 1
        due = done % self._every == 0 or done == self._iterations
        if not due and iteration != self._start:  # after the first a person sees that it runs, and how fast
            return
        seconds = time.perf_counter() - self._since
        means = mean_of({name: float(total) / self._steps for name, total in self._sums.items()}, self._world)
        figures = {
            **{f"train/{name}": value for name, value in means.items()},
            "train/learning_rate": learning_rate,
            "speed/pictures_per_second": self._pictures / seconds,
            "speed/waiting_for_data": self._waited / seconds,
            "speed/memory_GB": memory(self._world.device),
        }
        if self._writer:
            for name, value in figures.items() if due else ():
                self._writer.add_scalar(name, value, done)
            left = (self._iterations - done) * seconds / self._steps
            print(
                f"{done}/{self._iterations} · loss {means['loss']:.3f} · lr {learning_rate:.2g} · "
                f"{figures['speed/pictures_per_second']:.1f} pictures/s · "
                f"{figures['speed/waiting_for_data']:.0%} waiting for data · "
                f"{figures['speed/memory_GB']:.1f} GB · {duration(left)} left",
                flush=True,
            )
        if not due:
            return
        self._sums.clear()
        self._steps, self._pictures, self._waited = 0, 0, 0.0
        self._since = time.perf_counter()

    def scored(self, iteration: int, figures: Mapping[str, float]) -> bool:
        """Write down an evaluation after `iteration` iterations; whether its first figure is the best so far."""
        name, value = next(iter(figures.items()))
        better = value > self.best
        self.best = max(value, self.best)
        if self._writer:
            for each, figure in figures.items():
                self._writer.add_scalar(f"evaluation/{each}", figure, iteration)
        print(f"{iteration}/{self._iterations} · {name} {value:.4f}{' · the best so far' * better}", flush=True)
        self._since = time.perf_counter()
        return better

    def picture(self, name: str, pixels: np.ndarray, iteration: int) -> None:
        """Show an (H, W, 3) uint8 RGB picture in TensorBoard."""
        if self._writer:
            self._writer.add_image(name, pixels, iteration + 1, dataformats="HWC")

    def close(self) -> None:
        """Write out what TensorBoard still holds."""
        if self._writer:
            self._writer.close()


def memory(device: torch.device) -> float:
    """Largest memory so far in GB: allocated on the GPU, or resident of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def duration(seconds: float) -> str:
    """A length of time for people.

    Example:
        >>> duration(3 * 3600 + 120), duration(59.6)
        ('3 h 02 min', '1 min 00 s')

    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
