"""A node's command line: ROS arguments and --help, and nothing that ROS would pass over in silence."""

from __future__ import annotations

import difflib
import itertools
import re
import textwrap
from collections.abc import Sequence
from pathlib import Path

from hassod_ros.errors import InputError
from hassod_ros.nodes.parameters import Parameter, Value
from hassod_ros.params_file import sections

_FORM = "--ros-args -p PARAMETER:=VALUE -r TOPIC:=TOPIC --params-file FILE"
_BEGIN, _END = "--ros-args", "--"


def stray_words(words: Sequence[str]) -> list[str]:
    """The words that are no ROS arguments.

    Example:
        >>> stray_words(["model:=a.onnx", "--ros-args", "-p", "threads:=2", "--", "x"])
        ['model:=a.onnx', 'x']

    """
    found, inside = [], False
    for word in words:
        if word == _BEGIN:
            inside = True
        elif inside and word == _END:
            inside = False
        elif not inside:
            found.append(word)
    return found


def wants_help(words: Sequence[str]) -> bool:
    """Whether somebody asks what the node takes."""
    return not {"-h", "--help"}.isdisjoint(stray_words(words))


def refuse_stray(words: Sequence[str]) -> None:
    """Refuse words outside of the ROS arguments: a forgotten --ros-args makes `model:=FILE` the new name of a topic.

    Raises:
        InputError: There are some.

    """
    if not (stray := stray_words(words)):
        return
    if difflib.get_close_matches(stray[0], [_BEGIN], cutoff=0.8):
        raise InputError(f"{stray[0]!r} means nothing here; did you mean {_BEGIN}?")
    assigned = next((word for word in stray if ":=" in word), None)
    form = f"{_BEGIN} -p {assigned} for a parameter, {_BEGIN} -r {assigned} for a topic" if assigned else _FORM
    raise InputError(f"{' '.join(stray)!r} stands outside of the ROS arguments; write {form}")


def reason(error: Exception, words: Sequence[str]) -> str:
    """Why ROS does not begin, in one sentence.

    Args:
        error: Of rclpy.init.
        words: The arguments it was given.

    """
    for flag, path in itertools.pairwise(words):
        if flag == "--params-file":
            try:
                sections(path)
            except InputError as known:
                return str(known)
    text = re.sub(r", at /\S+:\d+", "", " ".join(str(error).split()))
    text = text.removeprefix("failed to initialize rcl: ").removeprefix("failed to initialize logging: ").rstrip(".")
    if "log directory" in text or "logging directory" in text:
        return f"ROS has no folder for its logs ({text}); set ROS_LOG_DIR to one that can be written"
    return f"ROS cannot begin: {text}; write {_FORM}"


def help_text(program: str, about: str, table: Sequence[Parameter]) -> str:
    """What --help prints.

    Args:
        program: As it was called.
        about: What the node is for.
        table: Its parameters.

    """
    lines = [f"usage: {Path(program).stem} [{_FORM}]", "", *textwrap.wrap(about.strip(), 100), "", "parameters:"]
    for parameter in table:
        unit = f" {parameter.unit}" if parameter.unit else ""
        default = _plain(parameter.default)
        lines.append(f"  {parameter.name}" + (f" (default: {default}{unit})" if default else ""))
        text = parameter.description
        if parameter.choices:
            text += f" One of {', '.join(parameter.choices)}."
        elif parameter.low is not None and parameter.high is not None:
            text += f" From {parameter.low:g} to {parameter.high:g}{unit}."
        lines += textwrap.wrap(text, 100, initial_indent="      ", subsequent_indent="      ")
    return "\n".join(lines)


def _plain(value: Value) -> str:
    """A default as one writes it after `:=`."""
    if isinstance(value, list):
        return "" if value == [""] else f"[{', '.join(map(str, value))}]"
    return str(value).lower() if isinstance(value, bool) else str(value)
