"""A camera's frames between arrival and result: the newest wins, each is counted, timed and aged. Without ROS."""

from __future__ import annotations

import threading
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Mapping
from typing import Generic, NamedTuple, TypeVar

import numpy as np

LOST = ("malformed", "failed", "too_old", "no_depth")  # causes of drops that nobody asked for
WINDOW = 300  # frames that percentiles look back on
_CLOCK_FRAMES = 100  # ages that are looked back on
_CLOCK_LIMIT = 1.0  # s; the freshest of those frames being older than this means that the camera's clock is off
_STANDING = 3  # frames without a new stamp after which a camera does not stamp
_MOVING = 10  # frames with a new stamp each after which it does again

Item = TypeVar("Item")


class Mailbox(Generic[Item]):
    """Hands the newest item of each camera from the thread that receives to the thread that works; no queue that grows.

    A camera keeps its place in line while its waiting item is replaced by newer ones, so a fast camera cannot push a
    slow one aside.
    """

    def __init__(self) -> None:
        self._items: OrderedDict[str, Item] = OrderedDict()
        self._changed = threading.Condition()
        self._closed = False
        self._owing: float | None = None  # since when the worker has not come, with something to do

    def put(self, camera: str, item: Item) -> Item | None:
        """Leave an item; returns the older one of the same camera that nobody took and that is now dropped."""
        with self._changed:
            older = self._items.get(camera)
            self._items[camera] = item
            self._owing = time.perf_counter() if self._owing is None else self._owing
            self._changed.notify_all()
        return older

    def take(self, limit: int) -> list[tuple[str, Item]]:
        """Up to `limit` cameras' items, longest waiting camera first; waits for one. Empty once closed."""
        with self._changed:
            self._owing = time.perf_counter() if self._items else None
            if self._owing is None:
                self._changed.notify_all()
            self._changed.wait_for(lambda: self._items or self._closed)
            if self._closed:
                return []
            return [self._items.popitem(last=False) for _ in range(min(limit, len(self._items)))]

    def overdue(self) -> float:
        """Seconds since there is something to do for which the worker has not come back; 0 where it waits itself.

        Counts on while waiting items are replaced by newer ones, and where the worker has died.
        """
        with self._changed:
            return 0.0 if self._owing is None else time.perf_counter() - self._owing

    def rest(self, limit: float) -> bool:
        """Wait, for `limit` s at most, until the worker has nothing to do; False where it still has."""
        with self._changed:
            return self._changed.wait_for(lambda: self._owing is None or self._closed, limit)

    def close(self) -> None:
        """Wake the worker up for good; what is waiting is forgotten."""
        with self._changed:
            self._closed = True
            self._items.clear()
            self._changed.notify_all()


class Worker(Generic[Item]):
    """A thread that handles the newest items of a mailbox until it is closed.

    Args:
        name: Of the thread.
        handle: Gets up to `batch` cameras' items at a time.
        failed: Gets what `handle` raises; the thread goes on.
        batch: Asked before each time.

    """

    def __init__(
        self,
        name: str,
        handle: Callable[[list[tuple[str, Item]]], None],
        failed: Callable[[Exception], None],
        batch: Callable[[], int] = lambda: 1,
    ) -> None:
        self._handle, self._failed, self._batch = handle, failed, batch
        self._mailbox: Mailbox[Item] = Mailbox()
        self.put = self._mailbox.put
        self.overdue = self._mailbox.overdue
        self.rest = self._mailbox.rest
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether the thread runs; something worse than an Exception can end it."""
        return self._thread.is_alive()

    def close(self, limit: float | None = None) -> bool:
        """End the thread; what it is handling is finished first.

        Args:
            limit: s to wait for that. Default: however long it takes.

        Returns:
            False where the thread is still at work; it then ends by itself.

        """
        self._mailbox.close()
        self._thread.join(limit)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while items := self._mailbox.take(self._batch()):
            try:
                self._handle(items)
            except Exception as error:  # noqa: PERF203
                self._failed(error)


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


class RateLimit:
    """Lets through so many a second, and no fewer where they come with jitter."""

    def __init__(self) -> None:
        self._next = 0.0

    def exceeded(self, now: float, rate: float) -> bool:
        """Whether what comes `now` (s, a steady clock) exceeds `rate` (Hz, 0 = no limit); else it takes its place."""
        if rate and now < self._next:
            return True
        # Counted on from the place, not from what came, so that jitter does not lower the rate; half a place at most,
        # so that two that come after a pause are not one place.
        self._next = max(self._next, now - 0.5 / rate) + 1 / rate if rate else 0.0
        return False


class Moment(NamedTuple):
    """When a frame was taken.

    Attributes:
        time: Seconds that tracking counts in.
        age: Seconds that it had when it came; 0 where the camera does not stamp.
        stamped: Whether both come from its stamp.

    """

    time: float
    age: float
    stamped: bool


class CameraClock:
    """What a camera's stamps are worth.

    Attributes:
        offset: Seconds that the freshest of the last frames came after its stamp, 0 where that is less than one second:
            how far the camera's clock is behind, or how slow the way from it is.
        stamps: False while the stamps are 0 or stand still.

    """

    def __init__(self) -> None:
        self.offset = 0.0
        self.stamps = True
        self._recent: deque[float] = deque(maxlen=_CLOCK_FRAMES)
        self._last = 0.0
        self._still = self._moved = 0

    def judge(self, stamp: float, now: float, received: float, *, correct: bool = False) -> Moment:
        """The moment of a frame.

        Where none of the last frames came within a second of its stamp, the clocks disagree, or all frames are old:
        nobody can tell from the stamps. A single frame from before a simulation was set back says nothing.

        Args:
            stamp: Its header's, s.
            now: When it came by the clock that stamps, s; 0 where that has not begun.
            received: When it came by a steady clock, s; takes the stamp's place where there is none.
            correct: Count ages from the freshest of the last frames where the clocks disagree.

        """
        self._watch(stamp)
        if not self.stamps or not stamp:
            return Moment(received, 0.0, stamped=False)
        if not now:
            return Moment(stamp, 0.0, stamped=True)
        age = now - stamp
        self._recent.append(age)
        self.offset = 0.0 if min(map(abs, self._recent)) <= _CLOCK_LIMIT else min(self._recent)
        return Moment(stamp, age - self.offset if correct else age, stamped=True)

    def _watch(self, stamp: float) -> None:
        """Notice whether stamps move. Some cameras stamp whole seconds: a move now and then is not enough."""
        moved = stamp != 0 and stamp != self._last
        self._still, self._moved = (0, self._moved + 1) if moved else (self._still + 1, 0)
        self._last = stamp
        if self._still >= _STANDING:
            self.stamps, self.offset = False, 0.0
            self._recent.clear()
        elif self._moved >= _MOVING:
            self.stamps = True
