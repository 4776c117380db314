r"""Pre-train the features of discovery on raw photographs: a small ViT, one file, no labels.

python train/pretrain_features.py --config config/recipes/features.yaml --images photos --output runs/features
python train/pseudo_label.py --images photos --out labels.json \
    --features tiny --weights runs/features/features.safetensors

Started again with the same values, a run that was stopped goes on where it stood.
"""

import sys

from hassod_ros.errors import InputError
from hassod_ros.packages import required

with required("train"):
    from hassod_ros.learning.config import read_settings
    from hassod_ros.learning.pretraining.config import PretrainConfig


def main(argv: list[str] | None = None) -> int:
    """Run; 2 where the input is wrong."""
    try:
        config = read_settings(
            PretrainConfig,
            sys.argv[1:] if argv is None else argv,
            prog="pretrain_features",
            description=__doc__ or "",
        )
        with required("train"):  # lightly loads slowly: --help answers without it
            from hassod_ros.learning.pretraining.run import pretrain

        print(pretrain(config))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
