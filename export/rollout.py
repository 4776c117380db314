"""Let running nodes load a registered model: one first, watched by its diagnostics, the rest after.

Any failure puts every node back to what it ran. A call that was killed is finished by the same call.

Example:
    hassod_ros rollout --registry models --version 4 --nodes /r1/perception_node /r2/perception_node

"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from hassod_ros.commands import run, script_parser, whole_number
from hassod_ros.deploy.fleet import Options, Target, add_options
from hassod_ros.deploy.registry import REFUSED, Registry, check_alias
from hassod_ros.errors import InputError
from hassod_ros.packages import required_ros

if TYPE_CHECKING:
    import argparse


def main(arguments: Sequence[str] | None = None) -> int:
    """Run; the status is that of `commands.run`."""
    options = build_parser().parse_args(arguments)

    def work() -> None:
        registry = Registry(options.registry)
        version = registry.resolve(options.version, options.name)
        if version.status == REFUSED and not options.force:
            raise InputError(f"{version} was refused ({version.record.get('reason')}); insist with --force")
        if options.alias:
            check_alias(options.alias)
        with required_ros():
            from hassod_ros.nodes.rollout import Fleet, roll_out

        fleet = Fleet([Target.parse(text) for text in options.nodes])
        try:
            how = Options(options.canary, options.watch, options.timeout, options.copy)
            roll_out(registry, version, fleet, how)
        finally:
            fleet.close()
        if options.alias:
            registry.set_alias(options.alias, version, force=options.force, why="rolled out")
        print(f"{len(options.nodes)} nodes run {version}")

    return run("rollout", work)


def build_parser() -> argparse.ArgumentParser:
    """The script's options."""
    parser = script_parser("rollout", __doc__)
    add_options(parser)
    parser.add_argument("--version", required=True, metavar="V", help="number or alias of the version")
    parser.add_argument(
        "--canary", type=whole_number(1), default=Options.canary, metavar="N", help="nodes that go first"
    )
    parser.add_argument("--force", action="store_true", help="also a model that the gate refused")
    return parser


if __name__ == "__main__":
    sys.exit(main())
