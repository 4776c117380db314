"""Good pictures of a part -> a reference that inspection judges by. No bad picture is needed; three good ones will do.

Example:
    hassod_ros learn_reference good/ --out part.npz

"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from hassod_ros import commands
from hassod_ros.errors import InputError
from hassod_ros.images import list_images, read_image
from hassod_ros.inspection.eye import open_eye
from hassod_ros.inspection.reference import learn, load, save
from hassod_ros.inspection.settings import METHODS, Settings, parse_polygons

NAME = "learn_reference"


def build_parser() -> argparse.ArgumentParser:
    """The script's options."""
    defaults = Settings()
    parser = commands.script_parser(NAME, __doc__)
    parser.add_argument("pictures", help="folder (or list) of good pictures, 3 or more, of one camera")
    parser.add_argument("--out", required=True, help="the reference, an .npz file")
    parser.add_argument(
        "--append", metavar="REFERENCE", help="add the pictures to those of this reference (default: none)"
    )
    parser.add_argument("--model", default="default", help="exported detector; none: compare pixels and colours only")
    parser.add_argument("--backend", default="auto", help="what runs it")
    parser.add_argument("--method", choices=METHODS, default=defaults.method, help="aligned parts, or a texture")
    parser.add_argument(
        "--roi", type=int, nargs=4, metavar=("X", "Y", "W", "H"), help="look at this region only (default: all)"
    )
    parser.add_argument("--ignore", action="append", default=[], metavar="POLYGON", help='"x,y x,y x,y", not looked at')
    parser.add_argument("--position", type=float, default=defaults.position, help="pixels that edges may lie off")
    parser.add_argument("--angle", type=float, default=defaults.angle, help="degrees that the part may be turned")
    parser.add_argument("--margin", type=float, default=defaults.margin, help="times the worst of the good pictures")
    parser.add_argument(
        "--least-area", type=int, default=defaults.least_area, help="pixels; smaller spots do not count"
    )
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Learn; see `commands.run` for the exit status."""
    given = build_parser().parse_args(arguments)
    return commands.run(NAME, lambda: work(given), writes=(Path(given.out).parent,), after_stop="nothing was written")


def work(given: argparse.Namespace) -> None:
    """Learn a reference and say what it is worth."""
    if Path(given.out).suffix != ".npz":
        raise InputError(f"--out is {given.out}; a reference is an .npz file")
    settings = Settings(
        method=given.method,
        roi=None if given.roi is None else tuple(given.roi),
        ignore=parse_polygons(given.ignore),
        position=given.position,
        angle=given.angle,
        margin=given.margin,
        least_area=given.least_area,
    )
    old = load(given.append) if given.append else None
    paths = list_images(given.pictures)
    eye = open_eye(given.model, given.backend, report=_say)
    _say(f"reading {len(paths)} pictures")
    pictures, names = [read_image(path) for path in paths], [path.name for path in paths]
    if old is not None:
        pictures, names = [*old.pictures, *pictures], [*old.names, *names]
    reference = learn(
        pictures,
        settings if old is None else old.settings,
        name=Path(given.out).stem,
        names=names,
        observe=eye.observe if eye else None,
        model_sha256=eye.sha256 if eye else "",
        report=_say,
    )
    save(reference, given.out)
    sure, likely = reference.false_alarm_rate(settings.margin)
    _say(f"{len(reference.components)} components; light differed by up to {reference.light.max():.1f} %")
    _say(f"false alarms: about {likely:.1%} of good parts; at most {sure:.0%} without the margin")
    for name in reference.disagree:
        _say(f"look at {name}: it differs from the other good pictures, and sets no limit")
    print(f"wrote {given.out}")


def _say(line: str) -> None:
    print(f"  {line}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
