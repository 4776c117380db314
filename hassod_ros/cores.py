"""How many processor cores this process may use: those it is bound to, and the quota of its container."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path


def usable_cores(root: str | os.PathLike = "/") -> int:
    """Cores that the process can keep busy, at least 1.

    A container's quota (`docker run --cpus`, Kubernetes' limits, systemd's CPUQuota) does not hide cores: more threads
    than it pays for are stopped together in the middle of their work. A quota of one and a half cores counts as one.

    Args:
        root: Of the file system with `proc` and `sys/fs/cgroup`.

    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores, *map(int, _quotas(Path(root))), cores))


def _quotas(root: Path) -> Iterator[float]:
    """The quotas in cores of the process's control groups and of those above them, in both versions of the kernel's."""
    mount = root / "sys/fs/cgroup"
    for line in _read(root / "proc/self/cgroup").splitlines():
        number, controllers, path = line.split(":", 2)
        if number == "0" and not controllers:
            for folder in _upwards(mount, path):
                quota, _, period = _read(folder / "cpu.max").strip().partition(" ")
                if quota.isdecimal() and period.isdecimal():
                    yield int(quota) / int(period)
        elif "cpu" in controllers.split(","):
            for name in (controllers, "cpu"):
                for folder in _upwards(mount / name, path):
                    quota, period = (_read(folder / f"cpu.cfs_{word}_us").strip() for word in ("quota", "period"))
                    if quota.isdecimal() and period.isdecimal():  # a quota of -1 is none
                        yield int(quota) / int(period)


def _upwards(mount: Path, path: str) -> list[Path]:
    """A control group's folder and those above it; inside a container the first ones may not be there."""
    group = Path(path.lstrip("/"))
    return [mount / folder for folder in (group, *group.parents)]


def _read(path: Path) -> str:
    """Content of a file of the kernel, "" where it is not there."""
    try:
        return path.read_text(encoding="ascii")
    except OSError:
        return ""
