"""SOHES' labels beside HASSOD's and beside divide and conquer: recall and time on annotated sets, same features.

Rows: HASSOD with its own three thresholds; SOHES as `pseudo_label` makes it; SOHES with one option changed at a time;
MaskCut with merging inside each of its masks, as UnSAM makes its labels (Wang et al., NeurIPS 2024, section 3).

Example:
    python benchmarks/sohes.py --data coco/instances_val.json:coco/val --features handcrafted --every 4

"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numba
import numpy as np

from hassod_ros.coco import to_coco
from hassod_ros.commands import run, script_parser
from hassod_ros.discovery.features import load_features, suited_options
from hassod_ros.discovery.features.base import HANDCRAFTED, Features
from hassod_ros.discovery.method import Method, instances_of, make_method
from hassod_ros.discovery.pseudo_label import warm_up
from hassod_ros.discovery.sohes import Crop, Sohes, SohesConfig, crops_around
from hassod_ros.evaluation.annotations import AnnotatedSet, parse_predictions
from hassod_ros.evaluation.evaluate import evaluate
from hassod_ros.evaluation.maskcut import cut_patches
from hassod_ros.evaluation.report import clean
from hassod_ros.evaluation.sets import add_sets, chosen_sets
from hassod_ros.evaluation.tables import MAIN, composition, format_table
from hassod_ros.files import revision, write_json
from hassod_ros.images import read_image

HASSOD = "hassod"
SOHES = "sohes"
DIVIDE = "divide and conquer"
TWICE = "twice the thresholds"
CROPS = "the paper's step"
PAPER: dict[str, Any] = {"tiles": [], "small": 0.01, "contours": False}
CHANGES: Mapping[str, Mapping[str, Any]] = {
    "mean": {"pooling": "mean"},
    "position 0.4": {"position": 0.4},
    "no contours": {"contours": False},
    "small 0.01": {"small": 0.01},
    "no tiles": {"tiles": []},
    "few tiles": {"tiles": [[1, 640], [2, 480]]},
    "the usual tiles": {"tiles": list(SohesConfig().tiles)},  # of other features than tiny
    CROPS: PAPER,
    f"{CROPS}, small 0.0025": PAPER | {"small": 0.0025},
    f"{CROPS}, small 0.04": PAPER | {"small": 0.04},
    f"{CROPS}, small 0.1": PAPER | {"small": 0.1},
    f"{CROPS}, margin 0": PAPER | {"margin": 0.0},
    "cover 0.8": {"cover": 0.8},
    "the paper's thresholds": {"thresholds": list(SohesConfig().thresholds)},
    "no crf": {"crf": None},
    "all steps of the crf": {"crf.stop_at": None},
    "whatever the crf makes": {"filters.min_overlap": 0.0},
    "duplicates stay": {"filters.duplicate_iou": None},
}
PAIRS = ("pair_precision", "pair_recall", "pair_F1")  # where annotations state who is whose part
LEVELS = ("whole right", "part right")
COLUMNS = (*MAIN, *LEVELS, "masks", "deepest", "s/image", "time")


class DivideAndConquer(Sohes):
    """MaskCut's masks, and the regions that merging finds inside each; refined, deduplicated and arranged as SOHES'."""

    def look(self, grid: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, list[Crop]]:
        """The masks of MaskCut as candidates, and a crop around each."""
        labels = np.zeros(grid.shape[1:], np.int32)
        masks = cut_patches(grid)
        for number, mask in enumerate(masks, start=1):
            labels[mask] = number
        crops = crops_around(labels, np.arange(1, len(masks) + 1), size, self.config.margin)
        return labels[None].astype(np.uint16)[: len(masks)], crops


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; the status is that of `commands.run`."""
    parser = script_parser("sohes", __doc__)
    add_sets(parser, every=4)
    parser.add_argument("--features", default=HANDCRAFTED, help="as for pseudo_label")
    parser.add_argument("--weights", help="as for pseudo_label")
    parser.add_argument("--rows", nargs="*", help="only these rows; the first is what times are compared with")
    parser.add_argument("--out", help="JSON file for all figures")
    options = parser.parse_args(arguments)
    return run("sohes", lambda: work(options), after_stop="nothing of this set was kept")


def work(options: argparse.Namespace) -> None:
    """Measure every row on every set, picture by picture in turn, and print a table a set."""
    numba.set_num_threads(1)
    cv2.setNumThreads(1)
    if "tiny" in options.features or "vit" in options.features:
        import torch

        torch.set_num_threads(1)
    features = load_features(options.features, options.weights if options.features != HANDCRAFTED else None)
    methods = {
        name: method for name, method in rows(options.features).items() if not options.rows or name in options.rows
    }
    for method in methods.values():
        warm_up(method)
    figures: dict[str, Any] = {"code": revision(), "features": options.features, "sets": {}}
    for text, annotated, folder in chosen_sets(options):
        table = measure(methods, features, annotated, folder)
        first = next(iter(table.values()))
        for row in table.values():
            row["time"] = f"{row['s/image'] / first['s/image']:.2f}x"
        print(f"\n{text}: {len(annotated.pictures)} images, {options.features} features, masks, per cent; one core")
        columns = [*COLUMNS, *(pair for pair in PAIRS if pair in first)]
        print(format_table({name: row | {"s/image": f"{row['s/image']:.2f}"} for name, row in table.items()}, columns))
        figures["sets"][text] = {"images": len(annotated.pictures), "rows": table}
        if options.out:
            write_json(options.out, clean(figures), indent=1)


def rows(features: str) -> dict[str, Method]:
    """The methods by the name of their row."""
    suited = suited_options(features, "sohes")
    own = suited.get("thresholds", list(SohesConfig().thresholds))
    between = sorted([*own, *((one + other) / 2 for one, other in itertools.pairwise(own))], reverse=True)
    twice = {"thresholds": between}
    changes = {**CHANGES, TWICE: twice}
    kept = {name: value for name, value in suited_options(features).items() if name != "thresholds"}  # its own three
    found = {HASSOD: make_method("hassod", kept), SOHES: make_method("sohes", suited)}
    found |= {f"sohes, {name}": make_method("sohes", {**suited, **change}) for name, change in changes.items()}
    divide = make_method("sohes", {**suited, "tiles": [], "contours": False})
    return found | {DIVIDE: DivideAndConquer(divide.config)}


def measure(
    methods: Mapping[str, Method], features: Features, annotated: AnnotatedSet, folder: Path
) -> dict[str, dict[str, Any]]:
    """Figures of each method; seconds are of the processor, masks and depth a mean and a largest value an image."""
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in methods}
    seconds, counts, depths = (dict.fromkeys(methods, 0.0) for _ in range(3))
    for number, picture in enumerate(annotated.pictures, start=1):
        image = read_image(folder / picture.file_name)
        for name, method in methods.items():
            start = time.process_time()
            found = instances_of(image, method, features)
            seconds[name] += time.process_time() - start
            counts[name] += len(found)
            depths[name] = max(depths[name], _depth(found.parents))
            results[name] += to_coco(found, picture.image_id, first_id=len(results[name]) + 1)
        print(f"\r{number} of {len(annotated.pictures)} images", end="", file=sys.stderr, flush=True)
    pictures = len(annotated.pictures)
    scores = {
        name: evaluate(annotated, parse_predictions(entries, annotated))["mask"] for name, entries in results.items()
    }
    return {
        name: scores[name]
        | {level: composition(scores[name])[level] for level in LEVELS}
        | {pair: scores[name]["parents"][pair] for pair in PAIRS if pair in scores[name].get("parents", {})}
        | {"masks": f"{counts[name] / pictures:.0f}", "deepest": f"{depths[name]:.0f}"}
        | {"s/image": seconds[name] / pictures}
        for name in methods
    }


def _depth(parents: np.ndarray) -> int:
    """Levels of the deepest tree; 0 without instances."""
    depth, at = 0, np.arange(len(parents))
    while len(at):
        depth, at = depth + 1, parents[at]
        at = at[at >= 0]
    return depth


if __name__ == "__main__":
    sys.exit(main())
