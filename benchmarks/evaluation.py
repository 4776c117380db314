"""Scoring of large sets: synthetic pictures with many detections, from files to figures; time and memory.

Example:
    python benchmarks/evaluation.py --images 500 --detections 1000 --processes 2

"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hassod_ros.evaluation.annotations import load_annotations, load_predictions
from hassod_ros.evaluation.evaluate import evaluate
from hassod_ros.masks import run_lengths

_SIZE = (480, 640)  # (H, W) of a synthetic picture


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the files, score them, print a table."""
    parser = argparse.ArgumentParser(description="Time and memory of scoring a large set.")
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--detections", type=int, default=1000, help="of a picture (default 1000)")
    parser.add_argument("--annotations", type=int, default=20, help="of a picture (default 20)")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="that score (default: one a core)")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        truth, found = Path(folder) / "truth.json", Path(folder) / "found.json"
        _write(truth, found, options)
        rows = []
        start = time.perf_counter(), _cpu_seconds()
        annotated = load_annotations(truth)
        predictions = load_predictions(found, annotated)
        rows.append(("read", time.perf_counter() - start[0], _cpu_seconds() - start[1]))
        start = time.perf_counter(), _cpu_seconds()
        scores = evaluate(annotated, predictions, processes=options.processes)
        rows.append(("score", time.perf_counter() - start[0], _cpu_seconds() - start[1]))
        megabytes = found.stat().st_size / 1e6
    print(f"{options.images} pictures x {options.detections} detections ({megabytes:.0f} MB of JSON),", end=" ")
    print(f"{options.processes} processes; AR@1000 {scores['mask']['AR@1000']:.3f}")
    print(f"{'':8}{'seconds':>10}{'CPU s':>10}{'CPU ms / picture':>18}")
    for name, seconds, cpu in rows:
        print(f"{name:8}{seconds:10.1f}{cpu:10.1f}{1000 * cpu / options.images:18.1f}")
    own, others = (resource.getrusage(who).ru_maxrss / 1e6 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    print(f"peak memory: {own:.2f} GB of this process, {others:.2f} GB of the largest other one")
    return 0


def _cpu_seconds() -> float:
    return sum(os.times()[:4])


def _write(truth: Path, found: Path, options: argparse.Namespace) -> None:
    """Ellipses, and detections that are moved copies of them with scores that know how far."""
    rng = np.random.default_rng(0)
    images: list[dict[str, Any]] = [
        {"id": i + 1, "file_name": f"{i}.jpg", "height": _SIZE[0], "width": _SIZE[1]} for i in range(options.images)
    ]
    rows: list[dict[str, Any]] = []
    with open(found, "w", encoding="utf-8") as file:
        file.write("[")
        for image in images:
            centres = rng.uniform((0, 0), (_SIZE[1], _SIZE[0]), (options.annotations, 2))
            radii = np.exp(rng.uniform(np.log(6), np.log(140), (options.annotations, 2)))
            rows += _entries(image["id"], centres, radii, first=len(rows) + 1)
            shift = rng.uniform(0, 0.8, options.detections)
            chosen = rng.integers(0, options.annotations, options.detections)
            moved = centres[chosen] + shift[:, None] * radii[chosen] * rng.uniform(-1, 1, (options.detections, 2))
            for row, score in zip(_entries(image["id"], moved, radii[chosen], first=1), 1 - shift, strict=True):
                del row["id"]
                file.write(("" if file.tell() < 2 else ",\n") + json.dumps(row | {"score": round(float(score), 4)}))
        file.write("]")
    truth.write_text(json.dumps({"images": images, "annotations": rows}))


def _entries(image_id: int, centres: np.ndarray, radii: np.ndarray, first: int) -> list[dict]:
    low = np.clip(np.floor(centres - radii), 0, (_SIZE[1] - 1, _SIZE[0] - 1)).astype(np.int64)
    high = np.clip(np.ceil(centres + radii), low + 1, (_SIZE[1], _SIZE[0])).astype(np.int64)
    regions, masks = np.concatenate([low, high], axis=1), []
    for (x0, y0, x1, y1), (x, y), (a, b) in zip(regions.tolist(), centres, radii, strict=True):
        rows, columns = np.ogrid[y0:y1, x0:x1]
        mask = ((columns + 0.5 - x) / a) ** 2 + ((rows + 0.5 - y) / b) ** 2 <= 1
        mask[len(mask) // 2, mask.shape[1] // 2] = True  # never empty
        masks.append(mask.astype(np.uint8))
    codes = run_lengths(regions, masks, _SIZE)
    return [
        {
            "id": first + i,
            "image_id": image_id,
            "segmentation": {"size": list(_SIZE), "counts": code.decode()},
            "bbox": [x0, y0, x1 - x0, y1 - y0],
            "area": int(mask.sum()),
            "iscrowd": 0,
            "level": i % 3,
        }
        for i, (code, mask, (x0, y0, x1, y1)) in enumerate(zip(codes, masks, regions.tolist(), strict=True))
    ]


if __name__ == "__main__":
    sys.exit(main())
