"""Settings of the features' pre-training."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

from hassod_ros.discovery.features.tiny import TinyViT
from hassod_ros.errors import InputError


@dataclass(frozen=True)
class PretrainConfig:
    """Settings of DINO with iBOT's masked patches; the defaults suit some thousand photographs and one GPU.

    Raises:
        InputError: A value is out of its range.

    """

    images: str = ""  # folder or list of photographs
    output: str = "runs/features"  # folder for the file of features, checkpoint, log
    picture_side: int = 256  # photographs are held as squares of this side in memory, as discovery sees them

    patch_size: int = 8
    width: int = 192  # channels
    depth: int = 8  # blocks
    heads: int = 3
    registers: int = 4

    global_size: int = 160  # side of the two large views, px
    global_scale: tuple[float, float] = (0.25, 1.0)  # their share of the picture's area
    local_views: int = 6
    local_size: int = 64
    local_scale: tuple[float, float] = (0.05, 0.25)
    prototypes: int = 4096  # outputs of the head
    head_width: int = 1024
    dense_weight: float = 1.0  # of the masked patches' loss; 0: DINO alone
    masked_views: float = 0.5  # probability that patches of a large view are masked for the student
    masked_share: tuple[float, float] = (0.1, 0.5)  # of that view's patches

    iterations: int = 2500
    batch_size: int = 256  # photographs a step
    learning_rate: float = 0.001
    warmup: int = 150  # iterations
    weight_decay: tuple[float, float] = (0.04, 0.4)  # start and end of half a cosine
    momentum: tuple[float, float] = (0.99, 1.0)  # of the teacher's average, likewise
    teacher_temperature: tuple[float, float] = (0.04, 0.07)  # rises linearly
    temperature_warmup: int = 500  # over so many iterations
    frozen_prototypes: int = 30  # iterations at the start in which the head's last layer stays
    clip_norm: float = 3.0
    precision: Literal["auto", "fp32", "bf16"] = "auto"  # auto: bf16 on a GPU, fp32 on a CPU

    seed: int = 0
    device: str = "auto"
    checkpoint_every: int = 100
    log_every: int = 20

    def __post_init__(self) -> None:
        for name in ("iterations", "batch_size", "learning_rate", "prototypes", "head_width", "checkpoint_every"):
            if not getattr(self, name) > 0:
                raise InputError(f"{name} must be above 0, it is {getattr(self, name)}")
        for name in ("local_views", "dense_weight", "warmup", "temperature_warmup", "frozen_prototypes", "clip_norm"):
            if not getattr(self, name) >= 0:
                raise InputError(f"{name} must not be negative, it is {getattr(self, name)}")
        if self.log_every < 1:
            raise InputError(f"log_every must be at least 1, it is {self.log_every}")
        for name in ("global_size", "local_size", "picture_side"):
            size = getattr(self, name)
            if self.patch_size < 1 or size < self.patch_size or size % self.patch_size:
                raise InputError(f"{name} {size} is no multiple of patch_size {self.patch_size}; choose one")
        for name in ("global_scale", "local_scale", "masked_share"):
            low, high = getattr(self, name)
            if not 0 < low <= high <= 1:
                raise InputError(f"{name} must be two shares that rise within (0, 1], it is {low}, {high}")
        if not 0 <= self.masked_views <= 1:
            raise InputError(f"masked_views must lie in [0, 1], it is {self.masked_views}")
        if self.learns_patches and not self.masked_views:
            raise InputError("dense_weight needs masked patches; raise masked_views, or set dense_weight to 0")

    @property
    def architecture(self) -> TinyViT:
        """What is trained."""
        return TinyViT(self.patch_size, self.width, self.depth, self.heads, self.registers, self.global_size)

    @property
    def learns_patches(self) -> bool:
        """Whether there is a loss on masked patches."""
        return self.dense_weight > 0

    def settings(self) -> dict[str, Any]:
        """Values that decide what is learned; all others may change between the parts of a run."""
        places = ("images", "output", "device", "checkpoint_every", "log_every")
        values = {name: value for name, value in dataclasses.asdict(self).items() if name not in places}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
