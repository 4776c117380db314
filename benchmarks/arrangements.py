"""Who is whose part: the ancestor head of trained Mask2Formers beside coverage, the same masks of annotated pictures.

Rows arrange a checkpoint's masks by the head alone, by the head where masks cover each other too, and by coverage
alone. `--labels` adds SOHES' labels of the same pictures, which are what such a detector learned from elsewhere.

Sets that state parts and wholes have pairs. Where annotators drew a picture on their own (BSDS500), the drawing of the
fewest segments gives the wholes and that of the most the parts, see `coarse_and_fine`; recall is then of these two
drawings together.

Example:
    python benchmarks/arrangements.py --checkpoint small=model.pth --data parts_dev.json:images --data val.json.gz:val

"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torchvision.transforms.v2 import functional

from hassod_ros.coco import to_coco
from hassod_ros.commands import run, script_parser, whole_number
from hassod_ros.detection.base import Detector, InstanceOptions
from hassod_ros.detection.checkpoints import open_detector
from hassod_ros.detection.input_size import input_size
from hassod_ros.discovery.features import load_features, suited_options
from hassod_ros.discovery.features.base import HANDCRAFTED
from hassod_ros.discovery.method import instances_of, make_method
from hassod_ros.discovery.pseudo_label import warm_up
from hassod_ros.evaluation.annotations import AnnotatedSet, Picture, parse_predictions
from hassod_ros.evaluation.evaluate import evaluate
from hassod_ros.evaluation.matching import containment
from hassod_ros.evaluation.report import clean
from hassod_ros.evaluation.sets import add_sets, chosen_sets
from hassod_ros.evaluation.tables import format_table
from hassod_ros.files import revision, write_json
from hassod_ros.hierarchy import coverage_forest
from hassod_ros.images import read_image
from hassod_ros.instances import Instances
from hassod_ros.spanning import as_sure

COVERS = (0.5, 0.75, 0.9)  # the first is the default of the head
COLUMNS = ("AR@10", "AR@100", "AR_small", "AP", "pair_precision", "pair_recall", "pair_F1", "pairs")
LABELS = "SOHES' labels"
INSIDE = 0.9  # share of a fine segment that lies in the coarse one it is a part of

Finder = Callable[[np.ndarray], Mapping[str, Instances]]  # an image -> its instances by the name of a row


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; the status is that of `commands.run`."""
    parser = script_parser("arrangements", __doc__)
    parser.add_argument("--checkpoint", action="append", default=[], metavar="NAME=PTH", help="may be given again")
    add_sets(parser, every=10)
    parser.add_argument("--short-side", type=int, default=160, help="shorter side of the network's input, px")
    parser.add_argument("--max-side", type=int, default=256, help="most pixels of the longer side")
    parser.add_argument("--labels", action="store_true", help="also SOHES' labels, handcrafted features")
    parser.add_argument("--most", type=whole_number(1), help="of them the likeliest of an image (default: all)")
    parser.add_argument("--out", help="JSON file for all figures")
    options = parser.parse_args(arguments)
    return run("arrangements", lambda: work(options), after_stop="nothing of this set was kept")


def work(options: argparse.Namespace) -> None:
    """A table for each set."""
    torch.set_num_threads(1)
    finders = [
        _of_checkpoint(name, open_detector(path), options.short_side, options.max_side)
        for name, _, path in (each.partition("=") for each in options.checkpoint)
    ]
    finders += [_of_labels(options.most)] if options.labels else []
    figures: dict[str, Any] = {"code": revision(), "sets": {}}
    for text, annotated, folder in chosen_sets(options):
        pictures = [coarse_and_fine(picture) for picture in annotated.pictures]
        rows = measure(finders, replace(annotated, pictures=pictures), folder)
        print(f"\n{text}: {len(pictures)} images, masks, per cent")
        print(format_table(rows, COLUMNS), flush=True)
        figures["sets"][text] = {"images": len(pictures), "rows": rows}
        if options.out:
            write_json(options.out, clean(figures), indent=1)


@torch.no_grad()
def measure(finders: list[Finder], annotated: AnnotatedSet, folder: Path) -> dict[str, dict[str, Any]]:
    """Figures by the name of a row."""
    found: dict[str, list[dict[str, Any]]] = {}
    for number, picture in enumerate(annotated.pictures, start=1):
        image = read_image(folder / picture.file_name)
        for find in finders:
            for name, instances in find(image).items():
                entries = found.setdefault(name, [])
                entries += to_coco(instances, picture.image_id, first_id=len(entries) + 1)
        print(f"\r{number} of {len(annotated.pictures)} images", end="", file=sys.stderr, flush=True)
    return {
        name: (scores := evaluate(annotated, parse_predictions(entries, annotated))["mask"])
        | {key: value for key, value in scores["parents"].items() if "pair" in key}
        for name, entries in found.items()
    }


def ways(detector: Detector, image: np.ndarray, short_side: int, max_side: int) -> dict[str, Instances]:
    """The same masks of an image, arranged by the head, by head and coverage, and by coverage alone."""
    size = image.shape[0], image.shape[1]
    view = input_size(size, short_side, max_side)
    pixels = functional.resize(torch.from_numpy(image).permute(2, 0, 1), list(view))
    (predictions,) = detector(pixels[None].float())
    alone = predictions.to_instances(size, InstanceOptions(cover=0.0))
    found = {"ancestor head": alone}
    found |= {
        f"head and coverage {cover}": predictions.to_instances(size, InstanceOptions(cover=cover)) for cover in COVERS
    }
    for cover in COVERS[1:]:
        allowed = as_sure(alone.scores)
        parents, levels = coverage_forest(alone.regions, alone.masks, cover=cover, allowed=allowed)
        found[f"coverage {cover}"] = replace(alone, parents=parents, levels=levels)
    return found


def coarse_and_fine(picture: Picture) -> Picture:
    """Two drawings of a picture as one tree of two levels; a picture of one annotator stays as it is.

    The drawing of the fewest segments is the coarse one, that of the most the fine one, the first on ties. A fine
    segment is a part of the coarse one that contains `INSIDE` of it, unless it fills as much of that: then both are the
    same thing, and only the coarse one stays.
    """
    truth = picture.truth
    annotators, counts = np.unique(truth.annotators, return_counts=True)
    if len(annotators) < 2:
        return picture
    coarse, fine = (np.flatnonzero(truth.annotators == annotators[at]) for at in (counts.argmin(), counts.argmax()))
    wholes, parts = truth.select(coarse), truth.select(fine)
    inside = containment(parts, wholes, "mask") >= INSIDE
    own = ~(inside & (containment(wholes, parts, "mask").T >= INSIDE)).any(axis=1)
    parents = np.where(inside.any(axis=1), inside.argmax(axis=1), -1)[own]
    both = truth.select(np.concatenate([coarse, fine[own]]))
    parents = np.concatenate([np.full(len(coarse), -1, np.int64), parents])
    return replace(picture, source=replace(both, parents=parents, annotators=np.zeros(len(both), np.int64)))


def _of_checkpoint(name: str, detector: Detector, short_side: int, max_side: int) -> Finder:
    return lambda image: {f"{name}, {way}": each for way, each in ways(detector, image, short_side, max_side).items()}


def _of_labels(most: int | None) -> Finder:
    features = load_features(HANDCRAFTED)
    method = make_method("sohes", {**suited_options(HANDCRAFTED), "most": most})
    warm_up(method)
    return lambda image: {LABELS: instances_of(image, method, features)}


if __name__ == "__main__":
    raise SystemExit(main())
