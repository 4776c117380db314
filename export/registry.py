"""Models in a folder: what there is, where it came from, what the names stand for.

  list    all versions with their status and aliases
  show    one version: record, gate, parent, provenance
  add     register a model file that was made elsewhere
  alias   let a name stand for a version, or forget it
  prune   remove old versions without an alias

Example:
    python export/registry.py list models
    python export/registry.py alias models stable 3

"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hassod_ros.commands import run, script_parser, whole_number
from hassod_ros.deploy.registry import GATE, IMPORTED, NAME, Registry, Version, check_alias
from hassod_ros.errors import InputError
from hassod_ros.runtime.model_info import read_model_info
from hassod_ros.runtime.model_names import resolve_model

if TYPE_CHECKING:
    import argparse

_WORDS = {"list": (), "show": ("VERSION",), "add": ("MODEL", "[ALIAS]"), "alias": ("ALIAS", "[VERSION]"), "prune": ()}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run; the status is that of `commands.run`."""
    options = build_parser().parse_args(arguments)
    return run("registry", lambda: _act(options))


def build_parser() -> argparse.ArgumentParser:
    """The script's options."""
    parser = script_parser("registry", __doc__)
    parser.add_argument("action", choices=_WORDS, metavar="|".join(_WORDS), help="what to do")
    parser.add_argument(  # not required by argparse, which would then ask for the words as well
        "registry", nargs="?", type=Path, metavar="REGISTRY", help="folder of the registry; add makes it"
    )
    parser.add_argument(
        "words",
        nargs="*",
        metavar="WORD",
        help="show VERSION, add MODEL [ALIAS], alias ALIAS [VERSION]",
    )
    parser.add_argument("--name", help=f"of the line of models (default: {NAME}; list: all)")
    parser.add_argument(
        "--keep", type=whole_number(0), default=5, metavar="N", help="newest versions that prune leaves"
    )
    parser.add_argument("--force", action="store_true", help="let a refused model have an alias")
    return parser


def _act(options: argparse.Namespace) -> None:
    words, name = options.words, options.name or NAME
    asked = _WORDS[options.action]
    if options.registry is None or not sum(not word.startswith("[") for word in asked) <= len(words) <= len(asked):
        raise InputError(f"give: {' '.join(('registry', options.action, 'REGISTRY', *asked))}")
    model = resolve_model(words[0]) if options.action == "add" else ""
    if model:
        read_model_info(model)
    if len(words) == 2 and options.action == "add":
        check_alias(words[1])
    registry = Registry(options.registry, create=bool(model))
    if options.action == "list":
        _list(registry, options.name)
    elif options.action == "show":
        _show(registry, registry.resolve(words[0], name))
    elif options.action == "add":
        version = registry.register(model, name=name, status=IMPORTED)
        print(version, flush=True)  # it is there though its alias may fail
        if len(words) == 2:
            registry.set_alias(words[1], version)
    elif options.action == "prune":
        for version in registry.prune(options.keep, name):
            print(f"removed {version}")
    elif len(words) == 1:
        registry.remove_alias(words[0], name)
    else:
        registry.set_alias(words[0], registry.resolve(words[1], name), force=options.force)


def _list(registry: Registry, name: str | None) -> None:
    versions = registry.versions(name)
    if name and not versions:
        there = ", ".join(sorted({version.name for version in registry.versions()})) or "none"
        raise InputError(f"{registry.root} has no model {name}; there is {there}")
    for version in versions:
        names = [alias for alias, number in registry.aliases(version.name).items() if number == version.number]
        reason = version.record.get("reason", "")
        columns = (f"{version!s:16}", version.record["created"], f"{version.status:9}", version.sha256[:12])
        print("  ".join((*columns, " ".join(names), reason)).rstrip())


def _show(registry: Registry, version: Version) -> None:
    print(json.dumps({"folder": str(version.folder), **version.record}, indent=1))
    gate = version.folder / GATE
    if gate.is_file():
        print(gate.read_text(encoding="utf-8"))
    for entry in registry.history():
        if entry.get("version") == str(version) or entry.get("number") == version.number:
            print(json.dumps(entry))


if __name__ == "__main__":
    sys.exit(main())
