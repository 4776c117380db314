"""One camera of the perception node: its topics, counts and clock."""

from __future__ import annotations

from collections import deque
from typing import Any

from hassod_ros.nodes.statistics import FrameStatistics
from hassod_ros.runtime.tracking import Tracker

_CLOCK_FRAMES = 100  # ages that are looked back on
_CLOCK_LIMIT = 1.0  # s; the freshest of those frames being older than this means that the camera's clock is off


class Camera:
    """What the node keeps for each camera.

    Args:
        name: "" for the only one.

    Attributes:
        name: As given.
        topics: Prefix of the output topics, below `~/`.
        publishers: Lifecycle publishers by name below `topics`.
        subscription: Of the images, while the node is active.
        statistics: Counts and times since the start.
        age: Judges how old a frame is.
        tracker: Gives the instances their ids.
        next_due: Monotonic time in s before which the rate limit drops frames.
        heard: When the last frame came or waiting for the first one began, s, time.perf_counter.

    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.topics = f"{name}/" if name else ""
        self.publishers: dict[str, Any] = {}
        self.subscription: Any = None
        self.statistics = FrameStatistics()
        self.age = FrameAge()
        self.tracker = Tracker()
        self.next_due = 0.0
        self.heard = 0.0

    def limit_rate(self, now: float, rate: float) -> bool:
        """Whether a frame that comes `now` (s) exceeds `rate` (Hz, 0 = no limit); else it takes the next place."""
        if rate and now < self.next_due:
            return True
        # Counted on from the place, not from the frame, so that jitter does not lower the rate.
        self.next_due = max(self.next_due, now - 1 / rate) + 1 / rate if rate else 0.0
        return False


class FrameAge:
    """Age of frames by a camera clock that may be off by a constant.

    Attributes:
        offset: Seconds that the camera's clock is behind the node's, 0 where it agrees within a second.

    """

    def __init__(self) -> None:
        self.offset = 0.0
        self._recent: deque[float] = deque(maxlen=_CLOCK_FRAMES)

    def of(self, now: float, stamp: float) -> float:
        """Age in seconds of a frame stamped `stamp` that came `now`.

        Where none of the last frames came within a second of its stamp, the clocks disagree; ages are then counted from
        the freshest frame. A single frame from before a simulation was set back says nothing about the clocks.
        """
        if not now:
            return 0.0  # simulated time that has not begun
        age = now - stamp
        self._recent.append(age)
        self.offset = 0.0 if min(map(abs, self._recent)) <= _CLOCK_LIMIT else min(self._recent)
        return age - self.offset
