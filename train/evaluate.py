"""Score predictions, pseudo-labels or a model on a COCO-format set, class-agnostically; or foreground and its classes.

Example:
    python train/evaluate.py --annotations instances.json --images images --predictions labels.json --report report
    python train/evaluate.py --task saliency --annotations ECSSD --method tokencut --features vit_small_patch16_224.dino
    python train/evaluate.py --task segmentation --annotations VOC2012 --method lightcluster --state voc.npz

"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from hassod_ros.commands import number, run, script_parser, whole_number
from hassod_ros.errors import InputError
from hassod_ros.files import revision, sha256, write_json
from hassod_ros.packages import required
from hassod_ros.runtime.model_names import TRAINING_FREE, resolve_model

with required():
    from hassod_ros.discovery.features import DEFAULT
    from hassod_ros.discovery.method import parse_option
    from hassod_ros.evaluation.annotations import load_annotations, load_predictions, parse_predictions
    from hassod_ros.evaluation.evaluate import evaluate
    from hassod_ros.evaluation.foreground_methods import NAMES, load, open_method
    from hassod_ros.evaluation.foreground_tasks import TASKS, load_set, score_maps_of, score_method
    from hassod_ros.evaluation.predict import Finder, open_checkpoint, open_exported, predict, written
    from hassod_ros.evaluation.report import write_report
    from hassod_ros.evaluation.tables import format_scores, format_table

MASKS = "masks"  # the task of instances
_PICTURES_A_PROCESS = 200  # a process takes seconds to start


def main(arguments: Sequence[str] | None = None) -> int:
    """Run; the status is that of `commands.run`."""
    options = build_parser().parse_args(arguments)
    if options.task == MASKS:
        work, kept = score, "what was predicted is kept"
    else:
        work, kept = score_foreground, "nothing was kept"
    return run("evaluate", lambda: work(options), writes=(options.report,), after_stop=kept)


def score(options: argparse.Namespace) -> None:
    """Read or make the predictions, score them, print the tables, write the report."""
    if options.method:
        raise InputError(f"--method is for --task {', '.join(TASKS)}; give --predictions, --model or --checkpoint")
    annotated = load_annotations(options.annotations, options.images)
    facts = {"annotations": options.annotations, "code": revision()}
    if Path(options.annotations).is_file():
        facts["annotations sha256"] = sha256(options.annotations)
    if options.predictions:
        predictions = load_predictions(options.predictions, annotated)
        facts["predictions"] = options.predictions
        if Path(options.predictions).is_file():
            facts["predictions sha256"] = sha256(options.predictions)
    else:
        if options.images is None:
            raise InputError("a model needs the images; give their folder with --images")
        model = _file_of(options.model) if options.model else options.checkpoint
        find = open_exported(model) if options.model else _open_checkpoint(options)
        facts |= {"model": model, "model sha256": sha256(model)}
        results = predict(find, annotated, options.images)
        if options.report:
            results = written(results, Path(options.report) / "predictions.json")
        predictions = parse_predictions(results, annotated)
    start = time.perf_counter()
    processes = options.processes or min(os.cpu_count() or 1, 1 + len(annotated.pictures) // _PICTURES_A_PROCESS)
    scores = evaluate(
        annotated,
        predictions,
        max_detections=options.max_detections,
        min_area=options.min_area,
        processes=processes,
    )
    seconds = time.perf_counter() - start
    print(format_scores(scores))
    print(f"\nscored in {seconds:.1f} s, {len(annotated.pictures) / seconds:.0f} images/s")
    if options.report:
        source = options.predictions or options.model or options.checkpoint
        title = f"{Path(source).name} on {Path(options.annotations).name}"
        page = write_report(
            options.report, scores, annotated, predictions, images=options.images, title=title, facts=facts
        )
        print(f"report: {page}")


def score_foreground(options: argparse.Namespace) -> None:
    """Score a method or its maps in one of the foreground tasks; print the figures, write them with --report."""
    if not (options.method or options.predictions):
        raise InputError(f"--task {options.task} scores a --method or the maps of a folder, given with --predictions")
    path = Path(options.annotations)
    examples = load_set(options.task, path, Path(options.images) if options.images else None)
    facts = {"task": options.task, "annotations": str(path), "images": len(examples.examples), "code": revision()}
    if options.predictions:
        scores = score_maps_of(options.task, examples, Path(options.predictions))
        facts["predictions"] = str(options.predictions)
    else:
        features = load(options.features, options.weights)
        settings = dict(map(parse_option, options.set))
        find, classes = open_method(options.method, features, options.state, settings)
        voc = options.task == "retrieval" and (path / "SegmentationClass").is_dir()
        bank = load_set(options.task, path, split="train") if voc else None
        scores = score_method(options.task, examples, find, classes=classes, bank=bank, label=options.method)
        facts |= {"method": options.method, "features": features.name, "weights sha256": features.weights_sha256}
        facts |= {"state sha256": sha256(options.state)} if options.state else {}
    left_out = f"; {examples.left_out} without annotation were left out" if examples.left_out else ""
    print(f"{options.task}: {len(examples.examples)} images of {path}{left_out}")
    name = options.method or Path(options.predictions).name
    print(format_table({name: scores}, scores))
    if options.report:
        write_json(Path(options.report) / "metrics.json", {"facts": facts, "scores": scores}, indent=1)


def _file_of(model: str) -> str:
    """The exported file that a name or path stands for."""
    path = resolve_model(model, report=print)
    if path == TRAINING_FREE:
        raise InputError("training_free is no file; make labels with pseudo_label and give them with --predictions")
    return path


def _open_checkpoint(options: argparse.Namespace) -> Finder:
    return open_checkpoint(
        options.checkpoint,
        published=options.published,
        network=options.network,
        short_side=options.short_side,
        max_side=options.max_side,
        max_detections=options.max_detections,
        nms=options.nms,
        mask_threshold=options.mask_threshold,
        color_weight=options.color_weight,
    )


def build_parser() -> argparse.ArgumentParser:
    """The script's options."""
    parser = script_parser("evaluate", __doc__)
    parser.add_argument(
        "--task",
        choices=[MASKS, *TASKS],
        default=MASKS,
        help="what is scored: instances, or foreground maps, one box, embeddings of regions, classes of pixels",
    )
    parser.add_argument(
        "--annotations",
        required=True,
        help="ground truth: COCO (.json, .json.gz), YOLO (data.yaml or folder), LabelMe (folder); of foreground tasks "
        "COCO or the folder of a published set",
    )
    parser.add_argument(
        "--images", help="folder that the file names are relative to (default: none; models and pictures need it)"
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--predictions", help="COCO results, pseudo-labels, a folder of such files or of maps")
    source.add_argument("--model", help="exported model: a file, default, or the name of one that was fetched")
    source.add_argument("--checkpoint", help="trained detector (.pth, .pkl, .safetensors)")
    source.add_argument("--method", choices=NAMES, help="of the foreground tasks (default: none)")
    parser.add_argument("--features", default=DEFAULT, help="that the method looks at, as in pseudo_label")
    parser.add_argument("--weights", help="file of weights of the features (default: downloaded by name)")
    parser.add_argument("--state", help="what the method has learned, .npz (default: none; methods that learn need it)")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="option of the method, such as size=320 or crf=null; repeatable (default: none)",
    )
    parser.add_argument("--published", action="store_true", help="the checkpoint is HASSOD's own: the paper's detector")
    parser.add_argument(
        "--network", choices=["student", "teacher"], default="student", help="of a checkpoint with both"
    )
    parser.add_argument("--short-side", type=whole_number(1), default=800, help="a checkpoint's input size in pixels")
    parser.add_argument("--max-side", type=whole_number(1), default=1333, help="limit of the longer side in pixels")
    parser.add_argument(
        "--processes",
        type=whole_number(1),
        help=f"that score side by side (default: one for every {_PICTURES_A_PROCESS} images, at most one a core)",
    )
    parser.add_argument(
        "--report", help="folder for report.html, metrics.json and a model's predictions.json (default: no report)"
    )
    parser.add_argument(
        "--nms", type=float, help="of a checkpoint: IoU in (0, 1] that excludes a detection (default: its own)"
    )
    parser.add_argument(
        "--mask-threshold",
        type=float,
        help="of a checkpoint: probability of a mask's pixels in (0, 1) (default: its own)",
    )
    parser.add_argument(
        "--color-weight",
        type=float,
        default=0.0,
        help="of a checkpoint: how far outlines follow colours, such as 3 (default: %(default)s, not)",
    )
    parser.add_argument("--max-detections", type=whole_number(1), default=1000, help="predictions an image")
    parser.add_argument("--min-area", type=number(0), default=0.0, help="ignore smaller annotations, in square pixels")
    return parser


if __name__ == "__main__":
    sys.exit(main())
