"""What every script does around its work: one sentence and a status where something is wrong or it is stopped."""

from __future__ import annotations

import argparse
import errno
import io
import math
import os
import select
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import TypeVar

from hassod_ros.errors import InputError
from hassod_ros.files import find_out_early
from hassod_ros.packages import missing

WRONG_INPUT = 2
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_Number = TypeVar("_Number", int, float)
_reached: list[str] = []

if sys.stderr is not None and not sys.stderr.isatty():
    # A log wants a line now and then, not a bar ten times a second; tqdm reads this when it is imported.
    os.environ.setdefault("TQDM_MININTERVAL", "10")


class Terminated(KeyboardInterrupt):
    """SIGTERM, as an exception: whatever cleans up after Ctrl-C does so after it too."""


class _Help(argparse.RawDescriptionHelpFormatter):
    def _get_help_string(self, action: argparse.Action) -> str:
        return describe(action)


def script_parser(name: str, description: str | None) -> argparse.ArgumentParser:
    """Parser of the script `name`: its help ends with the default of every option."""
    return argparse.ArgumentParser(prog=name, description=description, formatter_class=_Help)


def describe(action: argparse.Action) -> str:
    """What an option means, with its default where it has one."""
    text = action.help or ""
    silent = action.default in (None, "", argparse.SUPPRESS) or action.nargs == 0 or not action.option_strings
    return text if silent or "(default" in text else f"{text} (default: %(default)s)"


def number(least: float = -math.inf, most: float = math.inf) -> Callable[[str], float]:
    """An option's type: a finite number from `least` to `most`; argparse says what is wrong with another one."""
    return _ranged(float, least, most)


def whole_number(least: float = -math.inf, most: float = math.inf) -> Callable[[str], int]:
    """An option's type: a whole number from `least` to `most`; argparse says what is wrong with another one."""
    return _ranged(int, least, most)


def _ranged(kind: type[_Number], least: float, most: float) -> Callable[[str], _Number]:
    asked = "a whole number" if kind is int else "a number"
    if most < math.inf:
        asked += f" from {least:g} to {most:g}"
    elif least > -math.inf:
        asked += f" of at least {least:g}"

    def read(text: str) -> _Number:
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not math.isfinite(value) or not least <= value <= most:
            raise argparse.ArgumentTypeError(f"{text!r} is not {asked}")
        return value

    return read


def run(
    name: str,
    work: Callable[[], object],
    *,
    writes: Sequence[str | os.PathLike | None] = (),
    after_stop: str = "the same command goes on",
) -> int:
    """Do a script's work.

    Args:
        name: Of the script, before every sentence.
        work: What it does.
        writes: Folders that it writes to in the end: that it can is made sure of first. None = nothing.
        after_stop: What becomes of a run that was stopped.

    Returns:
        Exit status: 0; 2 where the input is wrong or a disk full; 130 after Ctrl-C; 141 where
        nobody reads its output any more; 143 after SIGTERM.

    """
    _reached.clear()
    print_anything()
    before = None
    if in_main_thread := threading.current_thread() is threading.main_thread():
        before = signal.signal(signal.SIGTERM, _terminate)
    try:
        for folder in writes:
            if folder is not None:
                find_out_early(folder)
        work()
        print(end="", flush=True)
    except InputError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return WRONG_INPUT
    except KeyboardInterrupt as stop:
        return _stopped(name, stop, after_stop)
    except OSError as error:
        if isinstance(error, BrokenPipeError) and _nobody_reads():
            return 128 + signal.SIGPIPE
        if error.errno not in _FULL:
            raise
        where = error.filename or f"the folder of its output, or that of temporary files, {tempfile.gettempdir()},"
        print(f"{name}: {where} has no room left ({error.strerror}); free some space and run again", file=sys.stderr)
        return WRONG_INPUT
    except (SystemError, ImportError) as error:
        if isinstance(error.__cause__, KeyboardInterrupt):  # what compiled code makes of a signal while it runs
            return _stopped(name, error.__cause__, after_stop)
        if not (sentence := missing(error)):
            raise
        print(f"{name}: {sentence}", file=sys.stderr)
        return WRONG_INPUT
    finally:
        if in_main_thread:
            signal.signal(signal.SIGTERM, before)
    return 0


def _stopped(name: str, stop: KeyboardInterrupt, after_stop: str) -> int:
    _be_deaf()
    print(f"\n{name}: stopped{_after(_reached)}; {after_stop}", file=sys.stderr)
    return 128 + (signal.SIGTERM if isinstance(stop, Terminated) else signal.SIGINT)


def _nobody_reads() -> bool:
    """Whether who read standard output, such as `head`, has gone; what is left of it is thrown away then."""
    output = select.poll()
    output.register(sys.stdout.fileno(), 0)
    gone = any(events & select.POLLERR for _, events in output.poll(0))
    if gone:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return gone


def print_anything() -> None:
    """Let a file name that the terminal has no letters for be printed with escapes, as on standard error already."""
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")


def reached(text: str) -> None:
    """How far the work is, such as "12 of 40 images": a run that is stopped says it."""
    _reached[:] = [text]


@contextmanager
def stop_between(unit: str) -> Iterator[Callable[[], bool]]:
    """Inside, the first Ctrl-C or SIGTERM waits: the function that is yielded says whether one has come.

    The loop asks it between two steps, keeps what it has, and leaves; on leaving the block the signal takes effect. A
    second signal takes effect at once.

    Args:
        unit: What is finished first, such as "iteration".

    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    came: list[int] = []

    def wait(number: int, frame: FrameType | None) -> None:
        came.append(number)
        signal.signal(number, before[signal.Signals(number)])
        print(f"\nstopping after this {unit}; once more stops at once", file=sys.stderr, flush=True)

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, wait)
    try:
        yield lambda: bool(came)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if came:
        raise Terminated if came[0] == signal.SIGTERM else KeyboardInterrupt


def ignore_stops() -> None:
    """For a worker process: Ctrl-C reaches the whole terminal, and its parent decides."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _terminate(number: int, frame: FrameType | None) -> None:
    raise Terminated


def _be_deaf() -> None:
    """Libraries clean up at exit, which a second, impatient Ctrl-C would turn into a traceback."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def _after(text: list[str]) -> str:
    return f" after {text[0]}" if text else ""
