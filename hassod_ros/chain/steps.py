"""Steps of a long computation that are done once: each has a folder of its own, named after everything it depends on.

The name of a folder holds a fingerprint of the step's settings and of the steps before it. Where nothing has changed,
the folder is found and the step is passed over; where something has, the step gets another folder and nothing is
overwritten. A step counts as done when its files exist, and it writes them atomically, the last one at its end.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hassod_ros.errors import InputError
from hassod_ros.files import alone, revision, sha256, write_json
from hassod_ros.learning.monitor import duration

RECORD = "step.json"


@dataclass(frozen=True)
class Step:
    """One step.

    Attributes:
        name: What it is called.
        about: What it does, for a person.
        root: Folder of all steps' folders.
        settings: Plain values that decide the result, beside those of the steps before.
        needs: The steps before that it reads from.
        outputs: Files in its folder that exist when it is done.
        run: Does it, given its folder; continues where a part is there.
        packages: Python packages that it imports, maybe hours after the first step began.

    """

    name: str
    about: str
    root: Path
    settings: Mapping[str, Any]
    needs: tuple[Step, ...]
    outputs: tuple[str, ...]
    run: Callable[[Path], None]
    packages: tuple[str, ...] = ()

    @cached_property
    def key(self) -> str:
        """Fingerprint of everything that the result depends on."""
        values = [self.name, self.settings, [step.key for step in self.needs]]
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:10]

    @property
    def folder(self) -> Path:
        """Where its files are."""
        return self.root / f"{self.name}-{self.key}"

    @property
    def done(self) -> bool:
        """Whether all its files exist."""
        return all((self.folder / output).is_file() for output in self.outputs)

    def path(self, output: str) -> Path:
        """One of its files."""
        return self.folder / output


def run_steps(steps: Sequence[Step], *, until: str, say: Callable[[str], None] = print) -> None:
    """Do what is not done yet, in order, up to and with the step `until`; first say what that is.

    Each step leaves `step.json` beside its files: settings, seconds, machine, fingerprints of the files.

    Raises:
        InputError: There is no step `until`, a package is missing (said before the first step), another run is at work
            on them, or a step raised it. What was done is kept.

    """
    names = [step.name for step in steps]
    if until not in names:
        raise InputError(f"there is no step {until!r}; choose one of {', '.join(names)}")
    ahead = steps[: names.index(until) + 1]
    _require_packages([step for step in ahead if not step.done])
    width = max(map(len, names))
    for step in ahead:
        state = "done" if step.done else "continue" if step.folder.exists() else "to do"
        say(f"{step.name:{width}}  {state:8}  {step.about}")
    if not all(step.done for step in ahead):
        with alone(ahead[0].root):
            _run_all(ahead, say)


def _run_all(steps: Sequence[Step], say: Callable[[str], None]) -> None:
    for step in steps:
        if step.done:
            continue
        say(f"\n{step.name}: {step.about} -> {step.folder}")
        continued = step.folder.exists()
        start = time.perf_counter()
        step.run(step.folder)
        seconds = time.perf_counter() - start
        missing = [output for output in step.outputs if not step.path(output).is_file()]
        if missing:
            raise RuntimeError(f"step {step.name} ended without {', '.join(missing)}")
        record = {
            "step": step.name,
            "settings": step.settings,
            "needs": {need.name: need.key for need in step.needs},
            "seconds": round(seconds, 1),
            "continued": continued,  # the seconds are then those of the last part
            "machine": machine(),
            "revision": revision(),
            "outputs": {output: sha256(step.path(output)) for output in step.outputs},
        }
        write_json(step.folder / RECORD, record, indent=1)
        say(f"{step.name}: {duration(seconds)}")


def _require_packages(steps: Sequence[Step]) -> None:
    needed = {package: step.name for step in reversed(steps) for package in step.packages}
    missing = [f"{package} (step {name})" for package, name in sorted(needed.items()) if find_spec(package) is None]
    if missing:
        raise InputError(f"packages are missing: {', '.join(missing)}; run pip install 'hassod_ros[train]'")


def machine() -> str:
    """What computes here: processor, cores, GPUs."""
    processor = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        processor = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass  # no Linux, or an ARM board, which names no model
    import torch  # the steps have loaded it already

    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return ", ".join([f"{processor} ({len(os.sched_getaffinity(0))} cores)", *gpus])
