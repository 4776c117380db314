"""Fetch a published model by name, and export its detector for robots.

Without a name it lists what there is. The exported files lie in the user's cache, where `model: NAME` finds them.

Example:
    ros2 run hassod_ros fetch_model hassod-r50
    ros2 launch hassod_ros perception.launch.py model:=hassod-r50

"""

from __future__ import annotations

import argparse
import difflib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from hassod_ros.commands import run, script_parser
from hassod_ros.errors import InputError
from hassod_ros.files import write_text
from hassod_ros.runtime.published import PUBLISHED, SIZES, Published, exported_file, model_folder

if TYPE_CHECKING:
    from hassod_ros.detection.cascade.config import DetectorConfig


def build_parser() -> argparse.ArgumentParser:
    """The script's options."""
    parser = script_parser("fetch_model", __doc__)
    parser.add_argument("name", nargs="?", help=f"one of {', '.join(PUBLISHED)} (default: list them)")
    parser.add_argument("--accept-terms", action="store_true", help="of models whose terms have to be accepted")
    parser.add_argument("--sha256", default="", help="that the file must have (default: as at the first fetch)")
    parser.add_argument("--url", help="where the file is now (default: its authors' address)")
    parser.add_argument("--file", help="a file that was fetched by other means (default: none)")
    parser.add_argument("--images", help="folder of photographs for the gates (default: scikit-image's)")
    parser.add_argument("--calibrate", action="store_true", help="export int8 too, calibrated and judged on --images")
    parser.add_argument("--annotations", help="COCO file of --images, on which int8 is judged (default: none)")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Fetch and export; the status is that of `commands.run`."""
    given = build_parser().parse_args(arguments)
    return run("fetch_model", lambda: _work(given))


def _work(given: argparse.Namespace) -> None:
    if given.name is None:
        for name, published in PUBLISHED.items():
            print(f"{name}: {published.about}. Terms: {published.terms}")
        return
    if given.name not in PUBLISHED:
        near = difflib.get_close_matches(given.name, PUBLISHED, n=1, cutoff=0)[0]
        raise InputError(f"{given.name} is not published; the nearest is {near}, all are {', '.join(PUBLISHED)}")
    if given.calibrate and (given.images is None or given.annotations is None):
        raise InputError("--calibrate needs --images and their --annotations")
    published = PUBLISHED[given.name]
    print(f"{given.name}: {published.about}\nterms: {published.terms}", flush=True)
    if published.asks and not given.accept_terms:
        raise InputError(f"{given.name} comes on these terms: {published.terms}; if you agree, add --accept-terms")
    if published.detector:
        _require_torch(given.name)
    weights, fingerprint = _fetch(given, published)
    print(f"{weights}: SHA-256 {fingerprint}")
    if published.detector:
        _export(given, published, weights, fingerprint)
    else:
        from hassod_ros.detection.checkpoints import read_tensors

        print(f"{len(read_tensors(weights))} tensors; use it with --weights {weights}")


def _require_torch(name: str) -> None:
    try:
        import torch  # noqa: F401
        import torchvision  # noqa: F401
    except ImportError as error:
        raise InputError(
            f"exporting needs {error.name}: run pip install 'hassod_ros[train]' here, or on another machine "
            f"`ros2 run hassod_ros fetch_model {name}`, and copy its {exported_file(name, SIZES[0]).name} to "
            f"{model_folder()} on this one"
        ) from error


def _fetch(given: argparse.Namespace, published: Published) -> tuple[Path, str]:
    from hassod_ros.deploy.download import fetch, take_over
    from hassod_ros.detection.checkpoints import read_tensors

    target = model_folder() / "weights" / f"{given.name}.pth"
    if given.file:
        return target, take_over(Path(given.file), target, expected=given.sha256, check=read_tensors)
    return target, fetch(given.url or published.url, target, expected=given.sha256, check=read_tensors)


def _export(given: argparse.Namespace, published: Published, weights: Path, fingerprint: str) -> None:
    from hassod_ros.deploy.export_options import ExportOptions
    from hassod_ros.deploy.onnx_export import export_onnx
    from hassod_ros.detection.checkpoints import open_cascade
    from hassod_ros.photographs import bundled_photographs

    model = open_cascade(weights, _architecture(published), network="student")  # HASSOD evaluates the student
    images = given.images
    if images is None:
        images = model_folder() / "photographs.txt"
        write_text(images, "".join(f"{path}\n" for path in bundled_photographs()))
    for size in SIZES:
        for precision in ("fp32", "int8") if given.calibrate else ("fp32",):
            options = ExportOptions(
                input_size=size,
                images=images,
                precision=precision,
                annotations=given.annotations,
                annotated_images=given.images,
                recipe=given.name,
                level_source="head" if published.has_levels else "coverage",
            )
            target = exported_file(given.name, size, "-int8" if precision == "int8" else "")
            export_onnx(model, target, options, weights_sha256=fingerprint)
            print(f"{target}: model:={target.stem}, as `open_segmenter({target.stem!r})`", flush=True)
    print(f"ready: ros2 launch hassod_ros perception.launch.py model:={given.name}")


def _architecture(published: Published) -> DetectorConfig:
    from hassod_ros.detection.cascade.config import DetectorConfig

    return DetectorConfig(level_head=published.has_levels)


if __name__ == "__main__":
    sys.exit(main())
