"""Progress of what a person waits for, with or without tqdm: a robot need not have it."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")
_EVERY = 2.0  # seconds between two lines


def progress(items: Iterable[Item], *, total: int | None, unit: str) -> Iterator[Item]:
    """The items, with a bar on standard error where tqdm is installed, else with a line every other second.

    Args:
        items: Passed on one at a time.
        total: How many there are, where that is known.
        unit: What one is, such as "image".

    """
    try:
        from tqdm import tqdm
    except ModuleNotFoundError:
        yield from _lines(items, total, unit)
    else:
        yield from tqdm(items, total=total, unit=unit, dynamic_ncols=True)


def say(text: str) -> None:
    """Print a line to standard error that does not tear the bar."""
    try:
        from tqdm import tqdm
    except ModuleNotFoundError:
        print(text, file=sys.stderr, flush=True)
    else:
        tqdm.write(text, file=sys.stderr)


def _lines(items: Iterable[Item], total: int | None, unit: str) -> Iterator[Item]:
    start = said = time.monotonic()
    of, count = "" if total is None else f" of {total}", 0

    def line(now: float) -> None:
        print(f"{count}{of} {unit}s, {count / max(now - start, 1e-3):.1f} a second", file=sys.stderr, flush=True)

    for count, item in enumerate(items, start=1):  # noqa: B007 (`line` uses it)
        yield item
        if (now := time.monotonic()) - said >= _EVERY:
            said = now
            line(now)
    line(time.monotonic())
