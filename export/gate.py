"""Is a new model at least as good as the running one? Asked without labels; writes figures and a page to look at.

FRAMES are pictures that neither model has learned from, in their order in time: a folder (one folder below for each
camera), a video or a recording. Ends with status 1 where the candidate is refused.

Example:
    python export/gate.py --running default --candidate new.onnx frames/held_back --out gate

"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

from hassod_ros.commands import number, run, script_parser, whole_number
from hassod_ros.deploy.gate import GateConfig, judge
from hassod_ros.deploy.gate_report import write_report
from hassod_ros.files import write_json
from hassod_ros.footage.store import as_neighbours
from hassod_ros.runtime.backends import BACKENDS

if TYPE_CHECKING:
    import argparse

REFUSED = 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Run; the status is that of `commands.run`, or 1 where the candidate is refused."""
    options = build_parser().parse_args(arguments)
    accepted = [True]

    def work() -> None:
        config = GateConfig(**{field.name: getattr(options, f"config.{field.name}") for field in fields(GateConfig)})
        frames = as_neighbours(options.frames, options.out / "frames")
        verdict = judge(
            options.running, options.candidate, frames, replay=options.pictures, config=config, backend=options.backend
        )
        write_json(options.out / "gate.json", verdict.to_json(), indent=1)
        write_report(
            options.out / "report.html", verdict, title=f"{Path(options.candidate).name} against the running model"
        )
        for check in verdict.checks:
            print(f"{'passed' if check.passed else 'FAILED'}  {check.sentence}")
        print(f"{'accepted' if verdict.accepted else 'refused'}; see {options.out / 'report.html'}")
        accepted[0] = verdict.accepted

    return run("gate", work, writes=(options.out,)) or (0 if accepted[0] else REFUSED)


def build_parser() -> argparse.ArgumentParser:
    """The script's options."""
    parser = script_parser("gate", __doc__)
    parser.add_argument("frames", type=Path, metavar="FRAMES", help="folder of images, video or recording")
    parser.add_argument("--running", required=True, metavar="MODEL", help="model file, or default")
    parser.add_argument("--candidate", required=True, metavar="MODEL", help="model file, or default")
    parser.add_argument(
        "--out", type=Path, default=Path("gate"), metavar="FOLDER", help="folder of gate.json, report.html"
    )
    parser.add_argument(
        "--pictures",
        type=Path,
        metavar="FOLDER",
        help="pictures of the old domain, for the recall of what the running model is sure of (default: FRAMES)",
    )
    parser.add_argument("--backend", default="auto", choices=("auto", *BACKENDS), help="what runs the models")
    about = {
        "consistency": (number(0), "greatest loss of temporal and mirrored consistency"),
        "least": (number(0), "least ratio of instances and of covered area to the running model's"),
        "most": (number(0), "greatest ratio"),
        "recall": (
            number(0, 1),
            "least share of the running model's confident masks found again, relative to its own in the mirror",
        ),
        "confident": (number(0, 1), "share of the best score of a picture from which its masks are confident"),
        "latency": (number(0), "greatest ratio of times"),
        "frames": (whole_number(2), "most frames"),
        "replay": (whole_number(1), "most pictures of the old domain"),
    }
    for field in fields(GateConfig):
        name = "max_frames" if field.name == "frames" else "max_pictures" if field.name == "replay" else field.name
        kind, text = about[field.name]
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            dest=f"config.{field.name}",
            type=kind,
            default=field.default,
            metavar="N" if isinstance(field.default, int) else "X",
            help=text,
        )
    return parser


if __name__ == "__main__":
    sys.exit(main())
