"""The place of the model that a node runs: loaded, tried, exchanged while images go through it, closed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hassod_ros.errors import InputError
from hassod_ros.files import sha256
from hassod_ros.image_messages import to_rgb
from hassod_ros.instances import Instances
from hassod_ros.runtime.model_names import resolve_model
from hassod_ros.runtime.segmenter import ImageSegmenter
from hassod_ros.runtime.selection import Selection

_SWAP_LIMIT = 10.0  # s that an image may still take when another model is ready
_CLOSE_LIMIT = 1.0  # s that an image may still take when the slot is closed
_SELF_TEST_SIZE = (120, 160)  # H, W of the picture that a new model is tried on


class Model(NamedTuple):
    """A model that works.

    Attributes:
        segmenter: What segments.
        name: Of its file.
        sha256: Of its file; "" where there is none.

    """

    segmenter: ImageSegmenter
    name: str
    sha256: str

    @property
    def precision(self) -> str:
        """Of its weights; "" where there is no file."""
        return self.segmenter.info.precision if self.segmenter.info else ""


class ModelSlot:
    """Holds one model, or none. Safe to use from several threads.

    Args:
        open_model: Makes a segmenter from a path.
        roots: Folders that models may be loaded from, links resolved; none: any file.
        resolve: Makes a path of a name, and reports how far it is. Default: `resolve_model`.

    Attributes:
        loading: The path that is being loaded, or "".
        progress: How far, as `report` was told.

    """

    def __init__(
        self,
        open_model: Callable[[str], ImageSegmenter],
        roots: Sequence[str] = (),
        resolve: Callable[[str, Callable[[str], None]], str] = resolve_model,
    ) -> None:
        self.loading = ""
        self.progress = ""
        self._open_model, self._resolve = open_model, resolve
        self._roots = [Path(root).expanduser().resolve() for root in roots]
        self._model: Model | None = None
        self._lock = threading.Lock()  # held while the model segments, or is exchanged for another
        self._lives = 0  # how often the slot was closed

    @property
    def model(self) -> Model | None:
        """What segments now."""
        return self._model

    def report(self, line: str) -> None:
        """Take a line about the progress of loading."""
        self.progress = line

    def load(self, path: str) -> tuple[Model, Model | None]:
        """Open a model, see it work on a made-up picture, and take it from the next images on.

        On any error the model so far stays, and the new one is closed.

        Args:
            path: Path of a model, or a name that `resolve` knows.

        Returns:
            The new model, and the one that it replaced, which is closed now.

        Raises:
            InputError: The file cannot be used or lies outside of the folders, the slot was closed meanwhile, or the
                model so far does not come back from an image.

        """
        life = self._lives
        resolved = self._within(self._resolve(path, self.report))
        self.loading, self.progress = resolved, ""
        try:
            new = self._open(resolved)
        finally:
            self.loading, self.progress = "", ""
        lock, refused = self._lock, ""
        if lock.acquire(timeout=_SWAP_LIMIT):  # between two images
            if life == self._lives:
                old, self._model = self._model, new
            else:
                refused = "the node was cleaned up while the model was loaded; configure it again"
            lock.release()
        else:
            refused = f"the model has not come back from an image for {_SWAP_LIMIT:g} s; restart the node"
        if refused:
            new.segmenter.close()
            raise InputError(refused)
        if old is not None:
            old.segmenter.close()
        return new, old

    def _within(self, path: str) -> str:
        """The file with its links resolved, so that what is checked is what is opened."""
        if not self._roots:
            return path
        file = Path(path).resolve()
        if not any(file.is_relative_to(root) for root in self._roots):
            allowed = ", ".join(map(str, self._roots))
            raise InputError(f"{file} lies outside of model_roots ({allowed}); copy it there, or add its folder")
        return str(file)

    def _open(self, path: str) -> Model:
        segmenter = self._open_model(path)
        try:
            segmenter.warm_up()
            picture = np.random.default_rng(0).integers(0, 256, (*_SELF_TEST_SIZE, 3), np.uint8)
            found = segmenter.segment([picture])[0]
            if found.image_size != _SELF_TEST_SIZE:
                size = found.image_size
                raise InputError(f"{path} answers a picture of {_SELF_TEST_SIZE} pixels with masks of {size}")
            return Model(segmenter, Path(path).name, sha256(path) if Path(path).is_file() else "")
        except BaseException:
            segmenter.close()
            raise

    def segment(self, images: Sequence[tuple[np.ndarray, str]], selection: Selection) -> tuple[list[Instances], Model]:
        """Segment images (H, W, 3) uint8, each with its order of colours, "RGB" or "BGR".

        Returns:
            Instances of each, with all that `selection` may still leave out, and the model that found them.

        Raises:
            InputError: There is no model, or an image cannot be used. What else a model raises passes through.

        """
        with self._lock:
            model, life = self._model, self._lives
            if model is None:
                raise InputError("the node is not configured; configure it first")
            try:
                model.segmenter.configure(selection)
                orders = {order for _, order in images}
                if len(orders) == 1:
                    found = model.segmenter.segment([pixels for pixels, _ in images], color_order=orders.pop())
                else:
                    found = model.segmenter.segment([to_rgb(pixels, order) for pixels, order in images])
            finally:
                if life != self._lives:  # closed without waiting for this image
                    model.segmenter.close()
            return found, model

    def close(self) -> None:
        """Give the model back; one that is being loaded will not be taken. The slot can be used again.

        A model that does not come back from an image is closed once it does.
        """
        lock, idle = self._lock, self._lock.acquire(timeout=_CLOSE_LIMIT)
        self._lives += 1
        old, self._model = self._model, None
        if idle:
            lock.release()
        else:
            self._lock = threading.Lock()
        if old is not None and idle:
            old.segmenter.close()
