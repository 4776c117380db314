"""The names that stand for models: what the package ships, what can be fetched, and files."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable
from pathlib import Path

from hassod_ros.default_model import DEFAULT, best_precision, default_model
from hassod_ros.errors import InputError
from hassod_ros.runtime.published import exported_names

TRAINING_FREE = "training_free"
SHIPPED = (DEFAULT, f"{DEFAULT}-fp32", f"{DEFAULT}-int8")


def known_names() -> list[str]:
    """All names that `resolve_model` knows, fetched or not."""
    return [*SHIPPED, TRAINING_FREE, *exported_names()]


def resolve_model(model: str, report: Callable[[str], None] | None = None) -> str:
    """The path behind a name; paths come back as they are, or below the home folder (`~`).

    Args:
        model: "default" (or ""): the shipped model in the precision that suits this processor; "default-fp32" or
            "default-int8"; the name of a published model that was fetched; or a path.
        report: Is told which precision was taken.

    Raises:
        InputError: No such name, a name that was not fetched yet, or a shipped file that is missing.

    """
    name = model or DEFAULT
    if name == DEFAULT:
        precision, reason = best_precision()
        if report:
            report(f"{DEFAULT} in {precision}: {reason}")
        return str(default_model(precision))
    if name in SHIPPED:
        return str(default_model(name.removeprefix(f"{DEFAULT}-")))
    if os.sep in name or Path(name).suffix:
        return os.path.expanduser(name)
    fetched = exported_names()
    if name in fetched:
        if not fetched[name].is_file():
            raise InputError(
                f"{name} was not fetched yet; run: ros2 run hassod_ros fetch_model {name}, on another machine if this "
                f"one lacks torch, and copy its file to {fetched[name]}"
            )
        return str(fetched[name])
    if name != TRAINING_FREE and _is_name(name):
        near = difflib.get_close_matches(name, known_names(), n=1, cutoff=0)[0]
        raise InputError(
            f"there is no model {name!r}; the nearest name is {near}, known are {', '.join(known_names())}, and the "
            "path of a file"
        )
    return os.path.expanduser(model)


def _is_name(text: str) -> bool:
    """Whether a text can only be meant as a name: no folder, no suffix, no such file."""
    return os.sep not in text and not Path(text).suffix and not Path(text).exists()
