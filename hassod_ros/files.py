"""Files that are never half written, and the fingerprints that name them."""

import fcntl
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import hassod_ros
from hassod_ros.errors import InputError

_END_LIMIT = 8.0  # s that what a killed process has started may take to end; PyTorch's workers look every five


def find_config(name: str) -> Path:
    """A file or folder of config/: in the working directory, in the checkout, or where pip or colcon installed it.

    Raises:
        InputError: In none of them.

    """
    prefixes = [sys.prefix, *filter(None, os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep))]
    shared = [Path(prefix, "share", "hassod_ros") for prefix in prefixes]
    for root in (Path.cwd(), Path(hassod_ros.__file__).resolve().parents[1], *shared):
        if (path := root / "config" / name).exists():
            return path
    where = ", ".join(map(str, shared))
    raise InputError(f"config/{name} is neither here nor in {where}; run this in a checkout, or give its path")


def expanded(path: str | os.PathLike) -> Path:
    """The path, ~ being the user's home folder.

    Raises:
        InputError: The user has none, as in a container whose user has no name.

    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise InputError(f"there is no home folder for {path}; set HOME, or give another path") from error


@contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a temporary path beside `path` that takes its place when the block succeeds.

    Readers see the old file or the whole new one, also after a crash. On an error the temporary file is removed and
    `path` is untouched.

    Raises:
        InputError: The folder cannot be written or the disk is full.

    """
    target = Path(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        # The suffix is kept: writers such as cv2.imwrite choose their format by it.
        handle, name = tempfile.mkstemp(prefix=f".{target.stem}.", suffix=target.suffix, dir=target.parent)
        os.close(handle)
    except OSError as error:
        raise InputError(f"cannot write {target}: {error.strerror}; choose another folder or free it") from error
    temporary = Path(name)
    try:
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)  # mkstemp makes 0600
        os.replace(temporary, target)
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise InputError(f"cannot write {target}: {error.strerror or error}; free some space and run again") from error
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def exclusive(folder: str | os.PathLike) -> Iterator[None]:
    """Make a folder, and let one process of this machine at a time into the block.

    Raises:
        InputError: The folder cannot be written.

    """
    path = Path(folder)
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock = open(path / ".lock", "w", encoding="utf-8")  # noqa: SIM115 - closed below
    except OSError as error:
        raise InputError(f"{path} cannot be written ({error.strerror or error}); choose another folder") from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def try_lock(handle: int) -> bool:
    """Keep others of this machine from locking an open file or folder until it is closed; False where one has.

    A folder of a network that knows no locks counts as locked.
    """
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        pass
    return True


@contextmanager
def alone(folder: str | os.PathLike) -> Iterator[None]:
    """Make a folder, and keep others of this machine out of the block: they would write the same files.

    What a killed process has started is given some seconds to end. Where nothing was written, no new folder is left.

    Raises:
        InputError: Another one is in the block, or the folder cannot be written.

    """
    new = [each for each in (Path(folder), *Path(folder).parents) if not each.exists()]
    make_folder(folder)
    handle = os.open(folder, os.O_RDONLY)
    try:
        end = time.monotonic() + _END_LIMIT
        while not try_lock(handle):
            if time.monotonic() > end:
                raise InputError(
                    f"another run writes {folder} at this moment; wait for its end, or give another folder"
                )
            time.sleep(0.1)
        yield
    finally:
        os.close(handle)
        with suppress(OSError):  # the first that holds something ends it
            for each in new:
                each.rmdir()


def find_out_early(folder: str | os.PathLike) -> None:
    """Refuse a folder that cannot be written, or made, before hours of work; nothing is made.

    Raises:
        InputError: It cannot.

    """
    path = Path(folder).absolute()
    make_folder(next(each for each in (path, *path.parents) if each.exists()))


def make_folder(folder: str | os.PathLike, name: str = "") -> None:
    """Make a folder that can be written; `name`: of the parameter that gives it, for the sentence.

    Raises:
        InputError: It cannot.

    """
    try:
        path = Path(folder)
        path.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path).close()
    except OSError as error:
        place = f"{name} {folder}".strip()
        raise InputError(f"cannot write to {place}: {error.strerror}; choose another folder") from error


def write_text(path: str | os.PathLike, text: str) -> None:
    """Write `text` (UTF-8; file names as their bytes are) atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="surrogateescape")


def write_bytes(path: str | os.PathLike, data: bytes) -> None:
    """Write `data` atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def write_json(path: str | os.PathLike, value: Any, *, indent: int | None = None) -> None:
    """Write `value` as JSON atomically; equal values give equal bytes (keys keep their order)."""
    write_text(path, json.dumps(value, indent=indent, separators=None if indent else (",", ":")) + "\n")


def sha256(path: str | os.PathLike) -> str:
    """Hex SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def revision() -> str:
    """The git revision of this checkout, or the package version where there is no checkout."""
    try:
        root = Path(__file__).resolve().parent.parent
        command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--match=v*"]
        found = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
        return found if (root / ".git").exists() else hassod_ros.__version__
    except (OSError, subprocess.CalledProcessError):
        return hassod_ros.__version__
