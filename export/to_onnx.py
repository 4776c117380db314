"""Checkpoint -> one static ONNX file that ONNX Runtime and TensorRT run.

Example:
    python export/to_onnx.py model.pth --size 480x640 --images photos/ --out model.onnx

"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from hassod_ros.commands import number, run, script_parser, whole_number
from hassod_ros.deploy.export_options import TARGETS, ExportOptions
from hassod_ros.files import sha256
from hassod_ros.runtime.evidence import read_evidence
from hassod_ros.runtime.model_info import LEVEL_SOURCES, PRECISIONS


def parse_size(text: str) -> tuple[int, int]:
    """Read HEIGHTxWIDTH: 480x640 -> (480, 640)."""
    height, _, width = text.partition("x")
    if not (height.isdecimal() and width.isdecimal()):
        raise argparse.ArgumentTypeError(f"{text!r} is not HEIGHTxWIDTH, such as 480x640")
    return int(height), int(width)


def build_parser() -> argparse.ArgumentParser:
    """The script's options."""
    parser = script_parser("to_onnx", __doc__)
    parser.add_argument("checkpoint", help="weights: ours, or Detectron2's with --hassod")
    parser.add_argument("--out", required=True, help="the .onnx file")
    parser.add_argument(
        "--size", type=parse_size, default="480x640", help="HxW of the input in pixels, multiples of 32"
    )
    parser.add_argument("--images", required=True, help="folder (or list) of photographs for parity and calibration")
    parser.add_argument(
        "--proposals", type=whole_number(1), default=300, help="regions that go through a cascade's stages"
    )
    parser.add_argument(
        "--detections", type=whole_number(1), default=50, help="rows of the outputs; their masks cost most"
    )
    parser.add_argument("--batch", type=whole_number(1), default=1, help="images per call")
    parser.add_argument("--precision", choices=PRECISIONS, default="fp32", help="of the graph")
    parser.add_argument("--target", choices=TARGETS, default=TARGETS[0], help="of int8: whose instructions it suits")
    parser.add_argument("--store-half", action="store_true", help="fp32 whose weights lie in the file as float16")
    parser.add_argument(
        "--annotations", help="COCO file that fp16, int8 and --store-half are measured on (default: none)"
    )
    parser.add_argument("--annotated-images", help="folder of its images (default: none)")
    parser.add_argument(
        "--score-thresholds",
        type=number(0, 1),
        nargs=3,
        default=[0.5, 0.5, 0.5],
        metavar=("W", "P", "S"),
        help="recommended least score of wholes, parts and subparts, in [0, 1]",
    )
    parser.add_argument(
        "--sampling-ratio",
        type=whole_number(0),
        help="samples along the side of a pooled cell, 0: by its size (default: as trained)",
    )
    parser.add_argument("--rpn-nms", type=float, help="IoU of proposals that exclude each other (default: as trained)")
    parser.add_argument("--nms", type=float, help="IoU of detections that exclude each other (default: as trained)")
    parser.add_argument(
        "--mask-threshold", type=float, help="probability of a mask's pixels, in (0, 1) (default: as trained)"
    )
    parser.add_argument(
        "--levels", choices=LEVEL_SOURCES, default="head", help="who tells them: a cascade's level head, or masks"
    )
    parser.add_argument(
        "--color-weight", type=number(0), default=0.0, help="how far outlines follow the colours, such as 3"
    )
    parser.add_argument(
        "--evidence",
        help="constants by which the picture judges masks, such as config/evidence.json; they belong to one model's "
        "masks (default: none)",
    )
    parser.add_argument(
        "--parent-coverage",
        "--cover",  # its name before
        type=float,
        help="share of a mask that its parent must contain, in (0, 1] (default: 0.75; of a Mask2Former as trained)",
    )
    parser.add_argument("--recipe", default="", help="name of the training recipe, for the metadata")
    parser.add_argument("--hassod", action="store_true", help="the checkpoint is HASSOD's own (Detectron2)")
    parser.add_argument("--network", choices=("student", "teacher"), default="student", help="of a Mean Teacher file")
    return parser


def export_options(given: argparse.Namespace) -> ExportOptions:
    """What the command line wishes.

    Raises:
        InputError: It cannot be.

    """
    return ExportOptions(
        input_size=given.size,
        images=given.images,
        proposals=given.proposals,
        detections=given.detections,
        batch=given.batch,
        precision=given.precision,
        target=given.target,
        store_half=given.store_half,
        annotations=given.annotations,
        annotated_images=given.annotated_images,
        recipe=given.recipe,
        score_thresholds=tuple(given.score_thresholds),
        level_source=given.levels,
        parent_coverage=given.parent_coverage,
        color_weight=given.color_weight,
        evidence=read_evidence(given.evidence) if given.evidence else None,
    )


def main(arguments: list[str] | None = None) -> int:
    """Export; the status is that of `commands.run`."""
    given = build_parser().parse_args(arguments)
    if any(argument.partition("=")[0] == "--cover" for argument in arguments or sys.argv[1:]):
        print("to_onnx: --cover is called --parent-coverage now; rename it", file=sys.stderr)

    def work() -> None:
        options = export_options(given)
        # torch loads slowly: --help and wrong options are answered without it
        from hassod_ros.deploy.onnx_export import export_onnx
        from hassod_ros.detection.cascade.config import DetectorConfig
        from hassod_ros.detection.checkpoints import open_detector, read_config

        config: Any = DetectorConfig() if given.hassod else read_config(given.checkpoint)
        config = config.changed(
            rpn_nms=given.rpn_nms,
            nms=given.nms,
            mask_threshold=given.mask_threshold,
            sampling_ratio=given.sampling_ratio,
        )
        model = open_detector(given.checkpoint, config, network=given.network)
        export_onnx(model, given.out, options, weights_sha256=sha256(given.checkpoint))

    return run("to_onnx", work, writes=(Path(given.out).parent,), after_stop="nothing was written")


if __name__ == "__main__":
    sys.exit(main())
