"""Photographs as a model's input."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from hassod_ros.images import read_image
from hassod_ros.runtime.model_info import ModelInfo
from hassod_ros.runtime.preprocess import letterbox


def load_batches(paths: Sequence[Path], info: ModelInfo) -> Iterator[np.ndarray]:
    """Photographs as the model's input, (B, H, W, 3) uint8; the last batch may repeat its first image.

    Their middle is cut out to the input's aspect ratio, so that there is no padding: on its even colour many anchors
    score exactly alike, and which of them is ranked first is anybody's choice.
    """
    height, width = info.input_size
    for start in range(0, len(paths), info.batch):
        chunk = list(paths[start : start + info.batch])
        chunk += chunk[:1] * (info.batch - len(chunk))
        batch = np.empty((info.batch, height, width, 3), np.uint8)
        for path, out in zip(chunk, batch, strict=True):
            image = read_image(path)
            scale = min(image.shape[0] / height, image.shape[1] / width)
            rows, columns = max(1, round(height * scale)), max(1, round(width * scale))
            top, left = (image.shape[0] - rows) // 2, (image.shape[1] - columns) // 2
            letterbox(image[top : top + rows, left : left + columns], out, fill=(0, 0, 0))
        yield batch
