"""The bound of what is published and not answered yet."""

from __future__ import annotations

import asyncio
from collections import deque


class Window:
    """Room for a number of records and a number of bytes. Who finds no room waits, in the order of arrival."""

    def __init__(self, records: int, size: int) -> None:
        self._records = records
        self._bytes = size
        self._used_records = 0
        self._used_bytes = 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    async def enter(self, size: int) -> None:
        """Takes room for a record of this size. One that is larger than the whole bound gets all of it."""
        if not self._waiting and self._fits(size):
            self._take(size)
            return
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((size, place))
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():
                self.leave(size)
            else:
                self._admit()
            raise

    def leave(self, size: int) -> None:
        """Gives the room of a record back."""
        self._used_records -= 1
        self._used_bytes -= size
        self._admit()

    def _fits(self, size: int) -> bool:
        return self._used_records == 0 or (
            self._used_records < self._records and self._used_bytes + size <= self._bytes
        )

    def _take(self, size: int) -> None:
        self._used_records += 1
        self._used_bytes += size

    def _admit(self) -> None:
        while self._waiting:
            size, place = self._waiting[0]
            if place.cancelled():
                self._waiting.popleft()
                continue
            if not self._fits(size):
                return
            self._waiting.popleft()
            self._take(size)
            place.set_result(None)
