"""Compiled engines on disk: built once for one model on one device, verified every time they are loaded.

An engine is executable content. It is therefore only read from a folder that nobody else can write to, and only if its
bytes are those that were written.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO, TypeVar

from hassod_ros.errors import InputError
from hassod_ros.files import atomic_path, expanded

_SCHEMA = 1
_HEADER_LIMIT = 1 << 16  # bytes; a damaged file may have no line end
_QUARANTINED = 2  # files that are kept to be looked at; an engine can have hundreds of megabytes
_SHORTAGE = re.compile(r"alloc|out ?of ?memory|\boom\b", re.IGNORECASE)

Engine = TypeVar("Engine")


@dataclass(frozen=True, kw_only=True)
class EngineKey:
    """Everything that an engine depends on; a change of any of it asks for another engine.

    Attributes:
        model_sha256: Of the ONNX file.
        compiler: Its name and version, such as "tensorrt 10.3.0".
        device: Name of the GPU (or CPU).
        compute_capability: Such as "8.7"; "" where there is none.
        multiprocessors: SM count; devices of one name can differ in it (power modes, MIG). 0 where there is none.
        precision: Of the model.
        shapes: Of the inputs, such as "images:1x480x640x3".
        options: Builder options that change the engine, such as "dla=0".

    """

    model_sha256: str
    compiler: str
    device: str
    compute_capability: str
    multiprocessors: int
    precision: str
    shapes: str
    options: str = ""

    def digest(self) -> str:
        """Name of the engine's file: 32 hex digits."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:32]


def default_cache_folder() -> Path:
    """`$XDG_CACHE_HOME/hassod_ros/engines`, by default below ~/.cache."""
    return expanded(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "hassod_ros" / "engines"


def private_folder(folder: str | os.PathLike) -> Path:
    """Create the folder for this user alone, or check that it is one.

    Raises:
        InputError: It belongs to someone else, or others may write to it.

    """
    path = expanded(folder)
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = path.stat()
    except OSError as error:
        raise InputError(f"cannot use {path} for engines ({error.strerror}); choose another folder") from error
    if status.st_uid != os.geteuid():
        raise InputError(f"{path} belongs to another user, engines from it could be anything; choose another folder")
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise InputError(f"others may write to {path}, engines from it could be anything; run chmod go-w {path}")
    return path


class EngineCache:
    """A folder of engines.

    Args:
        folder: Created if missing; must not be writable by others.

    """

    def __init__(self, folder: str | os.PathLike | None = None) -> None:
        self.folder = private_folder(default_cache_folder() if folder is None else folder)

    def path(self, key: EngineKey) -> Path:
        """Where the engine of this key lies, built or not."""
        return self.folder / f"{key.digest()}.engine"

    def load_or_build(self, key: EngineKey, build: Callable[[], bytes]) -> bytes:
        """The engine's bytes, from the disk where they are whole, otherwise from `build`, which may take minutes.

        Processes that ask for the same engine at the same time wait for one builder. A damaged file is moved aside
        (`*.quarantined`) and built anew. What a killed builder left behind is removed.

        Raises:
            InputError: The folder cannot be written. Errors of `build` pass through; nothing is left behind then.

        """
        private_folder(self.folder)  # it may have been opened up since
        with self._lock(key):
            path = self.path(key)
            for leftover in self.folder.glob(f".{path.stem}.*"):
                leftover.unlink(missing_ok=True)
            if path.exists():
                engine = _read(path, key)
                if engine is not None:
                    return engine
                self._put_aside(path)
            engine = build()
            with atomic_path(path) as temporary, temporary.open("wb") as file:
                header = {"schema": _SCHEMA, "key": asdict(key), "size": len(engine)}
                header["sha256"] = hashlib.sha256(engine).hexdigest()
                file.write(json.dumps(header).encode() + b"\n")
                file.write(engine)
            return engine

    def open(
        self,
        key: EngineKey,
        build: Callable[[], bytes],
        load: Callable[[bytes], Engine | None],
        report: Callable[[str], None],
    ) -> Engine:
        """What `load` makes of the engine's bytes. One from the disk that it refuses is put aside and built anew.

        Args:
            key: Of the engine.
            build: See `load_or_build`.
            load: Returns None where it refuses the bytes. An error that says nothing about them, such as too little
                memory, is to be raised: it passes through, and the engine stays.
            report: Takes a line about what was put aside.

        Raises:
            InputError: Even a new engine is refused; see also `load_or_build`.

        """
        fresh = False

        def build_now() -> bytes:
            nonlocal fresh
            fresh = True
            return build()

        while True:
            data = self.load_or_build(key, build_now)
            engine = load(data)
            if engine is not None:
                return engine
            aside = self.quarantine(key, data)
            if fresh:
                raise InputError(f"a newly built engine cannot be loaded (it is now {aside}); see the log")
            if aside is not None:
                report(f"the engine in the cache was refused; it is now {aside}, building anew")

    def quarantine(self, key: EngineKey, engine: bytes) -> Path | None:
        """Move an engine aside, so that it is never loaded again but can be looked at.

        Returns:
            Where it is now; None where another process has put something else in its place.

        """
        with self._lock(key):
            path = self.path(key)
            return self._put_aside(path) if path.exists() and _read(path, key) == engine else None

    def _put_aside(self, path: Path) -> Path:
        """Rename a file, and remove all but the newest of those before it; the lock is held."""
        handle, name = tempfile.mkstemp(prefix=f"{path.stem}.", suffix=".quarantined", dir=self.folder)
        os.close(handle)
        os.replace(path, name)
        os.utime(name)
        aside = []
        for file in self.folder.glob("*.quarantined"):
            with suppress(FileNotFoundError):  # another process tidies up as well
                aside.append((file.stat().st_mtime_ns, file))
        for _, file in sorted(aside)[:-_QUARANTINED]:
            file.unlink(missing_ok=True)
        return Path(name)

    @contextmanager
    def _lock(self, key: EngineKey) -> Iterator[None]:
        """Hold the key's lock file; the kernel lets go of it when the process dies."""
        try:
            file: BinaryIO = self.path(key).with_suffix(".lock").open("ab")
        except OSError as error:
            raise InputError(f"cannot write to {self.folder} ({error.strerror}); choose another folder") from error
        with file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _read(path: Path, key: EngineKey) -> bytes | None:
    """The engine in a cache file, or None if the file is not exactly what was written for this key."""
    with path.open("rb") as file:
        try:
            header = json.loads(file.readline(_HEADER_LIMIT))
            expected, size, digest = header["key"], header["size"], header["sha256"]
        except (ValueError, KeyError, TypeError):
            return None
        engine = file.read()
    whole = expected == asdict(key) and size == len(engine) and digest == hashlib.sha256(engine).hexdigest()
    return engine if whole and header.get("schema") == _SCHEMA else None


def is_memory_shortage(text: str) -> bool:
    """Whether an error's text speaks of too little memory."""
    return _SHORTAGE.search(text) is not None
