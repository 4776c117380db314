"""Give an exported detector the output `features`, which inspection compares parts with; its weights stay as they are.

Files of today's to_onnx have it already.

Example:
    python export/add_features.py old.onnx --images photos/ --out model.onnx

"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from hassod_ros.commands import run, script_parser


def build_parser() -> argparse.ArgumentParser:
    """The script's options."""
    parser = script_parser("add_features", __doc__)
    parser.add_argument("model", help="an .onnx file of to_onnx")
    parser.add_argument("--out", required=True, help="the new .onnx file; may be the same")
    parser.add_argument("--images", required=True, help="folder (or list) of photographs for parity")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Add the output; the status is that of `commands.run`."""
    given = build_parser().parse_args(arguments)

    def work() -> None:
        from hassod_ros.deploy.feature_output import add_features  # torch loads slowly: --help answers without it

        add_features(given.model, given.out, given.images)

    return run("add_features", work, writes=(Path(given.out).parent,), after_stop="nothing was written")


if __name__ == "__main__":
    sys.exit(main())
