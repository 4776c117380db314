"""Judge pictures by a reference: OK, NG with reasons, or UNDECIDED, and a report that needs nothing but a browser.

Example:
    hassod_ros inspect pictures/ --reference part.npz --report report/

"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

from hassod_ros import commands
from hassod_ros.files import write_text
from hassod_ros.images import list_images, read_image
from hassod_ros.inspection.eye import open_eye
from hassod_ros.inspection.inspector import Inspector
from hassod_ros.inspection.journal import describe
from hassod_ros.inspection.reference import learn, load
from hassod_ros.inspection.report import Inspected, inspected, render
from hassod_ros.inspection.verdict import Result

NAME = "inspect"


def build_parser() -> argparse.ArgumentParser:
    """The script's options."""
    parser = commands.script_parser(NAME, __doc__)
    parser.add_argument("pictures", help="folder (or list) of pictures, or one picture")
    parser.add_argument("--reference", required=True, help="an .npz file of learn_reference")
    parser.add_argument("--report", metavar="DIR", help="write DIR/report.html and DIR/verdicts.jsonl (default: none)")
    parser.add_argument("--model", default="default", help="the detector that the reference was learned with")
    parser.add_argument("--backend", default="auto", help="what runs it")
    parser.add_argument("--margin", type=float, help="times the worst of the good pictures (default: the reference's)")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Inspect; see `commands.run` for the exit status."""
    given = build_parser().parse_args(arguments)
    return commands.run(NAME, lambda: work(given), writes=(given.report,), after_stop="no report was written")


def work(given: argparse.Namespace) -> None:
    """Judge the pictures one by one."""
    reference = load(given.reference)
    settings = reference.settings
    if given.margin is not None:
        settings = replace(settings, margin=given.margin)
    paths = list_images(given.pictures)
    eye = open_eye(given.model if reference.model_sha256 else "none", given.backend)
    if eye is not None and eye.sha256 != reference.model_sha256:
        print("  the model is not the one that the reference was learned with: learning it anew from its pictures")
        reference = learn(
            reference.pictures,
            reference.settings,
            name=reference.name,
            names=reference.names,
            observe=eye.observe,
            model_sha256=eye.sha256,
        )
    inspector = Inspector(reference, eye.observe if eye else None, settings)
    counts: Counter[Result] = Counter()
    parts: list[Inspected] = []
    lines: list[str] = []
    for i, path in enumerate(paths, start=1):
        commands.reached(f"{i - 1} of {len(paths)} pictures")
        picture = read_image(path)
        verdict = inspector(picture)
        counts[verdict.result] += 1
        print(f"{path.name}: {verdict.result.name} {verdict.score:.2f} {verdict.sentence}", flush=True)
        if given.report:
            parts.append(inspected(path.name, picture, verdict))
            lines.append(json.dumps({"picture": path.name, **describe(verdict)}))
    print(", ".join(f"{result.name} {counts[result]}" for result in (Result.OK, Result.NG, Result.UNDECIDED)))
    if given.report:
        folder = Path(given.report)
        write_text(folder / "report.html", render(reference, parts, settings.margin))
        write_text(folder / "verdicts.jsonl", "\n".join(lines) + "\n")
        print(f"wrote {folder / 'report.html'}")


if __name__ == "__main__":
    sys.exit(main())
