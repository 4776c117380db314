"""Let running nodes load what each of them ran before its last rollout, all at once.

Example:
    hassod_ros rollback --registry models --nodes /r1/perception_node /r2/perception_node

"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from hassod_ros.commands import run, script_parser
from hassod_ros.deploy.fleet import Options, Target, add_options
from hassod_ros.deploy.registry import Registry, Version, check_alias
from hassod_ros.packages import required_ros

if TYPE_CHECKING:
    import argparse


def main(arguments: Sequence[str] | None = None) -> int:
    """Run; the status is that of `commands.run`."""
    options = build_parser().parse_args(arguments)

    def work() -> None:
        registry = Registry(options.registry)
        if options.alias:
            check_alias(options.alias)
        with required_ros():
            from hassod_ros.nodes.rollout import Fleet, roll_out, version_before

        how = Options(canary=0, watch=options.watch, timeout=options.timeout, copy=options.copy)
        groups: dict[int, tuple[Version, list[Target]]] = {}
        for target in map(Target.parse, options.nodes):
            wanted = options.version
            version = (
                registry.resolve(wanted, options.name) if wanted else version_before(registry, target, options.name)
            )
            groups.setdefault(version.number, (version, []))[1].append(target)
        for version, targets in groups.values():
            fleet = Fleet(targets)
            try:
                roll_out(registry, version, fleet, how)
            finally:
                fleet.close()
            print(f"{', '.join(map(str, targets))}: {version}")
        if options.alias and len(groups) == 1:
            registry.set_alias(options.alias, version, force=True, why="rolled back")

    return run("rollback", work)


def build_parser() -> argparse.ArgumentParser:
    """The script's options."""
    parser = script_parser("rollback", __doc__)
    add_options(parser)
    parser.add_argument(
        "--version", default="", metavar="V", help="number or alias (default: what each node ran before)"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
