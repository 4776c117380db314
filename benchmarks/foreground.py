"""Foreground methods side by side on the same features: figures, seconds an image, memory.

Baselines need nothing; methods that learn need states, made by `pseudo_label --method lightcluster` or `train/heap.py`.

Example:
    python benchmarks/foreground.py --saliency ECSSD --corloc VOC2012 --features vit_small_patch16_224.dino \
        --state lightcluster=voc.lightcluster.npz --state heap=heap.npz --levels

"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from hassod_ros import commands
from hassod_ros.discovery.features.remembered import Remembered
from hassod_ros.discovery.lightcluster import LEVELS
from hassod_ros.discovery.method import parse_option
from hassod_ros.errors import InputError
from hassod_ros.evaluation.corloc import box_of_map, corloc
from hassod_ros.evaluation.foreground_baselines import BASELINES
from hassod_ros.evaluation.foreground_methods import Finder, load, open_method
from hassod_ros.evaluation.foreground_sets import ExampleSet, load_boxes, load_masks
from hassod_ros.evaluation.saliency import score_maps
from hassod_ros.evaluation.tables import format_table
from hassod_ros.files import revision, write_json
from hassod_ros.images import read_image


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the status is that of `commands.run`."""
    options = _parser().parse_args(arguments)
    return commands.run("foreground", lambda: _run(options))


def _run(options: argparse.Namespace) -> None:
    if not options.saliency and not options.corloc:
        raise InputError("give a set with --saliency or --corloc")
    features = Remembered(load(options.features, options.weights))
    finders = _finders(options, features)
    figures: dict[str, Any] = {"code": revision(), "features": features.name, "weights": features.weights_sha256}
    for task, given in (("saliency", options.saliency), ("corloc", options.corloc)):
        if not given:
            continue
        path, _, images = given.partition(":")
        examples = (load_masks if task == "saliency" else load_boxes)(Path(path), Path(images) if images else None)
        rows = _score(task, examples, finders, features)
        print(f"\n{task}, {features.name}: {len(examples.examples)} images of {path}; CPU seconds an image")
        print(format_table(rows, next(iter(rows.values()))))
        figures[task] = rows
    print(f"\npeak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB")
    if options.out:
        write_json(options.out, figures, indent=1)


def _finders(options: argparse.Namespace, features: Remembered) -> dict[str, Finder]:
    settings = dict(map(parse_option, options.set))
    plain = {key: value for key, value in settings.items() if key in ("size", "keep_aspect", "crf")}
    finders = {name: open_method(name, features, None, plain)[0] for name in BASELINES}
    for text in options.state:
        name, _, path = text.partition("=")
        finders[name] = open_method(name, features, path, settings)[0]
        if name == "lightcluster" and options.levels:
            for level in LEVELS:
                finders[f"{name}, {level}"] = open_method(name, features, path, {**settings, "levels": [level]})[0]
    return finders


def _score(
    task: str, examples: ExampleSet, finders: dict[str, Finder], features: Remembered
) -> dict[str, dict[str, Any]]:
    maps: dict[str, list[np.ndarray]] = {name: [] for name in finders}
    seconds = dict.fromkeys(finders, 0.0)
    truths = [each.truth() for each in examples.examples]
    features.seconds = 0.0
    for each in tqdm(examples.examples, desc=task, unit="image"):
        image = read_image(each.image)
        for name, find in finders.items():
            start, before = time.process_time(), features.seconds
            found = find(image).foreground
            seconds[name] += time.process_time() - start - (features.seconds - before)
            maps[name].append((found * 255).round().astype(np.uint8) if task == "saliency" else box_of_map(found))
    rows = {}
    for name, found_maps in maps.items():
        if task == "saliency":
            pairs = zip(found_maps, truths, strict=True)
            scores = score_maps((map_.astype(np.float32) / 255, truth) for map_, truth in pairs)
        else:
            scores = corloc(found_maps, truths)
        rows[name] = {**scores, "s/image": f"{seconds[name] / len(truths):.3f}"}
    rows["features alone"] = {"s/image": f"{features.seconds / len(truths):.3f}"}
    return rows


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Compare foreground methods on the same features.")
    parser.add_argument("--saliency", metavar="SET[:IMAGES]", help="masks, see evaluate --task saliency")
    parser.add_argument("--corloc", metavar="SET[:IMAGES]", help="boxes, see evaluate --task corloc")
    parser.add_argument("--features", default="handcrafted", help="as in pseudo_label.py (default: handcrafted)")
    parser.add_argument("--weights", help="file of their weights")
    parser.add_argument("--state", action="append", default=[], metavar="METHOD=FILE", help="may be given again")
    parser.add_argument("--levels", action="store_true", help="lightcluster's levels each alone as well")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="such as size=320 or crf=null")
    parser.add_argument("--out", help="JSON file for all figures")
    return parser


if __name__ == "__main__":
    sys.exit(main())
