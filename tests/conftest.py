"""What every test may use."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def signals_as_before() -> Iterator[None]:
    """What a test starts would inherit that Ctrl-C is ignored, which a command does once it was stopped."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.getsignal(number) for number in numbers]
    yield
    for number, handler in zip(numbers, before, strict=True):
        if handler is not None and signal.getsignal(number) is not handler:
            signal.signal(number, handler)


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder of reference outputs and real image sets; without it the test is skipped."""
    folder = Path(os.environ.get("HASSOD_SHARED", Path(__file__).resolve().parents[2] / "shared"))
    if not folder.is_dir():
        pytest.skip(f"the reference data are not at {folder}; set HASSOD_SHARED")
    return folder


@pytest.fixture
def one_thread() -> Iterator[None]:
    """PyTorch sums in the order of processes with one thread each."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
