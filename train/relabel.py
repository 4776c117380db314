r"""Self-training: label images by a trained detector, with outlines that follow the colours, as COCO JSON.

python train/relabel.py --checkpoint runs/small/mean_teacher/model.pth --images photos --out labels2.json
python train/detector.py --config config/recipes/small.yaml --data.images photos --data.annotations labels2.json \
    --burn_in.initial runs/small/mean_teacher/model.pth --burn_in.iterations 600

A killed run continues where it stopped when the same command is given again.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from hassod_ros.commands import run
from hassod_ros.errors import InputError
from hassod_ros.footage.store import as_images
from hassod_ros.packages import required

with required():
    from hassod_ros.learning.config import RelabelConfig, read_settings, settings_parser

if TYPE_CHECKING:
    import argparse


@dataclass(frozen=True)
class Command:
    """The command line.

    Attributes:
        checkpoint: Trained detector.
        images: Folder of images, text file with a path a line, recording or video.
        out: COCO JSON file to write; what failed is listed beside it.
        processes: That work side by side.
        device: auto: cuda where there is a GPU.
        relabel: Which findings become labels, and how.

    """

    checkpoint: str = ""
    images: str = ""
    out: str = ""
    processes: int = 1
    device: str = "auto"
    relabel: RelabelConfig = field(default_factory=RelabelConfig)


def build_parser() -> argparse.ArgumentParser:
    """The script's options."""
    return settings_parser(Command, prog="relabel", description=__doc__ or "")


def main(argv: list[str] | None = None) -> int:
    """Run; the status is that of `commands.run`."""
    argv = sys.argv[1:] if argv is None else argv

    def work() -> None:
        command = read_settings(Command, argv, prog="relabel", description=__doc__ or "")
        for name in ("checkpoint", "images", "out"):
            if not getattr(command, name):
                raise InputError(f"--{name} is missing; see relabel --help")
        # torch loads slowly: --help answers without it
        from hassod_ros.learning.annotations import packed
        from hassod_ros.learning.relabel import relabel

        out = Path(command.out)
        paths = (as_images(command.images, out.with_name(f"{out.stem}.frames")), Path(command.checkpoint), out)
        print(relabel(*paths, command.relabel, processes=command.processes, device=command.device))
        packed([out])  # the arrays that training maps

    return run("relabel", work)


if __name__ == "__main__":
    sys.exit(main())
