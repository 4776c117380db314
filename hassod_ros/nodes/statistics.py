"""What the node counts and times, for its diagnostics."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Mapping

import numpy as np

WINDOW = 300  # frames that percentiles look back on


class FrameStatistics:
    """Counts and times of one camera's frames; safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._received = 0
        self._processed = 0
        self._dropped: Counter[str] = Counter()
        self._seconds: dict[str, deque[float]] = {}

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

    def percentiles(self) -> dict[str, float]:
        """`STAGE.p50_ms` and `STAGE.p95_ms` over the last frames."""
        with self._lock:
            recent = {stage: np.array(values) for stage, values in self._seconds.items()}
        return {
            f"{stage}.p{percent}_ms": float(np.percentile(values, percent)) * 1e3
            for stage, values in recent.items()
            for percent in (50, 95)
        }
