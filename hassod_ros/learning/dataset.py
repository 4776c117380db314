"""Training batches as a pure function of (seed, number): any run can go on exactly where another one stopped."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from hassod_ros.commands import ignore_stops
from hassod_ros.detection.base import Targets
from hassod_ros.detection.input_size import input_size
from hassod_ros.errors import InputError
from hassod_ros.images import read_image
from hassod_ros.learning.annotations import Annotations
from hassod_ros.learning.augmentation import Sample, StrongView, boxes_of, copy_paste, drop_empty
from hassod_ros.learning.config import DataConfig

_MASKS = 10  # of a picture, about; a byte for each of their pixels
_ENOUGH = 1 << 29  # bytes of shared memory that have never been too few
_WORKER_SECONDS = 600
_WORKER_LOST = ("exited unexpectedly", "is killed by signal", "timed out")  # in torch's words

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Batch:
    """What one process learns from in one step.

    Attributes:
        images: (B, 3, H, W) uint8 RGB, padded with 0 at the right and at the bottom.
        strong: The same pictures after `StrongView`, or None.
        sizes: (h, w) of each picture inside the padding.
        targets: Boxes, masks, levels and parents of each picture; masks are (G, h, w) bool.
        names: The pictures' files.

    """

    images: Tensor
    strong: Tensor | None
    sizes: list[tuple[int, int]]
    targets: list[Targets]
    names: list[str]

    def to(self, device: torch.device) -> Batch:
        """The batch on another device; asynchronous from pinned memory."""
        if device.type == "cpu":
            return self
        return self._map(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> Batch:
        """For the data loader: page-locked copies, which a GPU can fetch while it computes."""
        return self._map(Tensor.pin_memory)

    def _map(self, function: Callable[[Tensor], Tensor]) -> Batch:
        return Batch(
            images=function(self.images),
            strong=None if self.strong is None else function(self.strong),
            sizes=self.sizes,
            targets=[
                Targets(
                    boxes=function(target.boxes),
                    levels=function(target.levels),
                    masks=None if target.masks is None else function(target.masks),
                    parents=None if target.parents is None else function(target.parents),
                )
                for target in self.targets
            ],
            names=self.names,
        )


class TrainingBatches(Dataset):
    """Batch k of this process, for k = 0, 1, 2, ... without end.

    Every epoch has its own order, in which each batch holds only wide or only tall pictures, so that little padding is
    needed. With copy-paste each picture receives instances of its mirror image in the batch: the first of the last one
    and so on, as published.

    Args:
        annotations: The pictures and their masks.
        config: Geometry and sources.
        batch_size: Pictures of one batch of one process.
        copy_paste_rate: Probability that a picture receives instances.
        strong: Make strong views as well.
        group: Pictures in a row of one orientation; default: one batch of one process, as in Detectron2.
        seed: The run's seed. Streams of one run (labelled, unlabelled) differ in `stream`.
        rank: This process; batch k of all `world` processes together is one slice of the order.

    """

    def __init__(
        self,
        annotations: Annotations,
        config: DataConfig,
        *,
        batch_size: int,
        copy_paste_rate: float = 0.0,
        strong: bool = False,
        group: int | None = None,
        seed: int = 0,
        stream: int = 0,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.annotations = annotations
        self.config = config
        self.batch_size = batch_size
        self.copy_paste_rate = copy_paste_rate
        self.key = (seed, stream)
        self.group = group or batch_size
        self.rank, self.world = rank, world
        self._flip = v2.RandomHorizontalFlip(config.flip)
        self._strong = StrongView() if strong else None
        self._faulty: set[int] = set()
        self._epoch, self._order = -1, np.zeros(0, np.int64)

    def __getitem__(self, k: int) -> Batch:
        """Raises: InputError: A picture is missing, damaged or of another size than its annotations."""
        first = (k * self.world + self.rank) * self.batch_size
        indices = [self._index(position) for position in range(first, first + self.batch_size)]
        with seeded(*self.key, first):
            samples = [self._readable(index) for index in indices]
            pasted = [
                copy_paste(target, source)
                if self.copy_paste_rate and float(torch.rand(())) < self.copy_paste_rate
                else target
                for target, source in zip(samples, reversed(samples), strict=True)
            ]
            strong = None if self._strong is None else _pad([self._strong(sample.image) for sample in pasted])
        return Batch(
            images=_pad([sample.image for sample in pasted]),
            strong=strong,
            sizes=[(int(sample.image.shape[-2]), int(sample.image.shape[-1])) for sample in pasted],
            targets=[Targets(boxes_of(sample.masks), sample.levels, sample.masks, sample.parents) for sample in pasted],
            names=[str(self.annotations.path(index)) for index in indices],
        )

    def _index(self, position: int) -> int:
        length = max(len(self.annotations) // self.group, 1) * self.group
        epoch, place = divmod(position, length)
        if epoch != self._epoch:
            sizes = self.annotations.sizes
            self._order = epoch_order(sizes[:, 0] >= sizes[:, 1], self.group, (*self.key, epoch))
            self._epoch = epoch
        return int(self._order[place])

    def _readable(self, index: int) -> Sample:
        """The sample of a picture, or with `drop_faulty` that of the next one that can be read."""
        for step in range(len(self.annotations)):
            place = (index + step) % len(self.annotations)
            try:
                return self._sample(place)
            except InputError as error:
                if not self.config.drop_faulty:
                    raise
                if place not in self._faulty:
                    self._faulty.add(place)
                    logger.warning("left out: %s", error)
        raise InputError("not one picture of the set can be read; check data.images")

    def _sample(self, index: int) -> Sample:
        path, count = self.annotations.path(index), self.annotations.count(index)
        pixels = read_image(path)
        expected = tuple(self.annotations.sizes[index].tolist())
        if count and pixels.shape[:2] != expected:
            raise InputError(
                f"{path} is {pixels.shape[:2]} (height, width), its annotations were made for {expected}; "
                "make the labels again from these pictures"
            )
        sides = self.config.short_sides
        short_side = sides[int(torch.randint(len(sides), ()))]
        size = input_size((pixels.shape[0], pixels.shape[1]), short_side, self.config.max_side)
        image = functional.resize(tv_tensors.Image(torch.from_numpy(pixels).permute(2, 0, 1)), list(size))
        try:
            masks = self.annotations.masks(index, size)
        except ValueError as error:
            raise InputError(f"a mask of {path} cannot be decoded ({error}); make the labels again") from error
        views = self._flip({"image": image, "masks": tv_tensors.Mask(torch.from_numpy(masks))})
        levels = torch.from_numpy(self.annotations.mask_levels(index).astype(np.int64))
        parents = torch.from_numpy(self.annotations.mask_parents(index).astype(np.int64))
        return drop_empty(Sample(views["image"], views["masks"].as_subclass(Tensor).view(torch.bool), levels, parents))


def epoch_order(tall: np.ndarray, group: int, key: Sequence[int]) -> np.ndarray:
    """Indices of one epoch in groups of equal orientation.

    Args:
        tall: (I,) bool, whether a picture is not wider than high.
        group: Pictures a group. The last, incomplete one is left out; a set smaller than a group is repeated.
        key: Seeds of the order.

    Returns:
        Indices, (max(I // group, 1) * group,) int64. All groups are of one orientation, but for one at most.

    """
    random = np.random.default_rng(list(key))
    shuffled = random.permutation(len(tall))
    if len(tall) < group:
        return np.resize(shuffled, group)
    kinds = [shuffled[tall[shuffled]], shuffled[~tall[shuffled]]]
    rest = np.concatenate([kind[len(kind) // group * group :] for kind in kinds])
    whole = [kind[: len(kind) // group * group] for kind in kinds]
    groups = np.concatenate([*whole, rest[: len(rest) // group * group]]).reshape(-1, group)
    return groups[random.permutation(len(groups))].reshape(-1)


@contextmanager
def seeded(*key: int) -> Iterator[None]:
    """Let torch's CPU generator draw from `key` inside the block; its own state returns afterwards."""
    state = torch.get_rng_state()
    torch.default_generator.manual_seed(seed_of(*key))
    try:
        yield
    finally:
        torch.set_rng_state(state)


def seed_of(*key: int) -> int:
    """One 63-bit seed of several numbers: neighbouring keys give unrelated seeds."""
    return int(np.random.SeedSequence(list(key)).generate_state(1, np.uint64)[0] >> 1)


def _start_worker(worker: int) -> None:
    ignore_stops()


def require_shared_memory(batches: TrainingBatches, workers: int, folder: str = "/dev/shm") -> None:
    """Batches travel from the workers through shared memory, which waits for ever where it is full.

    Raises:
        InputError: There is too little of it; torch keeps two batches of each worker there.

    """
    if not os.path.isdir(folder):
        return
    sides = batches.config.max_side, max(batches.config.short_sides)
    pixels = sides[0] * sides[1] * batches.batch_size
    needed = 2 * workers * pixels * (6 + _MASKS)  # two views of three channels, and the masks
    free = shutil.disk_usage(folder).free
    if free < min(needed, _ENOUGH):
        raise InputError(
            f"{folder} has {free >> 20} MB free, {workers} processes that prepare batches may need {needed >> 20} MB; "
            "give Docker --shm-size 2g, or take --run.workers 0"
        )


def iterate(batches: TrainingBatches, numbers: range, *, workers: int, pin: bool) -> Iterator[Batch]:
    """Batches of the given numbers in order, prepared by `workers` processes (0: by this one).

    Raises:
        InputError: See `TrainingBatches` and `require_shared_memory`; or a process died or hangs.

    """
    if workers:
        require_shared_memory(batches, workers)
    loader = DataLoader(
        batches,
        batch_size=None,
        sampler=numbers,
        num_workers=workers,
        pin_memory=pin,
        worker_init_fn=_start_worker,
        timeout=_WORKER_SECONDS if workers else 0,  # a worker that is stuck, as in a full /dev/shm, never answers
    )
    try:
        yield from loader
    except RuntimeError as error:
        if not any(words in str(error) for words in _WORKER_LOST):
            raise
        raise InputError(
            f"a process that prepares batches died or did not answer for {_WORKER_SECONDS // 60} minutes "
            f"({str(error).splitlines()[0]}); most often memory or /dev/shm is full: give Docker --shm-size 2g, or "
            "take --run.workers 0"
        ) from error
    except InputError as error:  # a worker's error arrives with its traceback in front of the message
        raise InputError(str(error).rpartition("InputError: ")[2].strip()) from error


def _pad(images: Sequence[Tensor]) -> Tensor:
    height = max(image.shape[-2] for image in images)
    width = max(image.shape[-1] for image in images)
    padded = torch.zeros((len(images), 3, height, width), dtype=torch.uint8)
    for target, image in zip(padded, images, strict=True):
        target[:, : image.shape[-2], : image.shape[-1]] = image
    return padded
