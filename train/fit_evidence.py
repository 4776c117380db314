r"""Fit the constants by which the picture judges a model's masks (scores, scene, parents) to annotated pictures.

They belong to one model's masks: fit them again after training. A set of --data annotates every thing in its pictures;
where it tells things from stuff (COCO panoptic) scene is learned as well. A set of --parts annotates a few things with
their parts: it tells only which mask may be the parent of which. Some pictures of every set are held back; a table says
what the constants are worth on these, beside those that the model has.

Example:
    python train/fit_evidence.py model.onnx --data panoptic.json:IMAGES --parts car_parts.json:CARS \
        --out evidence.json --model-out judged.onnx

"""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hassod_ros.commands import run, script_parser
from hassod_ros.errors import InputError
from hassod_ros.files import atomic_path, write_json
from hassod_ros.packages import required

with required():
    from hassod_ros.deploy.gate import evenly
    from hassod_ros.evaluation.annotations import AnnotatedSet, Picture, load_annotations, parse_predictions
    from hassod_ros.evaluation.evaluate import evaluate
    from hassod_ros.evaluation.evidence_fit import QUESTIONS, find_examples, fit
    from hassod_ros.evaluation.predict import check_pictures, open_exported, predict
    from hassod_ros.evaluation.tables import COMPOSITION, composition, format_table
    from hassod_ros.runtime.evidence import CUES, MODELS, Evidence, read_evidence
    from hassod_ros.runtime.model_info import read_model_info
    from hassod_ros.runtime.model_names import resolve_model
    from hassod_ros.runtime.segmenter import Segmenter

_COLUMNS = ("AR@10", "AR@100", "ECE", *COMPOSITION)
_NOTHING = (0.0,) * (len(CUES) + 1)


def build_parser() -> argparse.ArgumentParser:
    """The script's options."""
    parser = script_parser("fit_evidence", __doc__)
    parser.add_argument("model", help="an .onnx file of to_onnx, or a name such as default")
    shape = "SET.json:IMAGES"
    parser.add_argument("--data", nargs="+", default=[], metavar=shape, help="sets in which every thing is annotated")
    parser.add_argument("--parts", nargs="+", default=[], metavar=shape, help="sets in which a few are, with parts")
    parser.add_argument("--out", type=Path, required=True, help="file of constants to write (.json), for to_onnx")
    parser.add_argument(
        "--model-out", type=Path, help="also write the model with these constants, .onnx (default: no model)"
    )
    parser.add_argument(
        "--only", nargs="+", choices=QUESTIONS, default=QUESTIONS, help="what to fit; the rest stays as it is"
    )
    parser.add_argument(
        "--start", type=Path, help="constants that stay where examples are too few (default: the model's)"
    )
    parser.add_argument(
        "--hold-back", type=float, default=0.2, help="share of the pictures that is kept for the table, from 0 to 0.5"
    )
    parser.add_argument("--images", type=int, default=0, help="pictures of each set, spread over it; 0: all")
    parser.add_argument(
        "--parts-right",
        type=float,
        default=0.85,
        help="share of the found parts that shall hang on something; the more, the fewer wholes stay wholes",
    )
    parser.add_argument("--strength", type=float, default=1.0, help="inverse of the ridge that keeps weights small")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run; the status is that of `commands.run`."""
    options = build_parser().parse_args(arguments)
    folders = [file.parent for file in (options.out, options.model_out) if file]
    return run("fit_evidence", lambda: work(options), writes=folders, after_stop="nothing was written")


def work(options: argparse.Namespace) -> None:
    """Look, fit, write, and say what it is worth."""
    if not options.data and not options.parts:
        raise InputError("there is nothing to fit to; give --data, --parts, or both")
    if not 0 <= options.hold_back <= 0.5:
        raise InputError(f"--hold-back is {options.hold_back}; give a share from 0 to 0.5")
    model = resolve_model(options.model)
    info = read_model_info(model)
    start = (
        read_evidence(options.start)
        if options.start
        else info.evidence or Evidence.from_mapping(dict.fromkeys(MODELS, _NOTHING))
    )
    learned, held_back = [], []
    sets = [(text, text in options.data, *_open(text, options.images)) for text in (*options.data, *options.parts)]
    for text, things, annotated, images in sets:
        kept, rest = _split(annotated, options.hold_back)
        print(f"{text}: {len(kept.pictures)} pictures to learn from, {len(rest.pictures)} held back")
        learned.append(find_examples(model, kept, images, things=things))
        held_back.append((text, rest, images))
    evidence, said = fit(learned, start, only=options.only, parts_right=options.parts_right, strength=options.strength)
    for name, line in said.items():
        print(f"{name}: {line}")
    write_json(options.out, dataclasses.asdict(evidence), indent=1)
    print(f"wrote {options.out}")
    if options.model_out:
        import onnx

        from hassod_ros.deploy.onnx_export import set_info  # torch loads slowly: --help answers without it

        graph = onnx.load(model)
        set_info(graph, dataclasses.replace(info, evidence=evidence))
        with atomic_path(options.model_out) as temporary:
            onnx.save(graph, temporary)
        print(f"wrote {options.model_out}")
    segmenter = open_exported(model)
    assert isinstance(segmenter, Segmenter)
    for text, rest, images in held_back:
        if rest.pictures:
            rows = {"before": info.evidence, "fitted": evidence}
            print(f"\n{text}, {len(rest.pictures)} pictures that were held back, masks, per cent")
            scores = {name: _scores(segmenter, constants, rest, images) for name, constants in rows.items()}
            print(format_table(scores, _COLUMNS))
    segmenter.close()


def _open(text: str, most: int) -> tuple[AnnotatedSet, Path]:
    truth, separator, images = text.rpartition(":")
    if not separator:
        raise InputError(
            f"{text!r} is no SET.json:IMAGES; give the annotations, a colon and the folder of the pictures"
        )
    annotated = load_annotations(truth, images)
    if most:
        annotated = AnnotatedSet(evenly(annotated.pictures, most), annotated.has_masks)
    if not annotated.has_masks:
        raise InputError(f"{truth} has boxes only, and evidence is fitted to masks; give a set with masks")
    check_pictures(annotated, images)
    return annotated, Path(images)


def _split(annotated: AnnotatedSet, share: float) -> tuple[AnnotatedSet, AnnotatedSet]:
    """By name: a picture of two sets is on one side in both."""
    sides: tuple[list[Picture], list[Picture]] = [], []
    for picture in annotated.pictures:
        sides[zlib.crc32(os.fsencode(Path(picture.file_name).name)) < share * 2**32].append(picture)
    kept, rest = (AnnotatedSet(side, annotated.has_masks) for side in sides)
    return kept, rest


def _scores(segmenter: Segmenter, constants: Evidence | None, annotated: AnnotatedSet, images: Path) -> dict[str, Any]:
    segmenter.options = dataclasses.replace(segmenter.options, evidence=constants)
    results = list(predict(segmenter, annotated, images, label="score"))
    values = evaluate(annotated, parse_predictions(results, annotated))["mask"]
    return {**values, **composition(values), "ECE": values["calibration"]["ECE"]}


if __name__ == "__main__":
    sys.exit(main())
