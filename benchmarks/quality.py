"""How good are masks, method beside method, on your own annotated sets.

Compares classical proposals, MaskCut, training-free discovery, files of predictions (such as pseudo-labels) and
exported models in one run.

Example:
    python benchmarks/quality.py --data coco/instances_val.json:coco/val --model shipped=model.onnx \
        --predictions labels=labels.json --images 100 --out quality.json

"""

from __future__ import annotations

import argparse
import functools
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from hassod_ros import commands
from hassod_ros.deploy.gate import evenly
from hassod_ros.discovery.features import load_features, suited_options
from hassod_ros.discovery.features.base import HANDCRAFTED, Features
from hassod_ros.discovery.hassod import HassodConfig, discover
from hassod_ros.discovery.method import change, instances_of, make_method, open_learner, parse_option
from hassod_ros.discovery.scene import SceneConfig, WithoutScene
from hassod_ros.discovery.states import describe
from hassod_ros.errors import InputError
from hassod_ros.evaluation import baselines
from hassod_ros.evaluation.annotations import AnnotatedSet, load_annotations, load_predictions, parse_predictions
from hassod_ros.evaluation.evaluate import evaluate
from hassod_ros.evaluation.maskcut import maskcut
from hassod_ros.evaluation.predict import Finder, open_checkpoint, open_exported, predict
from hassod_ros.evaluation.report import clean
from hassod_ros.evaluation.sets import find_set
from hassod_ros.evaluation.tables import COMPOSITION, MAIN, composition, format_table
from hassod_ros.files import revision, write_json
from hassod_ros.runtime.segmenter import open_segmenter

COLUMNS = (
    *MAIN,
    "best_iou@100",
    "covering",
    *COMPOSITION,
    "nested, all",
    "ECE",
    "an image",
    "s/image",
)
METHODS = (
    "whole",
    "slic_merging",
    "felzenszwalb_merging",
    "felzenszwalb",
    "maskcut",
    "training_free",  # HASSOD's first stage as a robot without a model runs it
    "discovery",  # HASSOD's first stage, with the paper's settings or those of --set: the pseudo-labels
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the status is that of `commands.run`."""
    options = _parser().parse_args(arguments)
    return commands.run("quality", lambda: run(options))


def run(options: argparse.Namespace) -> None:
    """Score every method on every set; print a table a set and write all figures."""
    sets = [find_set(text) for text in options.data]
    if options.predictions and len(sets) > 1:
        raise InputError("files of predictions belong to one set; give one --data with --predictions")
    finders = {row: find for name in options.methods for row, find in _method(name, options).items()}
    finders |= {name: open_exported(path) for name, path in map(_named, options.model)}
    finders |= {
        name: open_checkpoint(path, short_side=options.short_side) for name, path in map(_named, options.checkpoint)
    }
    files = dict(map(_named, options.predictions))
    figures: dict[str, Any] = {"code": revision(), "sets": {}}
    for truth, images in sets:
        whole_set = load_annotations(truth)
        annotated = _thin(whole_set, options.images)
        rows: dict[str, dict[str, Any]] = {}
        figures["sets"][str(truth)] = {"images": len(annotated.pictures), "rows": rows}
        for name, find in finders.items():
            start = time.perf_counter()
            results = list(predict(find, annotated, images, label=name))
            seconds = (time.perf_counter() - start) / len(annotated.pictures)
            scores = evaluate(annotated, parse_predictions(results, annotated), min_area=options.min_area)
            rows[name] = scores | {"s/image": seconds}
            _save(figures, options)  # the slow ones come last
        for name, path in files.items():
            rows[name] = evaluate(annotated, load_predictions(path, whole_set), min_area=options.min_area)
        print(f"\n{truth}: {len(annotated.pictures)} images, masks, per cent")
        print(format_table({name: _row(scores) for name, scores in rows.items()}, COLUMNS))
        _save(figures, options)


def _save(figures: dict[str, Any], options: argparse.Namespace) -> None:
    if options.out:
        write_json(options.out, clean(figures), indent=1)


def _row(scores: dict[str, Any]) -> dict[str, Any]:
    kind = scores["mask"] if "mask" in scores else scores["box"]
    return {
        **kind,
        **composition(kind),
        "ECE": kind["calibration"]["ECE"],
        "nested, all": kind["parents"]["of_all_parts"],
        "an image": f"{scores['counts']['predictions_per_image']:.1f}",
        "s/image": f"{scores['s/image']:.2f}" if "s/image" in scores else None,
    }


def _method(name: str, options: argparse.Namespace) -> dict[str, Finder]:
    """A method's rows: one, or one for each of several features."""
    if name in ("maskcut", "discovery"):
        rows: dict[str, Finder] = {}
        for each in options.features:
            apply: Callable[..., Any] = maskcut
            if name == "discovery":
                chosen = suited_options(each) | dict(map(parse_option, options.set))
                apply = functools.partial(discover, config=change(HassodConfig(), chosen))
            row = f"{name}, {each}" if len(options.features) > 1 else name
            features = load_features(each, weights=None if each == HANDCRAFTED else options.weights)
            rows[row] = functools.partial(apply, features=features)
            for learner, path in map(_named, options.scene if name == "discovery" else ()):
                rows[f"{row}, scene by {learner}"] = _without_scene(learner, path, features, options)
        return rows
    if name == "training_free":
        return {name: open_segmenter("training_free")}
    classical: dict[str, Callable[[np.ndarray], Any]] = {
        "whole": baselines.whole_image,
        "felzenszwalb": baselines.felzenszwalb_proposals,
        "felzenszwalb_merging": baselines.felzenszwalb_merging,
        "slic_merging": baselines.slic_merging,
    }
    return {name: classical[name]}


def _without_scene(learner: str, path: str, features: Features, options: argparse.Namespace) -> Finder:
    """Discovery as `pseudo_label --scene` makes labels."""
    knows, state = open_learner(learner, path)
    state.require(describe(features))
    scene = change(SceneConfig(), dict(map(parse_option, options.scene_set)))
    method = WithoutScene(make_method("hassod", dict(map(parse_option, options.set))), knows, scene)
    return functools.partial(instances_of, method=method, features=features, state=state)


def _named(text: str) -> tuple[str, str]:
    name, found, path = text.partition("=")
    if not found or not name or not path:
        raise InputError(f"{text} has no name; write NAME=FILE")
    return name, path


def _thin(annotated: AnnotatedSet, images: int | None) -> AnnotatedSet:
    """At most that many pictures, evenly spread over the set."""
    return AnnotatedSet(evenly(annotated.pictures, images or len(annotated.pictures)), annotated.has_masks)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Compare methods side by side on annotated sets.")
    parser.add_argument(
        "--data", action="append", required=True, metavar="JSON[:IMAGES]", help="COCO-format set; may be given again"
    )
    parser.add_argument("--methods", nargs="*", choices=METHODS, default=METHODS, help="default: all of them")
    parser.add_argument("--predictions", action="append", default=[], metavar="NAME=FILE", help="may be given again")
    parser.add_argument("--model", action="append", default=[], metavar="NAME=MODEL.onnx", help="may be given again")
    parser.add_argument("--checkpoint", action="append", default=[], metavar="NAME=FILE", help="may be given again")
    parser.add_argument("--short-side", type=int, default=800, help="of checkpoints' input, in pixels (default 800)")
    parser.add_argument(
        "--features",
        nargs="+",
        default=[HANDCRAFTED],
        help="of maskcut and discovery; each of several gets its rows (default: handcrafted)",
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="of discovery, as in pseudo_label.py"
    )
    parser.add_argument(
        "--scene",
        action="append",
        default=[],
        metavar="METHOD=STATE.npz",
        help="also discovery without what that method calls scene, as pseudo_label --scene; may be given again",
    )
    parser.add_argument(
        "--scene-set", action="append", default=[], metavar="NAME=VALUE", help="as pseudo_label --scene-set"
    )
    parser.add_argument("--weights", help="file of weights for all of them but handcrafted")
    parser.add_argument("--images", type=int, help="use so many images of each set, evenly spread (default all)")
    parser.add_argument("--min-area", type=float, default=0.0, help="ignore smaller annotations, in pixels (default 0)")
    parser.add_argument("--out", help="JSON file for all figures")
    return parser


if __name__ == "__main__":
    sys.exit(main())
