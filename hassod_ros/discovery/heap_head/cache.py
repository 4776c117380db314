"""Features of a set of images, computed once: a memory-mapped float16 file, which a killed run goes on filling."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from hassod_ros.coco import read_json
from hassod_ros.errors import InputError
from hassod_ros.files import write_json

_EVERY = 64  # images between two notes of how far the file is filled


class FeatureCache:
    """(images, N, C) float16 vectors of patches in a file.

    Args:
        path: The `.npy` file; `path`.json beside it says what it holds and how far it is filled.
        content: What decides the vectors, as JSON values: names of the images, features, size.
        shape: (images, N, C).

    Attributes:
        vectors: The mapped array.
        done: Images that are filled in.

    Raises:
        InputError: The folder cannot be written, or the file was made for something else.

    """

    def __init__(self, path: Path, content: dict[str, Any], shape: tuple[int, int, int]) -> None:
        self._note = path.with_suffix(".json")
        self._content = {**content, "shape": list(shape)}
        self.done = 0
        if self._note.is_file() and path.is_file():
            found = read_json(self._note)
            if found.get("content") != self._content:
                raise InputError(
                    f"{path} holds features of other images or settings; remove it, or choose another folder"
                )
            self.done = int(found["done"])
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            mode: Any = "r+" if self.done else "w+"
            self.vectors = np.lib.format.open_memmap(path, mode=mode, dtype=np.float16, shape=shape)
        except (OSError, ValueError) as error:
            raise InputError(f"{path} cannot be written ({error}); free the disk, or choose another folder") from error

    def fill(self, rows: Iterable[np.ndarray]) -> None:
        """Fill in the images that are missing, in order; rows (N, C).

        Raises:
            InputError: NaN in one, or the disk is full.

        """
        for row in rows:
            if not np.isfinite(row).all():
                raise InputError("the features hold NaN or infinity; check the weights and the image they come from")
            self.vectors[self.done] = row
            self.done += 1
            if self.done % _EVERY == 0 or self.done == len(self.vectors):
                self._keep()

    def _keep(self) -> None:
        try:
            self.vectors.flush()
        except OSError as error:
            raise InputError(f"features cannot be kept ({os.strerror(error.errno or 0)}); free the disk") from error
        write_json(self._note, {"content": self._content, "done": self.done})
