r"""Pre-train the features of discovery on raw photographs: a small ViT, one file, no labels.

python train/pretrain_features.py --config config/recipes/features.yaml --images photos --output runs/features
python train/pseudo_label.py --images photos --out labels.json \
    --features tiny --weights runs/features/features.safetensors

Started again with the same values, a run that was stopped goes on where it stood.
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from hassod_ros.commands import run
from hassod_ros.footage.store import as_images
from hassod_ros.packages import required

with required():
    from hassod_ros.learning.config import read_settings, settings_parser
    from hassod_ros.learning.pretraining.config import PretrainConfig

if TYPE_CHECKING:
    import argparse


def build_parser() -> argparse.ArgumentParser:
    """The script's options."""
    return settings_parser(PretrainConfig, prog="pretrain_features", description=__doc__ or "")


def main(argv: list[str] | None = None) -> int:
    """Run; the status is that of `commands.run`."""
    argv = sys.argv[1:] if argv is None else argv

    def work() -> None:
        config = read_settings(PretrainConfig, argv, prog="pretrain_features", description=__doc__ or "")
        if config.images:
            images = as_images(config.images, Path(config.output) / "frames")
            config = dataclasses.replace(config, images=str(images))
        from hassod_ros.learning.pretraining.run import pretrain  # lightly loads slowly: --help answers without it

        print(pretrain(config))

    return run("pretrain_features", work)


if __name__ == "__main__":
    sys.exit(main())
