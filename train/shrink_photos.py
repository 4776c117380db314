"""Shrink photographs to what training sees, for a machine that they must be carried to.

python train/shrink_photos.py --images photos --out pool --max-side 320
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from PIL import Image

from hassod_ros.commands import run, script_parser
from hassod_ros.errors import InputError
from hassod_ros.files import write_json
from hassod_ros.footage.store import as_images
from hassod_ros.images import keep_apart, list_images, read_image

INDEX = "pool.json"
_JPEG = (".jpg", ".jpeg")


def build_parser() -> argparse.ArgumentParser:
    """The script's options."""
    parser = script_parser("shrink_photos", __doc__)
    parser.add_argument("--images", required=True, help="folder of photographs, or text file with one path a line")
    parser.add_argument("--out", required=True, help="folder to write: images/ and pool.json")
    parser.add_argument("--max-side", type=int, default=320, help="of the longer side in pixels")
    parser.add_argument("--quality", type=int, default=80, help="of JPEG, 1 to 95")
    parser.add_argument("--megabytes", type=int, default=60, help="largest size of the pool in MB")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run; the status is that of `commands.run`."""
    options = build_parser().parse_args(argv)

    def work() -> None:
        pool = shrink(
            as_images(options.images, Path(f"{options.out}.frames")),
            options.out,
            max_side=options.max_side,
            quality=options.quality,
            megabytes=options.megabytes,
        )
        print(f"{options.out}: {pool['photographs']} photographs, {pool['bytes'] / 1e6:.1f} MB")
        for reason in pool["left_out"]:
            print(f"left out: {reason}", file=sys.stderr)

    return run("shrink_photos", work)


def shrink(
    source: str | os.PathLike, folder: str | os.PathLike, *, max_side: int = 320, quality: int = 80, megabytes: int = 60
) -> dict[str, Any]:
    """Write each photograph as a JPEG whose longer side is at most `max_side`.

    JPEGs that are small enough are copied unchanged: shrinking a pool again gives the same pool.

    Args:
        source: Folder or list, see `list_images`.
        folder: Where the pictures go, under `images` and by their names below the folder that they have in common.
        max_side: In pixels.
        quality: Of JPEG, 1 to 95.
        megabytes: Largest size of the pool.

    Returns:
        Content of `pool.json`, which is written last: the settings, the number of `photographs`, their `bytes`, their
        `files` and what was `left_out` because it could not be read.

    Raises:
        InputError: A value is out of range, nothing can be read, the pool would be too large or cannot be written.

    """
    if max_side < 1 or not 1 <= quality <= 95 or megabytes < 1:
        raise InputError(
            f"a pool needs max_side >= 1, quality in 1..95 and megabytes >= 1, got {max_side}, {quality}, {megabytes}"
        )
    paths = list_images(source)
    common = Path(os.path.commonpath([path.resolve().parent for path in paths]))
    images = Path(folder) / "images"
    if images.resolve() in (common, *common.parents):
        raise InputError(f"{images} holds the photographs themselves; choose another folder for the pool")
    if Path(source).is_dir():
        keep_apart(folder, source)

    def write(path: Path) -> tuple[str, str]:
        name = path.resolve().relative_to(common)
        if name.suffix.lower() not in _JPEG:
            name = name.with_name(f"{name.name}.jpg")
        target = images / name
        try:
            pixels = Image.fromarray(read_image(path))
        except InputError as error:
            return name.as_posix(), str(error)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            if path.suffix.lower() in _JPEG and max(pixels.size) <= max_side:
                shutil.copyfile(path, target)
            else:
                pixels.thumbnail((max_side, max_side), Image.Resampling.LANCZOS)
                pixels.save(target, "JPEG", quality=quality)
        except OSError as error:
            raise InputError(f"cannot write {target} ({error.strerror or error}); choose another folder") from error
        return name.as_posix(), ""

    with ThreadPoolExecutor() as pool:
        written = list(pool.map(write, paths))
    files = sorted(name for name, error in written if not error)
    left_out = [error for _, error in written if error]
    if not files:
        raise InputError(f"none of {len(paths)} photographs in {source} can be read; the first: {left_out[0]}")
    size = sum((images / name).stat().st_size for name in files)
    if size > megabytes * 1_000_000:
        raise InputError(
            f"the pool in {folder} has {size / 1e6:.1f} MB, more than {megabytes}: lower max_side or quality, or give "
            "fewer photographs"
        )
    content = {
        "max_side": max_side,
        "quality": quality,
        "photographs": len(files),
        "bytes": size,
        "left_out": left_out,
        "files": files,
    }
    write_json(Path(folder) / INDEX, content, indent=1)
    return content


if __name__ == "__main__":
    sys.exit(main())
