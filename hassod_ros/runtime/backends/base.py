"""What every backend promises, and what they share."""

from __future__ import annotations

import os
from typing import Protocol

import numpy as np

from hassod_ros.errors import InputError
from hassod_ros.runtime.model_info import ModelInfo
from hassod_ros.runtime.postprocess import RawDetections


class Backend(Protocol):
    """A loaded model. Instances come from `load`, a class method of each implementation.

    Attributes:
        info: The model's metadata.
        name: What runs it, for people.

    """

    info: ModelInfo
    name: str

    @classmethod
    def load(cls, path: str | os.PathLike) -> Backend:
        """Load a model file; raises `InputError` where that is impossible.

        Every implementation has the option `features`: hand out `RawDetections.features` too, which are large.
        """
        ...

    def infer(self, images: np.ndarray) -> RawDetections:
        """Run uint8 RGB images of shape (B, H, W, 3), exactly the model's batch and input size.

        The arrays that come back belong to the caller.
        """
        ...

    def warm_up(self) -> None:
        """Run once on a blank input, so that the first frame is not the slow one."""
        ...

    def close(self) -> None:
        """Give memory and device back; the backend is then unusable."""
        ...


def check_images(images: np.ndarray, info: ModelInfo) -> None:
    """Refuse a batch that the model does not take.

    Raises:
        InputError: Wrong dtype or shape.

    """
    expected = (info.batch, *info.input_size, 3)
    if images.dtype != np.uint8 or images.shape != expected:
        raise InputError(f"the model takes uint8 images of shape {expected}, got {images.dtype} {images.shape}")


def check_features(info: ModelInfo, name: str) -> None:
    """Refuse a model without the output `features`.

    Raises:
        InputError: It has none.

    """
    if not info.feature_stride:
        raise InputError(f"{name} has no output `features`; add it with add_features, or export the model again")


def blank_images(info: ModelInfo) -> np.ndarray:
    """A batch of grey images."""
    return np.full((info.batch, *info.input_size, 3), 127, np.uint8)


def gpu_number(device: str) -> int:
    """The number of the GPU that "cuda:NUMBER" names; "cuda" and "" are the first.

    Raises:
        InputError: It names no GPU.

    """
    name, _, number = (device or "cuda").partition(":")
    if name != "cuda" or not (number or "0").isdecimal():
        raise InputError(f"device {device!r} is no GPU; write cuda, or cuda:1 for the second one")
    return int(number or 0)
