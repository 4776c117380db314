"""An exported float32 detector -> int8, for processors without a GPU; its recall is held against the float32 one's.

Example:
    python export/quantize.py model.onnx --images photos/ --annotations dev.json --annotated-images dev/ --out int8.onnx

"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from hassod_ros.commands import run, script_parser
from hassod_ros.deploy.export_options import TARGETS


def build_parser() -> argparse.ArgumentParser:
    """The script's options."""
    parser = script_parser("quantize", __doc__)
    parser.add_argument("model", help="a float32 .onnx file of to_onnx")
    parser.add_argument("--out", required=True, help="the int8 .onnx file")
    parser.add_argument("--images", required=True, help="folder (or list) of photographs that value ranges come from")
    parser.add_argument("--annotations", required=True, help="COCO file that the loss of recall is measured on")
    parser.add_argument("--annotated-images", required=True, help="folder of its images")
    parser.add_argument("--target", choices=TARGETS, default=TARGETS[0], help="whose instructions it suits")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Quantise; the status is that of `commands.run`."""
    given = build_parser().parse_args(arguments)

    def work() -> None:
        from hassod_ros.deploy.onnx_export import quantize_exported  # torch loads slowly: --help answers without it

        quantize_exported(
            given.model,
            given.out,
            given.images,
            given.annotations,
            given.annotated_images,
            target=given.target,
        )

    return run("quantize", work, writes=(Path(given.out).parent,), after_stop="nothing was written")


if __name__ == "__main__":
    sys.exit(main())
