"""Newest frame wins: one place per camera, no queue that grows."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Mailbox(Generic[Item]):
    """Hands the newest item of each camera from the thread that receives to the thread that works.

    A camera keeps its place in line while its waiting item is replaced by newer ones, so a fast camera cannot push a
    slow one aside.
    """

    def __init__(self) -> None:
        self._items: OrderedDict[str, Item] = OrderedDict()
        self._changed = threading.Condition()
        self._closed = False

    def put(self, camera: str, item: Item) -> Item | None:
        """Leave an item; returns the older one of the same camera that nobody took and that is now dropped."""
        with self._changed:
            older = self._items.get(camera)
            self._items[camera] = item
            self._changed.notify()
        return older

    def take(self, limit: int) -> list[tuple[str, Item]]:
        """Up to `limit` cameras' items, longest waiting camera first; waits for one. Empty once closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._items or self._closed)
            if self._closed:
                return []
            return [self._items.popitem(last=False) for _ in range(min(limit, len(self._items)))]

    def close(self) -> None:
        """Wake the worker up for good; what is waiting is forgotten."""
        with self._changed:
            self._closed = True
            self._items.clear()
            self._changed.notify_all()
