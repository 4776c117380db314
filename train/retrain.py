"""Last night's recordings in, a better model out: extract, label, fine-tune, export, judge, register, roll out.

Says first what it will do. A step that is done is not done again; a run that was stopped goes on where it stood.
Nobody labels: the running model votes with discovery. Ends with status 1 where the new model is refused; it is
registered then too, with the reason.

Example:
    python train/retrain.py last_night.mcap --registry models --from stable --replay photos --work runs/retrain
    python train/retrain.py last_night.mcap --registry models --nodes /r1/perception_node /r2/perception_node

"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hassod_ros.commands import number, run, script_parser
from hassod_ros.deploy.registry import NAME, REFUSED
from hassod_ros.errors import InputError
from hassod_ros.files import find_config

if TYPE_CHECKING:
    import argparse

_EXTRA = {"extract": "extract", "export": "to_onnx", "gate": "gate", "rollout": "rollout"}  # verb by option


def main(arguments: Sequence[str] | None = None) -> int:
    """Run; the status is that of `commands.run`, or 1 where the new model is refused."""
    options = build_parser().parse_args(arguments)
    refused = [False]

    def work() -> None:
        from hassod_ros.chain.retrain import Retrain, retrain

        extra = {name: _words(name, getattr(options, name)) for name in _EXTRA}
        if options.topics:
            extra["extract"] += ("--topics", *options.topics)
        task = Retrain(
            tuple(options.sources),
            options.registry,
            options.work,
            options.recipe or find_config("recipes/retrain.yaml"),
            start=options.start,
            weights=options.weights,
            name=options.name,
            labels=options.labels,
            features=options.features,
            replay=options.replay,
            changes=tuple(options.changes),
            keep=options.keep,
            nodes=tuple(options.nodes),
            **extra,
        )
        version = retrain(task)
        refused[0] = version.status == REFUSED
        print(f"{version} is {version.status}; see {version.folder / 'report.html'}")

    # Registered and rolled out is after hours.
    return run("retrain", work, writes=(options.registry, options.work)) or int(refused[0])


def build_parser() -> argparse.ArgumentParser:
    """The script's options."""
    parser = script_parser("retrain", __doc__)
    parser.add_argument(
        "sources", type=Path, nargs="+", metavar="BAG", help="recording, video, or folder of images; several"
    )
    parser.add_argument("--registry", type=Path, required=True, metavar="FOLDER", help="folder of the registry")
    parser.add_argument(
        "--from",
        dest="start",
        default="stable",
        metavar="VERSION",
        help="alias or number to start from, or a model file, or default, which is then registered first",
    )
    parser.add_argument(
        "--weights", type=Path, metavar="FILE", help="checkpoint of that model (default: as registered with it)"
    )
    parser.add_argument("--name", default=NAME, help="of the line of models")
    parser.add_argument("--work", type=Path, default=Path("runs", "retrain"), metavar="FOLDER", help="of the steps")
    parser.add_argument(
        "--topics", nargs="+", default=[], metavar="TOPIC", help="only these image topics (default: all)"
    )
    parser.add_argument(
        "--labels",
        choices=("vote", "model", "discovery"),
        default="vote",
        help="running model and discovery, the model alone (faster), or discovery alone where the domain is new",
    )
    parser.add_argument("--features", default="handcrafted", help="of discovery, see pseudo_label")
    parser.add_argument(
        "--replay",
        type=Path,
        metavar="FOLDER",
        help="pictures of the old domain, a fifth of them for the gate alone (default: none)",
    )
    parser.add_argument(
        "--recipe", type=Path, metavar="FILE", help="of the fine-tuning (default: config/recipes/retrain.yaml)"
    )
    parser.add_argument(
        "--set",
        dest="changes",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="setting of the recipe, such as burn_in.iterations=200; repeatable",
    )
    parser.add_argument(
        "--keep",
        type=number(0, 1),
        default=0.7,
        metavar="SHARE",
        help="of the running model in the mean of its weights and the trained ones, in [0, 1]: more forgets less, and "
        "learns less",
    )
    for name, verb in _EXTRA.items():
        parser.add_argument(f"--{name}", default="", metavar="'OPTIONS'", help=f"more options of {verb}, in one word")
    parser.add_argument(
        "--nodes", nargs="+", default=[], metavar="[HOST=]NODE", help="to roll an accepted model out to (default: none)"
    )
    return parser


def _words(name: str, text: str) -> tuple[str, ...]:
    try:
        return tuple(shlex.split(text))
    except ValueError as error:
        raise InputError(f"--{name} {text!r} has a quotation mark that is not closed ({error}); close it") from error


if __name__ == "__main__":
    sys.exit(main())
