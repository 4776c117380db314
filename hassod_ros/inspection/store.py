"""References by name, each version a file of its own, and which one is in use."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path

from hassod_ros.errors import InputError
from hassod_ros.files import exclusive, expanded, sha256, write_json
from hassod_ros.inspection.reference import Reference, load, save

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


@dataclass(frozen=True)
class Stored:
    """A reference and where it is kept.

    Attributes:
        reference: The reference.
        version: Counted from 1; 0 where it is a file outside the store.
        path: Its file.
        sha256: Of the file, lower-case hex.

    """

    reference: Reference
    version: int
    path: Path
    sha256: str


class Store:
    """A folder NAME/000001.npz, NAME/000002.npz, ...: nothing in it is ever overwritten.

    Args:
        folder: Made where it is missing. Several cells may share it.
        cell: Which of them: each has a note of its own of what is in use; "" = the only one.

    """

    def __init__(self, folder: str | os.PathLike, cell: str = "") -> None:
        self.folder = expanded(folder)
        self._note = self.folder / (f"current.{cell}.json" if cell else "current.json")

    def versions(self, name: str) -> list[int]:
        """Versions of a reference, ascending."""
        files = (self.folder / check_name(name)).glob("*.npz")
        return sorted(int(file.stem) for file in files if file.stem.isdecimal())

    def load(self, name: str, version: int = 0) -> Stored:
        """A version of a reference; 0 = the newest.

        Raises:
            InputError: There is none, or it cannot be read.

        """
        known = self.versions(name)
        if not known:
            raise InputError(f"there is no reference {name} in {self.folder}; learn it first")
        version = version or known[-1]
        if version not in known:
            have = ", ".join(map(str, known))
            raise InputError(f"reference {name} has no version {version} (there is: {have}); choose one of them")
        return self.read(self._file(name, version), version)

    def read(self, path: str | os.PathLike, version: int = 0) -> Stored:
        """A reference from any file.

        Raises:
            InputError: It cannot be read.

        """
        reference = load(path)
        return Stored(reference, version, Path(path), sha256(path))

    def add(self, reference: Reference) -> Stored:
        """Keep a reference as the next version of its name.

        Raises:
            InputError: The disk is full or the folder cannot be written.

        """
        with exclusive(self.folder / check_name(reference.name)):
            version = max(self.versions(reference.name), default=0) + 1
            path = self._file(reference.name, version)
            save(reference, path)
        return Stored(reference, version, path, sha256(path))

    def use(self, stored: Stored) -> None:
        """Note which reference is in use, for the next start."""
        write_json(self._note, {"name": stored.reference.name, "version": stored.version})

    def current(self) -> tuple[str, int] | None:
        """Name and version of the reference that was last in use; None where there was none."""
        try:
            record = json.loads(self._note.read_text(encoding="utf-8"))
            return check_name(record["name"]), int(record["version"])
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{self._note} is damaged ({error}); remove it and load a reference by name") from error

    def _file(self, name: str, version: int) -> Path:
        return self.folder / name / f"{version:06d}.npz"


def check_name(name: str) -> str:
    """The name, if it can be part of a path.

    Raises:
        InputError: It cannot.

    """
    if not _NAME.fullmatch(name):
        raise InputError(f"{name!r} cannot be a reference's name; use up to 64 letters, digits, _ and -")
    return name
