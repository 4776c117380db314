"""What the launch files look at before they start anything: half a robot that runs on after an error is worse."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path

from ament_index_python.packages import PackageNotFoundError, get_package_prefix
from ament_index_python.resources import get_resource

from hassod_ros.default_model import DEFAULT, default_model
from hassod_ros.errors import InputError


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
    words = shlex.split(command)
    if words and shutil.which(words[0]) is None:
        raise InputError(f"{argument} needs the program {words[0]}, which is not installed here")


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
