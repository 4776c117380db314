"""Segments of many images on disk: five million masks are scored without being in memory together."""

from __future__ import annotations

import os
import pickle
import tempfile
import weakref
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Generic, TypeVar

Value = TypeVar("Value")


class Store(Mapping[Any, Value], Generic[Value]):
    """Values by key in a temporary file of this process, read anew at each access.

    Other processes that it is sent to read the same file. It goes with the process that made it.

    Args:
        items: Keys, each once, and values that can be pickled.

    """

    def __init__(self, items: Iterable[tuple[Any, Value]]) -> None:
        handle, path = tempfile.mkstemp(prefix="hassod_ros_", suffix=".segments")
        self._path = path
        self._remove = weakref.finalize(self, Path(path).unlink, missing_ok=True)
        self._places: dict[Any, int] = {}
        with os.fdopen(handle, "wb") as file:
            for key, value in items:
                self._places[key] = file.tell()
                pickle.dump(value, file, pickle.HIGHEST_PROTOCOL)
        self._file: BinaryIO | None = None

    def __getitem__(self, key: Any) -> Value:
        place = self._places[key]
        if self._file is None:
            self._file = open(self._path, "rb")  # noqa: SIM115 - stays open as long as the store
        self._file.seek(place)
        value: Value = pickle.load(self._file)  # our own file, written above
        return value

    def __iter__(self) -> Iterator[Any]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def __getstate__(self) -> dict[str, Any]:
        return {"_path": self._path, "_places": self._places, "_file": None}


class Groups:
    """Entries of images in any order, gathered by image in a temporary file.

    Attributes:
        count: How many entries there are.
        masks: Whether they are about masks: one of them at least has a `segmentation`.

    Args:
        entries: Each with an `image_id`.

    """

    def __init__(self, entries: Iterable[Mapping[str, Any]]) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - goes with this object
        self._places: dict[Any, list[int]] = {}
        run: list[Mapping[str, Any]] = []
        self.count, self.masks = 0, False
        for entry in entries:
            self.count += 1
            self.masks |= bool(entry.get("segmentation"))
            if run and entry.get("image_id") != run[0].get("image_id"):
                self._close(run)
                run = []
            run.append(entry)
        if run:
            self._close(run)

    def _close(self, run: list[Mapping[str, Any]]) -> None:
        self._places.setdefault(run[0].get("image_id"), []).append(self._file.tell())
        pickle.dump(run, self._file, pickle.HIGHEST_PROTOCOL)

    def __iter__(self) -> Iterator[Any]:
        """The ids of images that have entries, in the order of their first one."""
        return iter(self._places)

    def of(self, image_id: Any) -> list[Mapping[str, Any]]:
        """The entries of an image in the order they came."""
        entries: list[Mapping[str, Any]] = []
        for place in self._places.get(image_id, ()):
            self._file.seek(place)
            entries += pickle.load(self._file)  # our own file, written above
        return entries
