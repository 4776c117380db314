"""HEAP as a segmenter: a ViT and a trained head in one file of `features_to_onnx`; no torch, no detector."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
from PIL import Image

from hassod_ros.discovery.features.onnx import METADATA_KEY, OnnxFeatures
from hassod_ros.discovery.regions import Regions, foreground_of, to_instances, upsampled, vectors_of
from hassod_ros.errors import InputError
from hassod_ros.instances import Instances
from hassod_ros.runtime.model_info import read_metadata
from hassod_ros.runtime.preprocess import COLOR_ORDERS, Picture, as_array
from hassod_ros.runtime.selection import Selection


class HeapSegmenter:
    """The interface of `Segmenter` over an exported head: objects are wholes, their regions parts.

    Args:
        path: The `.onnx` file.
        threads: Of the CPU; 0: ONNX Runtime's choice.

    Attributes:
        info: None; the file holds no detector.
        backend: What runs it, for people.
        batch: Images that the model takes at once.

    Raises:
        InputError: The file is missing or damaged, or holds no head.

    """

    info = None
    backend = "onnxruntime"

    def __init__(self, path: str | os.PathLike, threads: int = 0) -> None:
        self._features = OnnxFeatures(path, threads=threads)
        if self._features.heap is None:
            raise InputError(f"{path} holds features alone; export it with features_to_onnx --heap")
        self._heap = self._features.heap
        self.batch = self._features.batch

    def __call__(self, image: Picture, *, color_order: str = "RGB") -> Instances:
        """Segment one (H, W, 3) uint8 image of any size, or an image file."""
        return self.segment([image], color_order=color_order)[0]

    def segment(self, images: Sequence[Picture], *, color_order: str = "RGB") -> list[Instances]:
        """Segment several images, each of any size."""
        if color_order not in COLOR_ORDERS:
            raise InputError(f"color_order must be one of {', '.join(COLOR_ORDERS)}, not {color_order!r}")
        if not images:
            return []
        pictures = [as_array(image, color_order) for image in images]
        if color_order == "BGR":
            pictures = [np.ascontiguousarray(picture[..., ::-1]) for picture in pictures]
        height, width = self._features.size
        resized = [Image.fromarray(each).resize((width, height), Image.Resampling.LANCZOS) for each in pictures]
        found = self._features.run(
            np.stack([np.asarray(each) for each in resized]), ["keys", "odds", "labels", "groups", "clusters"]
        )
        return [self._instances(*each) for each in zip(pictures, *found, strict=True)]

    def configure(self, selection: Selection) -> None:
        """Nothing can be spared."""

    def warm_up(self) -> None:
        """Run once, so that the first frame is not the slow one."""
        self(np.zeros((*self._features.size, 3), np.uint8))

    def close(self) -> None:
        """Nothing is held."""

    def _instances(
        self,
        image: np.ndarray,
        keys: np.ndarray,
        odds: np.ndarray,
        labels: np.ndarray,
        groups: np.ndarray,
        clusters: np.ndarray,
    ) -> Instances:
        chosen = foreground_of(odds.ravel(), vectors_of(keys), odds.shape).astype(np.float32)
        regions = Regions(chosen, labels, labels, groups, clusters)
        least = max(self._heap["min_area"], self._heap["min_share"] * image.shape[0] * image.shape[1])
        return to_instances(image, regions, upsampled(chosen, image.shape[:2]), least, self._heap["cover"])


def holds_heap(path: str | os.PathLike) -> bool:
    """Whether a file is one that `features_to_onnx` wrote; other files, also those that cannot be read, are not."""
    try:
        return METADATA_KEY in read_metadata(path)
    except InputError:
        return False
