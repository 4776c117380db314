"""Pairs messages of two topics by their stamps, without waiting longer than needed."""

from __future__ import annotations

from bisect import bisect_left, insort
from typing import Generic, TypeVar

Item = TypeVar("Item")
_NANO = 1_000_000_000


class StampRing(Generic[Item]):
    """The items of the last seconds by stamp.

    Args:
        memory: Seconds that items are kept, counted by their stamps.
        limit: Most items.

    """

    def __init__(self, memory: float = 3.0, limit: int = 120) -> None:
        self._memory, self._limit = round(memory * _NANO), limit
        self._stamps: list[int] = []
        self._items: dict[int, Item] = {}

    def __len__(self) -> int:
        return len(self._stamps)

    def put(self, stamp: int, item: Item) -> None:
        """Keep an item; a second one of the same stamp replaces the first. A step back of time begins anew."""
        if self._stamps and stamp < self._stamps[-1] - self._memory:
            self.clear()
        if stamp not in self._items:
            insort(self._stamps, stamp)
        self._items[stamp] = item
        while len(self._stamps) > self._limit or self._stamps[0] < self._stamps[-1] - self._memory:
            del self._items[self._stamps.pop(0)]

    def nearest(self, stamp: int, skew: float) -> tuple[int, Item] | None:
        """Stamp and item nearest to a stamp, at most `skew` seconds away; None where there is none."""
        at = bisect_left(self._stamps, stamp)
        close = [s for s in self._stamps[max(at - 1, 0) : at + 1] if abs(s - stamp) <= skew * _NANO]
        best = min(close, key=lambda other: abs(other - stamp), default=None)
        return None if best is None else (best, self._items[best])

    def passed(self, stamp: int) -> bool:
        """Whether something at or after the stamp has come, so that nothing nearer can follow in order."""
        return bool(self._stamps) and self._stamps[-1] >= stamp

    def clear(self) -> None:
        """Forget everything."""
        self._stamps.clear()
        self._items.clear()
