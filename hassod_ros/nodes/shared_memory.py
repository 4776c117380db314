"""Give back the shared memory of killed nodes; with this package's Fast DDS profile each would leave 64 MB behind."""

from __future__ import annotations

import fcntl
import itertools
import time
from pathlib import Path

FOLDER = Path("/dev/shm")
_NAMES = ("fastdds", "fastrtps")  # the latter up to Fast DDS 2 (Humble, Jazzy)
_SETTLED = 10.0  # s; a younger file may belong to a process that has not locked it yet


def remove_orphans(folder: Path = FOLDER) -> list[Path]:
    """Remove Fast DDS segments whose process is gone.

    A living process holds the lock file `NAME_el` of its segment `NAME` locked; the kernel frees it when it dies.

    Args:
        folder: Where Fast DDS keeps its segments.

    Returns:
        The segments that were removed.

    """
    removed = []
    for lock in itertools.chain.from_iterable(folder.glob(f"{name}_[0-9a-f]*_el") for name in _NAMES):
        segment = lock.with_name(lock.name.removesuffix("_el"))
        try:
            if time.time() - lock.stat().st_mtime < _SETTLED:
                continue
            with lock.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # released when the file is closed
                segment.unlink(missing_ok=True)
                lock.unlink()
        except OSError:  # alive, somebody else's, or removed by another process just now
            continue
        removed.append(segment)
    return removed
