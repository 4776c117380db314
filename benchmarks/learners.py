"""What HEAP and LightCluster cost: images a second and memory to learn from photographs and to label with that.

Each row of the first table is a process of its own, with one thread; features count in a row of their own. Then
LightCluster's two passes of `pseudo_label`, learning and labelling, with one and two workers of Ray on as many cores:
images a second after three tenths of the images, when the workers stand.

Example:
    python benchmarks/learners.py --images PHOTOS --count 150 --features handcrafted --set crf=null
    python benchmarks/learners.py --images PHOTOS --count 150 --only workers

"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import cv2
from tqdm import tqdm

from hassod_ros.commands import run, script_parser
from hassod_ros.deploy.gate import evenly
from hassod_ros.discovery.features.remembered import Remembered
from hassod_ros.discovery.method import LEARNERS, Learner, change, make_method, open_learner, parse_option
from hassod_ros.discovery.states import describe, save_state
from hassod_ros.errors import InputError
from hassod_ros.evaluation.foreground_methods import load
from hassod_ros.images import name_images, read_image

COSTS, WORKERS = "costs", "workers"
_BEGUN = 0.3  # share of the images after which all workers of Ray stand


def main(arguments: Sequence[str] | None = None) -> int:
    """Print both tables; the status is that of `commands.run`."""
    given = _parser().parse_args(arguments)

    def work() -> None:
        if given.row:
            cv2.setNumThreads(1)
            print(json.dumps(_ROWS[given.row](given)))
            return
        _named(given)  # says what is missing
        with tempfile.TemporaryDirectory() as folder:
            if given.only != WORKERS:
                _costs(given, Path(folder))
            if given.only != COSTS:
                _workers(given, Path(folder))

    return run("learners", work)


def _costs(given: argparse.Namespace, folder: Path) -> None:
    print(f"{given.count} photographs, {given.features} features, one thread")
    print(f"{'':34}{'images/s':>10}{'by CPU time':>13}{'CPU s':>8}{'peak GB':>9}", flush=True)
    for method in LEARNERS:
        for row in ("learn", "use"):
            found = _process(given, row, "--method", method, "--out", str(folder / f"{method}.npz"))
            if (method, row) == (LEARNERS[0], "learn"):
                _print_row("features alone", found["features"], given.count, found["start GB"])
            label = "learning" if row == "learn" else "labelling"
            _print_row(f"{method}, {label} beside them", found["own"], given.count, found["peak GB"])


def _workers(given: argparse.Namespace, folder: Path) -> None:
    print(f"\n{given.count} photographs, lightcluster in pseudo_label, one core a worker")
    print(f"{'':34}{'learning, images/s':>20}{'labelling, images/s':>21}", flush=True)
    rates = []
    for count in (1, 2):
        found = _process(given, "workers", "--workers", str(count), "--out", str(folder / f"{count}.json"))
        rates.append((found["learning"], found["labelling"]))
        print(f"{f'workers: {count}':34}{found['learning']:20.2f}{found['labelling']:21.2f}", flush=True)
    growth = [two / one for one, two in zip(*rates, strict=True)]
    print(f"{'growth':34}{growth[0]:19.2f}x{growth[1]:20.2f}x")


def _print_row(label: str, seconds: dict[str, float], images: int, peak: float) -> None:
    rates = f"{images / seconds['wall']:10.1f}{images / seconds['cpu']:13.1f}"
    print(f"{label:34}{rates}{seconds['cpu']:8.1f}{peak:9.2f}", flush=True)


def _process(given: argparse.Namespace, row: str, *words: str) -> dict[str, Any]:
    """What a row says that runs in a process of its own."""
    command = [sys.executable, __file__, "--row", row, *words, "--images", str(given.images)]
    command += ["--count", str(given.count), "--features", given.features]
    command += ["--weights", given.weights] if given.weights else []
    command += [word for option in given.set for word in ("--set", option)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise InputError(f"the row {row} failed: {done.stderr.strip().splitlines()[-1]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


class _Clock:
    """Seconds of what runs inside `with`, added up: by the clock on the wall and of this process's CPU time."""

    def __init__(self) -> None:
        self.seconds = {"wall": 0.0, "cpu": 0.0}

    def __enter__(self) -> None:
        self._start = time.perf_counter(), time.process_time()

    def __exit__(self, *_: object) -> None:
        self.seconds["wall"] += time.perf_counter() - self._start[0]
        self.seconds["cpu"] += time.process_time() - self._start[1]


def _learn(given: argparse.Namespace) -> dict[str, Any]:
    """Samples of the photographs, which is features alone, then what is learned from them."""
    method, features = _learner(given.method, given.set), load(given.features, given.weights, "cpu")
    samples, of_features, own = [], _Clock(), _Clock()
    for image in _photographs(given):
        prepared = method.prepare(image, features.patch_size)
        with of_features:
            samples += method.sample([prepared], features)
    before = _peak()
    with own:
        state = method.learn(iter(samples), describe(features))
    save_state(given.out, state)
    return {"features": of_features.seconds, "own": own.seconds, "start GB": before, "peak GB": _peak()}


def _use(given: argparse.Namespace) -> dict[str, Any]:
    """Instances of the photographs with what was learned; the first one also loads and compiles."""
    method, state = open_learner(given.method, given.out)
    features, own = Remembered(load(given.features, given.weights, "cpu")), _Clock()
    for number, image in enumerate(_photographs(given)):
        if number == 0:
            method.masks(image, *method.partition([method.prepare(image, features.patch_size)], features, state))
        prepared = method.prepare(image, features.patch_size)
        features(prepared[None])  # kept for the method
        with own:
            method.masks(image, *method.partition([prepared], features, state))
    return {"own": own.seconds, "peak GB": _peak()}


def _label(given: argparse.Namespace) -> dict[str, Any]:
    """Both passes of `pseudo_label` with so many workers and cores, timed by their progress bars."""
    from hassod_ros.discovery import pseudo_label

    pseudo_label.tqdm = _Watched  # type: ignore[attr-defined]  # the one place that knows when an image is done
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: given.workers])  # one worker alone would use more
    names = given.out.with_suffix(".txt")
    root, chosen = _named(given)
    names.write_text("".join(f"{(root / name).resolve()}\n" for name in chosen), encoding="utf-8")
    request = pseudo_label.Request(
        images=names,
        out=given.out,
        method="lightcluster",
        options=_own(make_method("lightcluster").config, given.set),
        features=given.features,
        weights=Path(given.weights) if given.weights else None,
        device="cpu",
        cpus=given.workers,
    )
    pseudo_label.pseudo_label(request)
    return {name: _rate(marks) for name, marks in _Watched.marks.items()}


class _Watched(tqdm):
    """A progress bar that notes when how much was done."""

    marks: ClassVar[dict[str, list[tuple[float, int]]]] = {}

    def update(self, n: float | None = 1) -> bool | None:
        shown = super().update(n)
        name = str(self.desc).partition(":")[0] or "labelling"
        self.marks.setdefault(name, []).append((time.perf_counter(), int(self.n)))
        return shown


def _rate(marks: list[tuple[float, int]]) -> float:
    """Images a second, once the workers stand."""
    begun = next(mark for mark in marks if mark[1] >= _BEGUN * marks[-1][1])
    return (marks[-1][1] - begun[1]) / (marks[-1][0] - begun[0])


_ROWS: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {"learn": _learn, "use": _use, "workers": _label}


def _learner(name: str, options: Sequence[str]) -> Learner:
    method = make_method(name, _own(make_method(name).config, options))
    assert isinstance(method, Learner)
    return method


def _own(config: Any, options: Sequence[str]) -> dict[str, Any]:
    """Those of the options that a method has."""
    given = dict(map(parse_option, options))
    own = {name: value for name, value in given.items() if hasattr(config, name.partition(".")[0])}
    change(config, own)
    return own


def _named(given: argparse.Namespace) -> tuple[Path, list[str]]:
    root, names = name_images(given.images)
    if len(names) < given.count:
        raise InputError(f"{given.images} has {len(names)} photographs; give more, or a smaller --count")
    return root, evenly(names, given.count)


def _photographs(given: argparse.Namespace) -> Any:
    root, names = _named(given)
    return (read_image(root / name) for name in names)


def _peak() -> float:
    """GB that this process has held at most; getrusage would start from its parent's."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition("VmHWM:")[2].split()[0]) / 1e6


def _parser() -> argparse.ArgumentParser:
    parser = script_parser("learners", __doc__)
    parser.add_argument("--images", type=Path, required=True, help="folder of photographs, or list")
    parser.add_argument("--count", type=int, default=150, help="of them, spread evenly")
    parser.add_argument("--features", default="handcrafted", help="as in pseudo_label.py")
    parser.add_argument("--weights", help="file of their weights (default: downloaded by name)")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="such as crf=null (default: none)"
    )
    parser.add_argument("--only", choices=[COSTS, WORKERS], help="one of the tables (default: both)")
    for name, kind in (("row", str), ("method", str), ("workers", int), ("out", Path)):  # of the processes
        parser.add_argument(f"--{name}", type=kind, help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    sys.exit(main())
