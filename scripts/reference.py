"""Writes the parameters' reference (docs/ros_api.md) and defaults (config/) from their declarations.

Run `python scripts/reference.py` in a checkout after changing a parameter.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import yaml

from hassod_ros.files import write_text
from hassod_ros.nodes import camera_player, inspection_parameters, objects_3d_parameters, perception_parameters
from hassod_ros.nodes.parameters import Parameter, markdown

ROOT = Path(__file__).resolve().parents[1]
# A node with an entry of its own here has a table in docs/ros_api.md; CONFIGS also have a file of defaults.
TABLES = {
    "perception_node": perception_parameters.PARAMETERS,
    "camera": perception_parameters.camera_parameters(""),
    "objects_3d_node": objects_3d_parameters.PARAMETERS,
    "inspection_node": inspection_parameters.PARAMETERS,
    "camera_player": camera_player.PARAMETERS,
}
CONFIGS = {
    "perception_node": "perception.yaml",
    "objects_3d_node": "objects_3d.yaml",
    "inspection_node": "inspection.yaml",
}


def documentation(text: str) -> str:
    """The text with each table between `<!-- NODE -->` and `<!-- /NODE -->` written anew."""
    for node, table in TABLES.items():
        head, _, rest = text.partition(f"<!-- {node} -->\n")
        end = f"<!-- /{node} -->"
        text = f"{head}<!-- {node} -->\n{markdown(table)}{end}{rest.partition(end)[2]}"
    return text


def defaults(node: str, table: Sequence[Parameter]) -> str:
    """A ROS parameter file with every default, for a node in any namespace."""
    lines = ["/**:", f"  {node}:", "    ros__parameters:"]
    for parameter in table:
        value = yaml.safe_dump(parameter.default, default_flow_style=True, width=1000).splitlines()[0]
        lines += [f"      # {parameter.description}", f"      {parameter.name}: {value}"]
    return "\n".join([f"# Defaults of {node}; see docs/ros_api.md.", *lines]) + "\n"


def files() -> dict[Path, str]:
    """Path -> what it should hold."""
    api = ROOT / "docs" / "ros_api.md"
    return {
        api: documentation(api.read_text(encoding="utf-8")),
        **{ROOT / "config" / name: defaults(node, TABLES[node]) for node, name in CONFIGS.items()},
    }


def main() -> int:
    """Entry point."""
    for path, text in files().items():
        write_text(path, text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
