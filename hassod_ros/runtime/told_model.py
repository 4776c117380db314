"""The model that a running node was told to take, kept for its next start."""

from __future__ import annotations

import json
import os
from pathlib import Path

from hassod_ros.errors import InputError
from hassod_ros.files import expanded, write_json


def state_folder() -> Path:
    """`$ROS_HOME/hassod_ros`, by default below ~/.ros."""
    return expanded(os.environ.get("ROS_HOME") or "~/.ros") / "hassod_ros"


class ToldModel:
    """A small file that says which model was told, and in place of which.

    Args:
        node: Full name of the node, such as "/robot/perception_node".
        folder: Where the file lies. Default: `state_folder()`.

    """

    def __init__(self, node: str, folder: Path | None = None) -> None:
        self.path = (folder or state_folder()) / f"{node.strip('/').replace('/', '.')}.json"

    def recall(self, model: str) -> str:
        """What was told in place of `model`; "" where nothing was, or the parameter says something else by now.

        Raises:
            InputError: The file is damaged.

        """
        try:
            found = json.loads(self.path.read_text(encoding="utf-8"))
            return str(found["told"]) if found["instead_of"] == model else ""
        except FileNotFoundError:
            return ""
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{self.path}, which names the model that was told, cannot be read; remove it") from error

    def tell(self, told: str, instead_of: str) -> None:
        """Keep what was told; nothing is kept where it is what the parameter says anyway.

        Raises:
            InputError: The file cannot be written.

        """
        if told != instead_of:
            write_json(self.path, {"told": told, "instead_of": instead_of})
            return
        try:
            self.path.unlink(missing_ok=True)
        except OSError as error:
            raise InputError(f"cannot remove {self.path} ({error.strerror}); remove it by hand") from error
