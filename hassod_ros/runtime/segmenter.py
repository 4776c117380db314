"""Image in, Instances out: the whole path around a backend."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from hassod_ros.errors import InputError
from hassod_ros.instances import Instances
from hassod_ros.runtime.backends import open_backend
from hassod_ros.runtime.heap_segmenter import HeapSegmenter, holds_heap
from hassod_ros.runtime.model_info import ModelInfo
from hassod_ros.runtime.model_names import TRAINING_FREE, resolve_model
from hassod_ros.runtime.postprocess import PostprocessOptions, to_instances
from hassod_ros.runtime.preprocess import Letterbox, Picture, as_array, letterbox
from hassod_ros.runtime.selection import Selection
from hassod_ros.visibility import visible


class ImageSegmenter(Protocol):
    """What `open_segmenter` returns: `Segmenter`, `HeapSegmenter` or `TrainingFreeSegmenter`.

    Attributes:
        info: The model's metadata; None where there is no model file.
        backend: What runs it, for people; "" where nothing does.
        batch: Images that it takes at once.

    """

    @property
    def info(self) -> ModelInfo | None:
        """See above."""
        ...

    @property
    def backend(self) -> str:
        """See above."""
        ...

    @property
    def batch(self) -> int:
        """See above."""
        ...

    def configure(self, selection: Selection) -> None:
        """From the next image on, spare what is not wanted, as far as it can; `Selection.apply` does the rest."""
        ...

    def __call__(self, image: np.ndarray, *, color_order: str = "RGB") -> Instances:
        """Segment one (H, W, 3) uint8 image of any size."""
        ...

    def segment(self, images: Sequence[np.ndarray], *, color_order: str = "RGB") -> list[Instances]:
        """Segment several images, each of any size."""
        ...

    def warm_up(self) -> None:
        """Do what would make the first image slow."""
        ...

    def close(self) -> None:
        """Give memory and device back."""
        ...


class Segmenter:
    """A detector loaded from a file.

    Args:
        path: An ONNX file of `to_onnx`, or a checkpoint (torch backend).
        backend: See `open_backend`.
        options: Thresholds and the like. Default: what the model recommends. May be replaced between two images.
        backend_options: Passed on to the backend, such as `threads`.

    Attributes:
        info: The model's metadata.
        backend: What runs it, for people.
        batch: Images that the model takes at once.
        options: As given.
        unconverged: Images so far on which non-maximum suppression ran out of steps (see `RawDetections`).

    Raises:
        InputError: The model cannot be loaded.

    Example:
        >>> segment = Segmenter("model.onnx")          # doctest: +SKIP
        >>> instances = segment(image)                 # doctest: +SKIP

    """

    def __init__(
        self,
        path: str | os.PathLike,
        backend: str = "auto",
        options: PostprocessOptions | None = None,
        **backend_options: Any,
    ) -> None:
        self._backend = open_backend(path, backend, **backend_options)
        info = self.info = self._backend.info
        self.backend = self._backend.name
        self.batch = info.batch
        self.options = options or PostprocessOptions.recommended(info)
        self.unconverged = 0
        self._fill = info.fill
        self._input = np.empty((info.batch, *info.input_size, 3), np.uint8)  # reused by every call

    def __call__(self, image: Picture, *, color_order: str = "RGB") -> Instances:
        """Instances of one (H, W, 3) uint8 image of any size, in its pixels, by descending score.

        Args:
            image: The image, or the path of an image file.
            color_order: "RGB" or "BGR", of an array; a file is read as RGB.

        Raises:
            InputError: The image has another shape or dtype, or the file cannot be read.

        """
        return self.segment([image], color_order=color_order)[0]

    def segment(self, images: Sequence[Picture], *, color_order: str = "RGB") -> list[Instances]:
        """Instances of several images; they go through the network in batches of the model's size."""
        return [instances for instances, _ in self.observe(images, color_order=color_order)]

    def observe(
        self, images: Sequence[Picture], *, color_order: str = "RGB"
    ) -> list[tuple[Instances, np.ndarray | None]]:
        """As `segment`, with the network's features of each image where the backend was opened with `features`.

        Returns:
            Instances, and (C, rows, columns) float32 features over the whole image: those of its padding are cut off.

        """
        results: list[tuple[Instances, np.ndarray | None]] = []
        for start in range(0, len(images), self.batch):
            chunk = [as_array(image, color_order) for image in images[start : start + self.batch]]
            placed = [
                letterbox(image, out, fill=self._fill, color_order=color_order)
                for image, out in zip(chunk, self._input, strict=False)
            ]
            raw = self._backend.infer(self._input)
            self.unconverged += int(np.count_nonzero(~raw.converged[: len(chunk)]))
            for i, box in enumerate(placed):
                found = to_instances(raw, i, box, self.options, self._input[i])
                rows, columns = box.content_size
                seen = visible(self._input[i, :rows, :columns], found.regions, found.masks, found.image_size)
                found = found if seen.all() else found.select(seen)
                results.append((found, _content(raw.features, i, box, self.info.feature_stride)))
        return results

    def configure(self, selection: Selection) -> None:
        """What the model recommends, with what is wanted in its place; replaces `options`."""
        self.options = selection.options(PostprocessOptions.recommended(self.info))

    def warm_up(self) -> None:
        """Run once on a blank input, so that the first frame is not the slow one."""
        self._backend.warm_up()

    def close(self) -> None:
        """Give memory and device back; the segmenter is then unusable."""
        self._backend.close()


def _content(features: np.ndarray | None, index: int, placed: Letterbox, stride: int) -> np.ndarray | None:
    """The cells of image `index` that lie on the image itself, at least half of each."""
    if features is None:
        return None
    rows, columns = (max(1, round(side / stride)) for side in placed.content_size)
    return features[index, :, :rows, :columns]


def open_segmenter(
    model: str | os.PathLike, backend: str = "auto", *, report: Callable[[str], None] | None = None, **options: Any
) -> ImageSegmenter:
    """A `Segmenter` for a model file, or one that needs no detector: for an exported head of HEAP, or "training_free".

    Args:
        model: Path, "default" or "default-int8" (they ship with the package), or "training_free", which has no backend.
        backend: See `open_backend`.
        report: See `open_backend`.
        options: Passed on to the class.

    Raises:
        InputError: The model cannot be loaded.

    """
    if str(model) != TRAINING_FREE:
        path = resolve_model(os.fspath(model), report)
        if holds_heap(path):
            return HeapSegmenter(path, threads=options.get("threads") or 0)
        return Segmenter(path, backend, report=report, **options)
    try:
        from hassod_ros.runtime.training_free import TrainingFreeSegmenter
    except ImportError as error:
        raise InputError(
            f"training-free mode needs the package {error.name}; run pip install 'hassod_ros[train]'"
        ) from error
    known = ("config", "device", "features", "size", "weights")
    for name in options:
        if name not in known:
            raise InputError(f"training-free mode has no option {name}; it has {', '.join(known)}")
    return TrainingFreeSegmenter(**options)
