"""Settings of the features' pre-training."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

from hassod_ros.discovery.features.handcrafted import PATCH
from hassod_ros.discovery.features.tiny import TinyViT
from hassod_ros.errors import InputError


@dataclass(frozen=True)
class PretrainConfig:
    """Settings of DINO with iBOT's masked patches, and of MaskFeat's; the defaults suit some thousand photographs and
    one GPU.

    Attributes:
        images: Folder or list of photographs.
        output: Folder for the file of features, the checkpoint and the log.
        picture_side: Pixels of the squares that photographs are held as in memory, as discovery sees them.
        patch_size: Pixels of a patch's side.
        width: Channels of the network.
        depth: Blocks of the network.
        heads: Attention heads of a block.
        registers: Tokens beside the patches, without a place.
        global_size: Side of the two large views in pixels.
        global_scale: Their least and greatest share of the picture's area.
        local_views: Small views of a picture.
        local_size: Their side in pixels.
        local_scale: Their least and greatest share of the picture's area.
        prototypes: Outputs of the head.
        head_width: Channels of the head's hidden layers.
        views_weight: Weight of DINO's loss between views; 0: none, then views keep their colours and small ones are
            left out.
        dense_weight: Weight of iBOT's loss on masked patches; 0: none.
        descriptor_weight: Weight of the loss that predicts colour and texture of all patches, see `Descriptors`; 0:
            none.
        masked_views: Probability that patches of a large view are masked for the student, in [0, 1].
        masked_share: Least and greatest share of that view's patches.
        iterations: Optimiser steps.
        batch_size: Photographs of a step.
        learning_rate: Of AdamW, after the warm-up.
        warmup: Iterations in which the learning rate rises linearly.
        weight_decay: At the start and the end of half a cosine.
        momentum: Of the teacher's average, likewise.
        teacher_temperature: Of the teacher's outputs, at the start and the end of a linear rise.
        temperature_warmup: Iterations of that rise.
        frozen_prototypes: Iterations at the start in which the head's last layer stays.
        clip_norm: Largest L2 norm of each parameter's gradient; 0: no clipping.
        precision: Of the forward pass; auto: bf16 on a GPU, fp32 on a CPU.
        seed: Of all random numbers.
        device: auto (a GPU where there is one), cpu, or cuda:N.
        checkpoint_every: Iterations between two checkpoints.
        log_every: Iterations between two lines of progress.

    Raises:
        InputError: A value is out of its range.

    """

    images: str = ""
    output: str = "runs/features"
    picture_side: int = 256

    patch_size: int = 8
    width: int = 192
    depth: int = 8
    heads: int = 3
    registers: int = 4

    global_size: int = 160
    global_scale: tuple[float, float] = (0.25, 1.0)
    local_views: int = 6
    local_size: int = 64
    local_scale: tuple[float, float] = (0.05, 0.25)
    prototypes: int = 4096
    head_width: int = 1024
    views_weight: float = 1.0
    dense_weight: float = 1.0
    descriptor_weight: float = 0.0
    masked_views: float = 0.5
    masked_share: tuple[float, float] = (0.1, 0.5)

    iterations: int = 2500
    batch_size: int = 256
    learning_rate: float = 0.001
    warmup: int = 150
    weight_decay: tuple[float, float] = (0.04, 0.4)
    momentum: tuple[float, float] = (0.99, 1.0)
    teacher_temperature: tuple[float, float] = (0.04, 0.07)
    temperature_warmup: int = 500
    frozen_prototypes: int = 30
    clip_norm: float = 3.0
    precision: Literal["auto", "fp32", "bf16"] = "auto"

    seed: int = 0
    device: str = "auto"
    checkpoint_every: int = 100
    log_every: int = 20

    def __post_init__(self) -> None:
        for name in ("iterations", "batch_size", "learning_rate", "prototypes", "head_width", "checkpoint_every"):
            if not getattr(self, name) > 0:
                raise InputError(f"{name} must be above 0, it is {getattr(self, name)}")
        weights = ("views_weight", "dense_weight", "descriptor_weight")
        for name in (*weights, "local_views", "warmup", "temperature_warmup", "frozen_prototypes", "clip_norm"):
            if not getattr(self, name) >= 0:
                raise InputError(f"{name} must not be negative, it is {getattr(self, name)}")
        if self.log_every < 1:
            raise InputError(f"log_every must be at least 1, it is {self.log_every}")
        for name in ("global_size", "local_size", "picture_side"):
            size = getattr(self, name)
            if self.patch_size < 1 or size < self.patch_size or size % self.patch_size:
                raise InputError(f"{name} {size} is no multiple of patch_size {self.patch_size}; choose one")
        if self.learns_descriptors and self.patch_size != PATCH:
            raise InputError(f"descriptor_weight needs patches of {PATCH} pixels, patch_size is {self.patch_size}")
        for name in ("global_scale", "local_scale", "masked_share"):
            low, high = getattr(self, name)
            if not 0 < low <= high <= 1:
                raise InputError(f"{name} must be two shares that rise within (0, 1], it is {low}, {high}")
        if not 0 <= self.masked_views <= 1:
            raise InputError(f"masked_views must lie in [0, 1], it is {self.masked_views}")
        if not any(getattr(self, name) for name in weights):
            raise InputError(f"nothing is learned: {', '.join(weights)} are all 0; raise one")
        if self.learns_patches and not self.masked_views:
            raise InputError("dense_weight needs masked patches; raise masked_views, or set dense_weight to 0")

    @property
    def architecture(self) -> TinyViT:
        """What is trained."""
        return TinyViT(self.patch_size, self.width, self.depth, self.heads, self.registers, self.global_size)

    @property
    def learns_views(self) -> bool:
        """Whether there is a loss between views."""
        return self.views_weight > 0

    @property
    def learns_patches(self) -> bool:
        """Whether there is a loss between student and teacher on masked patches."""
        return self.dense_weight > 0

    @property
    def learns_descriptors(self) -> bool:
        """Whether there is a loss on the looks of patches."""
        return self.descriptor_weight > 0

    def settings(self) -> dict[str, Any]:
        """Values that decide what is learned; all others may change between the parts of a run."""
        places = ("images", "output", "device", "checkpoint_every", "log_every")
        values = {name: value for name, value in dataclasses.asdict(self).items() if name not in places}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
