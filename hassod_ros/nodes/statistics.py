"""What the node counts and times, for its diagnostics."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from hassod_ros.nodes.health import LOST

WINDOW = 300  # frames that percentiles look back on


class Period(NamedTuple):
    """What happened between two reports.

    Attributes:
        seconds: Its length.
        received: Frames that came in.
        processed: Frames that were published.
        lost: Frames that were dropped without anybody having asked for it.
        unwatched: Frames that nobody wanted.

    """

    seconds: float
    received: int
    processed: int
    lost: int
    unwatched: int

    @property
    def rate_in(self) -> float:
        """Frames that came in per second."""
        return self.received / self.seconds if self.seconds else 0.0

    @property
    def rate_out(self) -> float:
        """Frames that were published per second."""
        return self.processed / self.seconds if self.seconds else 0.0

    def judged(self) -> dict[str, float]:
        """The figures that `health.judge` can judge; none about a period in which there was nothing to do."""
        if not self.received:
            return {}
        figures = {"lost": min(1.0, self.lost / self.received)}
        return figures if self.unwatched else figures | {"rate": self.rate_out}


class FrameStatistics:
    """Counts and times of one camera's frames; safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._received = 0
        self._processed = 0
        self._dropped: Counter[str] = Counter()
        self._seconds: dict[str, deque[float]] = {}
        self._reported = Period(time.monotonic(), 0, 0, 0, 0)

    def receive(self) -> None:
        """A frame came in."""
        with self._lock:
            self._received += 1

    def drop(self, cause: str) -> None:
        """A frame was not segmented; `cause` in one word."""
        with self._lock:
            self._dropped[cause] += 1

    def process(self, seconds: Mapping[str, float]) -> None:
        """A frame was published; `seconds` by stage."""
        with self._lock:
            self._processed += 1
            for stage, value in seconds.items():
                self._seconds.setdefault(stage, deque(maxlen=WINDOW)).append(value)

    def counts(self) -> dict[str, int]:
        """`received`, `processed` and `dropped.CAUSE`, since the start."""
        with self._lock:
            dropped = {f"dropped.{cause}": count for cause, count in sorted(self._dropped.items())}
            return {"received": self._received, "processed": self._processed, **dropped}

    def period(self) -> Period:
        """What happened since the last call."""
        with self._lock:
            lost = sum(self._dropped[cause] for cause in LOST)
            now = Period(time.monotonic(), self._received, self._processed, lost, self._dropped["unwatched"])
            before, self._reported = self._reported, now
        return Period(now.seconds - before.seconds, *(a - b for a, b in zip(now[1:], before[1:], strict=True)))

    def percentiles(self) -> dict[str, float]:
        """`STAGE.p50_ms` and `STAGE.p95_ms` over the last frames."""
        with self._lock:
            recent = {stage: np.array(values) for stage, values in self._seconds.items()}
        return {
            f"{stage}.p{percent}_ms": float(np.percentile(values, percent)) * 1e3
            for stage, values in recent.items()
            for percent in (50, 95)
        }
