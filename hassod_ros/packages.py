"""Packages that only some machines have."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from hassod_ros.errors import InputError


@contextmanager
def required(extra: str) -> Iterator[None]:
    """Imports of a script that need `pip install 'hassod_ros[extra]'`: one that fails ends it with one sentence.

    Raises:
        SystemExit: A package is missing; status 2, as where input is wrong.

    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in ("", "hassod_ros"):
            raise
        print(f"error: the package {package} is missing; run pip install 'hassod_ros[{extra}]'", file=sys.stderr)
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
        raise InputError(
            f"the package {error.name} is missing; source ROS 2 and the workspace with hassod_msgs"
        ) from error
