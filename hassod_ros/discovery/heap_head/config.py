"""Settings of HEAP's head; without torch, as a trained head runs without it."""

from __future__ import annotations

from dataclasses import dataclass

from hassod_ros.errors import InputError


@dataclass(frozen=True)
class HeadConfig:
    """Settings of the head and its training; chosen by us, the paper's are not public.

    Raises:
        InputError: A value is out of its range.

    """

    tokens: int = 8  # groups an image
    blocks: int = 2  # of cross-attention
    rounds: int = 4  # in which each group's mean replaces its token and gathers patches anew
    temperature: float = 0.1  # of the assignment by cosine
    intra: float = 1.0  # weight of the grouping within an image
    neg: float = 1.0  # of foreground against background
    inter: float = 1.0  # of like regions of different images
    iterations: int = 500
    batch: int = 16  # images an iteration
    learning_rate: float = 5e-4  # of AdamW; falls to 0 as a cosine
    weight_decay: float = 1e-2
    every: int = 50  # iterations between two lines, checks and saved states
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("tokens", "batch"):
            if getattr(self, name) < 2:
                raise InputError(f"{name} must be at least 2, got {getattr(self, name)}")
        for name in ("blocks", "iterations", "every"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("temperature", "learning_rate"):
            if not getattr(self, name) > 0:
                raise InputError(f"{name} must be above 0, got {getattr(self, name)}")
        if self.rounds < 0:
            raise InputError(f"rounds must not be negative, got {self.rounds}")
        if min(self.intra, self.neg, self.inter, self.weight_decay) < 0:
            raise InputError("weights of losses and weight_decay must not be negative")
