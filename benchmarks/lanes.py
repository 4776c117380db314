"""Are the hand-written vector lanes of the CRF worth keeping? The same CRF over plain numba loops, side by side.

Each row runs in a process of its own, with one thread, and compiles for itself.

python benchmarks/lanes.py
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
import types
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numba import njit
from skimage import data

PHOTOS = ("astronaut", "coffee", "chelsea")
_LANES = 8
_NAME = "hassod_ros.discovery.crf.lanes"
_REPEATS = 3


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure both and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--row", choices=["lanes", "float32", "plain"], help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.row:
        print(json.dumps(_measure(options.row)))
        return 0
    found = {}
    for row in ("lanes", "float32", "plain"):
        with tempfile.TemporaryDirectory() as cache:
            environment = {**os.environ, "NUMBA_CACHE_DIR": cache, "NUMBA_NUM_THREADS": "1"}
            command = [sys.executable, __file__, "--row", row]
            done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
        found[row] = json.loads(done.stdout)
    titles = {"lanes": "vector lanes, float16", "float32": "vector lanes, float32", "plain": "plain numba, float32"}
    print(f"{'CPU ms an image (480 px, three thresholds)':44}" + "".join(f"{name:>12}" for name in PHOTOS) + "   ratio")
    for row, times in found.items():
        ratio = sum(times) / sum(found["lanes"])
        print(f"{titles[row]:44}" + "".join(f"{1000 * each:12.0f}" for each in times) + f"{ratio:8.2f}")
    return 0


def _measure(row: str) -> list[float]:
    if row == "plain":  # before anything imports the package, which would take the lanes themselves
        sys.modules[_NAME] = _plain_lanes()
    from hassod_ros.discovery.crf import refine_label_maps
    from hassod_ros.discovery.hassod import resize

    mean_field: Any = importlib.import_module("hassod_ros.discovery.crf.mean_field")
    assert (mean_field.add.__module__ == __name__) == (row == "plain")
    if row == "float32":
        mean_field.storage = lambda: np.float32

    seconds = []
    for seed, name in enumerate(PHOTOS):
        image = resize(np.ascontiguousarray(getattr(data, name)()[..., :3]), (480, 480))
        maps = np.stack([_patches(labels, seed + t) for t, labels in enumerate((30, 12, 6))])
        refine_label_maps(image, maps)
        best = np.inf
        for _ in range(_REPEATS):
            start = time.process_time()
            refine_label_maps(image, maps)
            best = min(best, time.process_time() - start)
        seconds.append(best)
    return seconds


def _patches(labels: int, seed: int) -> np.ndarray:
    centres = np.random.default_rng(seed).random((labels, 2)) * 60
    rows, columns = np.mgrid[:60, :60]
    grid = np.stack([rows, columns], axis=-1)
    nearest = ((grid[:, :, None] - centres) ** 2).sum(-1).argmin(-1)
    return np.unique(nearest, return_inverse=True)[1].reshape(60, 60).astype(np.int32)


def _plain_lanes() -> types.ModuleType:
    """The functions of `crf.lanes` as loops that the compiler is free to vectorise."""
    compiled: Any = njit(inline="always", fastmath={"contract"})
    package = find_spec("hassod_ros")
    assert package is not None
    assert package.origin is not None
    file = Path(package.origin).parent / "discovery" / "crf" / "lanes.py"
    spec: Any = importlib.util.spec_from_file_location(_NAME, file)
    lanes = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(lanes)
    module = types.ModuleType(_NAME)

    @compiled
    def copy(target, i, source, j):  # type: ignore[no-untyped-def]
        for k in range(_LANES):
            target[i + np.uint64(k)] = source[j + np.uint64(k)]

    @compiled
    def add(target, i, source, j, factor):  # type: ignore[no-untyped-def]
        for k in range(_LANES):
            target[i + np.uint64(k)] += factor * source[j + np.uint64(k)]

    @compiled
    def accumulate(target, i, source, j):  # type: ignore[no-untyped-def]
        peak = np.float32(0)
        for k in range(_LANES):
            value = source[j + np.uint64(k)]
            target[i + np.uint64(k)] += value
            peak = max(peak, abs(value))
        return peak

    @compiled
    def difference(target, i, new, j, old):  # type: ignore[no-untyped-def]
        peak = np.float32(0)
        for k in range(_LANES):
            value = new[j + np.uint64(k)] - old[i + np.uint64(k)]
            target[i + np.uint64(k)] = value
            peak = max(peak, abs(value))
        return peak

    @compiled
    def smooth(values, here, after, before, k):  # type: ignore[no-untyped-def]
        for lane in range(_LANES):
            n = np.uint64(lane)
            old = values[here + n]
            values[here + n] = old + np.float32(0.5) * (values[after + n] + before[k + n])
            before[k + n] = old

    @compiled
    def gather(target, i, source, corners, weights, start, count, stride, offset):  # type: ignore[no-untyped-def]
        row = start // np.uint64(count)
        for r in range(count):
            place = np.uint64(corners[row, r]) * stride + offset
            weight = weights[row, r]
            for k in range(_LANES):
                target[i + np.uint64(k)] += weight * source[place + np.uint64(k)]

    for name, function in {
        "copy": copy,
        "add": add,
        "accumulate": accumulate,
        "difference": difference,
        "smooth": smooth,
        "gather": gather,
        "lowest_bit": lanes.lowest_bit,  # one instruction each: numba has no other name for them
        "as_float": lanes.as_float,
        "LANES": _LANES,
        "storage": lambda: np.float32,
    }.items():
        setattr(module, name, function)
    return module


if __name__ == "__main__":
    sys.exit(main())
