"""Packages that only some machines have."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from hassod_ros.errors import InputError

_CORE = ("numpy", "cv2", "onnxruntime", "PIL", "yaml")  # what every machine needs
_FOOTAGE = ("rosbags", "mcap")
_ROS = ("rclpy", "launch", "launch_ros", "ament_index_python", "cv_bridge", "tf2_ros")


def missing(error: Exception) -> str:
    """The sentence about a package of others that is missing, and its remedy; "" for any other error."""
    package = (error.name or "").partition(".")[0] if isinstance(error, ModuleNotFoundError) else ""
    if package in ("", "hassod_ros"):
        return ""
    if package in _ROS or package.endswith(("_msgs", "_interfaces")):
        remedy = "source ROS 2 and the workspace with hassod_msgs"
    else:
        extra = "" if package in _CORE else "[footage]" if package in _FOOTAGE else "[train]"
        remedy = f"run pip install 'hassod_ros{extra}'"
    return f"the package {package} is missing; {remedy}"


@contextmanager
def required() -> Iterator[None]:
    """Imports of a script that not every machine has: one that fails ends it with one sentence.

    Raises:
        SystemExit: A package is missing; status 2, as where input is wrong.

    """
    try:
        yield
    except ModuleNotFoundError as error:
        if not (sentence := missing(error)):
            raise
        print(f"error: {sentence}", file=sys.stderr)
        raise SystemExit(2) from error


@contextmanager
def required_ros() -> Iterator[None]:
    """Imports of a script that need ROS 2 and the messages of this package.

    Raises:
        InputError: They are missing.

    """
    try:
        yield
    except ModuleNotFoundError as error:
        if not (sentence := missing(error)):
            raise
        raise InputError(sentence) from error
