"""What the launch files look at before they start anything: half a robot that runs on after an error is worse."""

from __future__ import annotations

import difflib
import os
import shlex
import shutil
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from ament_index_python.packages import PackageNotFoundError, get_package_prefix
from ament_index_python.resources import get_resource

from hassod_ros.commands import WRONG_INPUT
from hassod_ros.default_model import DEFAULT, default_model
from hassod_ros.errors import InputError

Number = TypeVar("Number", int, float)


def full_name(namespace: str, *names: str) -> str:
    """Of a node in a namespace, or of a topic below the node; empty parts are left out.

    >>> full_name("/cell/", "perception_node"), full_name("", "perception_node", "left")
    ('/cell/perception_node', '/perception_node/left')
    """
    return "/" + "/".join(filter(None, (namespace.strip("/"), *names)))


def require_package(name: str, argument: str) -> None:
    """Refuse an argument that needs a package which is not installed.

    Raises:
        InputError: It is not.

    """
    try:
        get_package_prefix(name)
    except (PackageNotFoundError, ValueError) as error:
        debian = f"ros-$ROS_DISTRO-{name.replace('_', '-')}"
        raise InputError(
            f"{argument} needs the package {name}, which is not installed here; run sudo apt install {debian}"
        ) from error


def require_component(package: str, plugin: str, argument: str) -> None:
    """Refuse a component that the package does not have.

    Raises:
        InputError: The package is not installed, or registers other components only.

    """
    require_package(package, argument)
    try:
        content, _ = get_resource("rclcpp_components", package)
    except LookupError:
        content = ""
    components = [line.partition(";")[0] for line in content.splitlines() if line]
    if plugin not in components:
        have = ", ".join(f"{package}/{name}" for name in components) or "none"
        raise InputError(f"{argument}: the package {package} has no component {plugin}; it has: {have}")


def require_program(command: str, argument: str) -> None:
    """Refuse a command whose program cannot be found.

    Raises:
        InputError: It cannot.

    """
    try:
        words = shlex.split(command)
    except ValueError as error:  # such as an open quotation
        raise InputError(f"{argument} cannot be read: {error}") from error
    if words and shutil.which(words[0]) is None:
        raise InputError(f"{argument} needs the program {words[0]}, which is not installed here")


def is_true(name: str, text: str) -> bool:
    """The value of a yes-or-no argument.

    Raises:
        InputError: It is neither.

    """
    if text.lower() not in ("true", "false"):
        raise InputError(f"{name}:={text} is neither true nor false")
    return text.lower() == "true"


def to_number(name: str, text: str, kind: type[Number]) -> Number:
    """The value of an argument that is a number.

    Raises:
        InputError: It is none.

    """
    try:
        return kind(text)
    except ValueError as error:
        raise InputError(f"{name}:={text} is not a {'whole ' if kind is int else ''}number") from error


def unknown_arguments(file: str | os.PathLike, known: Iterable[str], words: Sequence[str]) -> list[str]:
    """A sentence for each NAME:=VALUE that a launch file does not have, which ros2 launch passes over in silence.

    Args:
        file: The launch file.
        known: Its arguments.
        words: The command line. Where it starts another file, that one's arguments may be any.

    """
    names = sorted(known)
    place = next((i for i in range(1, len(words)) if _is_started(file, *words[i - 1 : i + 1])), len(words))
    sentences = []
    for word in words[place + 1 :]:
        name, separator, _ = word.partition(":=")
        if separator and name not in names:
            near = difflib.get_close_matches(name, names, 1)
            remedy = f"{near[0]} is one" if near else f"there are: {', '.join(names)}"
            sentences.append(f"{name} is no argument of {os.path.basename(file)} and does nothing; {remedy}")
    return sentences


def _is_started(file: str | os.PathLike, package: str, name: str) -> bool:
    """Whether two words of a command line start a launch file of this package, which may also be given as a path."""
    path = Path(file)
    return (package, name) == ("hassod_ros", path.name) or (Path(name).is_file() and path.samefile(name))


def tell_unknown(file: str | os.PathLike, description: Any) -> Any:
    """The description of a launch file, which begins with a warning of each argument that it does not have."""
    from launch.actions import OpaqueFunction
    from launch.launch_description import LaunchDescription
    from launch.logging import get_logger

    def tell(_: Any) -> None:
        known = [argument.name for argument in description.get_launch_arguments()]
        for sentence in unknown_arguments(file, known, sys.argv):
            get_logger(Path(file).name).warning(sentence)

    return LaunchDescription([OpaqueFunction(function=tell), *description.entities])


def give_up(node: Any, *others: Any) -> Any:
    """An action by which a respawned node stays down, and others with it, once it has said what is wrong.

    Respawn is for crashes: a node that ends with status 2 would end so again.
    """
    from launch.actions import EmitEvent, RegisterEventHandler  # PyPI does not have it
    from launch.event_handlers import OnProcessExit
    from launch.events import matches_action
    from launch.events.process import ShutdownProcess

    def on_exit(event: Any, context: Any) -> list[Any] | None:
        if event.returncode != WRONG_INPUT:
            return None
        return [EmitEvent(event=ShutdownProcess(process_matcher=matches_action(each))) for each in (node, *others)]

    return RegisterEventHandler(OnProcessExit(target_action=node, on_exit=on_exit))


def end_with_refusal() -> Any:
    """An action by which everything ends once a process has said what is wrong with its arguments or parameters."""
    from launch.actions import RegisterEventHandler, Shutdown
    from launch.event_handlers import OnProcessExit

    def on_exit(event: Any, context: Any) -> list[Any] | None:
        refused = event.returncode == WRONG_INPUT
        return [Shutdown(reason=f"{event.process_name} refuses")] if refused else None

    return RegisterEventHandler(OnProcessExit(on_exit=on_exit))


def model_path(model: str, precision: str) -> str:
    """The model in a precision: "default" becomes "default-int8", and a path that of the file beside it.

    Raises:
        InputError: There is no such model.

    """
    if precision in ("", "fp32"):
        return model
    if model == DEFAULT:
        default_model(precision)
        return f"{DEFAULT}-{precision}"
    if not model.endswith(".onnx"):
        shipped = f" or model:={DEFAULT}" if precision == "int8" else ""
        raise InputError(f"precision:={precision} needs to know which model: give model:=PATH.onnx{shipped} too")
    path = Path(model).expanduser()
    path = path.with_name(f"{path.stem}-{precision}.onnx")
    if not path.is_file():
        raise InputError(f"{path} does not exist; export it with to_onnx --precision {precision} --out {path}")
    return str(path)
