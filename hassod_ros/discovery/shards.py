"""Results of a long run in small atomic files, so that a killed run goes on where it stopped."""

from __future__ import annotations

import json
import os
import shutil
import weakref
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hassod_ros.errors import InputError
from hassod_ros.files import atomic_path, make_folder, try_lock, write_json

FAILURES = ".failures.json"


@dataclass(frozen=True)
class Summary:
    """What a run produced."""

    out: Path
    images: int
    annotations: int
    failures: list[dict[str, str]]

    def __str__(self) -> str:
        per_image = self.annotations / self.images
        text = f"{self.out}: {self.annotations} masks in {self.images} images, {per_image:.1f} an image"
        if self.failures:
            text += f"\n{len(self.failures)} images could not be labelled; {failures_of(self.out)} says why"
        return text


def shards_of(out: Path) -> list[Path]:
    """The finished shards of an unfinished file `out`."""
    return list(out.with_name(f"{out.name}.parts").glob("[0-9]*.json"))


def check_target(out: Path) -> None:
    """Find out before hours of work whether `out` can be written.

    Raises:
        InputError: It exists already, or its folder cannot be written.

    """
    if out.exists():
        raise InputError(f"{out} exists; remove it or write to another file")
    make_folder(out.parent)


class Shards:
    """The unfinished state of `out`: a folder `out`.parts with what was asked for and one file per finished shard.

    A record is one image's result: `{"image": COCO image, "annotations": [COCO annotation, ...]}` with annotation ids
    that count from 1 within the image, or `{"failure": {"file_name": ..., "error": ...}}`.

    Args:
        out: The JSON file that the run is to produce.
        request: What decides the result, as JSON values. A run is only continued with an equal request.
        revision: Revision of the code that starts the run; kept from the start when a run is continued.

    Raises:
        InputError: The folder cannot be written, another process is at work in it, or what lies there belongs to
            another request.

    """

    def __init__(self, out: Path, request: Mapping[str, Any], revision: str) -> None:
        self.out = out
        self.folder = out.with_name(f"{out.name}.parts")
        make_folder(self.folder)
        self._lock()
        manifest = self.folder / "request.json"
        request = json.loads(json.dumps(request))  # tuples become lists, as in the file
        if manifest.exists():
            found = self._load(manifest)
            different = [key for key in request if found["request"].get(key) != request[key]]
            if different:
                self._release()
                raise InputError(
                    f"{self.folder} belongs to a run with other {', '.join(different)}; "
                    "repeat its options to continue it, or remove the folder to start anew"
                )
            self.revision = str(found["revision"])
        else:
            self.revision = revision
            write_json(manifest, {"revision": revision, "request": request})

    def _lock(self) -> None:
        """Keep others out while this object lives: who merges last would write the few shards that are left then."""
        handle = os.open(self.folder, os.O_RDONLY)
        self._release = weakref.finalize(self, os.close, handle)  # lets go of it, as the end of the process does
        if not try_lock(handle):
            self._release()
            raise InputError(
                f"another run writes {self.out} at this moment; wait for its end, or write to another file"
            )

    @property
    def done(self) -> set[int]:
        """Numbers of the finished shards."""
        return {int(path.stem) for path in self.folder.glob("[0-9]*.json")}

    def write(self, number: int, records: Sequence[Mapping[str, Any]]) -> None:
        """Keep a finished shard."""
        write_json(self.folder / f"{number:07d}.json", list(records))

    def merge(self, info: Mapping[str, Any]) -> Summary:
        """Write `out` and the list of failures beside it (see `failures_of`), then remove the shards.

        Shards are read one by one: memory does not grow with the run.

        Args:
            info: Goes into the file's `info`.

        Raises:
            InputError: The disk is full; the shards stay, and a repeated run only merges again. Or not one image could
                be labelled.

        """
        failures = [record["failure"] for record in self._records() if "failure" in record]
        images = annotations = 0
        with atomic_path(self.out) as temporary, open(temporary, "w", encoding="utf-8") as file:
            file.write(f'{{"info":{_dump(info)},"licenses":[],"categories":[{{"id":1,"name":"object"}}],"images":[')
            for record in self._records():
                if "image" in record:
                    file.write(",\n" * bool(images) + _dump(record["image"]))
                    images += 1
            file.write('],"annotations":[')
            for record in self._records():
                first = annotations
                for annotation in record.get("annotations", ()):
                    annotation["id"] += first
                    annotation["parent_id"] += first if annotation["parent_id"] else 0
                    file.write(",\n" * bool(annotations) + _dump(annotation))
                    annotations += 1
            file.write("]}\n")
            file.flush()
            os.fsync(file.fileno())
            write_json(failures_of(self.out), failures, indent=1)
        shutil.rmtree(self.folder)
        self._release()
        if not images:
            raise InputError(f"none of {len(failures)} images could be labelled; the first: {failures[0]['error']}")
        return Summary(self.out, images, annotations, failures)

    def _records(self) -> Iterator[dict[str, Any]]:
        for number in sorted(self.done):
            yield from self._load(self.folder / f"{number:07d}.json")

    def _load(self, path: Path) -> Any:
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InputError(f"{path} cannot be read ({error}); remove it, the run makes it again") from error


def failures_of(out: Path) -> Path:
    """The list of what could not be labelled, beside a file of labels: labels.json -> labels.failures.json."""
    return out.with_name(f"{out.stem}{FAILURES}")


def _dump(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))
