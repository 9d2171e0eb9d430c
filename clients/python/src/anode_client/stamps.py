"""Timestamps of records that the user publishes without one.

The client gives every record its timestamp before the record is sent. So a record whose answer was lost can be sent
again, to any node, and is the same record there. A timestamp is at least the wall clock, greater than all earlier ones of
this client, and greater than any of its source that this client knows of.
"""

from __future__ import annotations

import time
from typing import Callable

from .errors import AnodeError
from .records import TS_MAX

#: Sources whose timestamps are ahead of the clock and remembered; more are forgotten, the oldest first.
AHEAD_MAX = 65_536


def wall_clock_us() -> int:
    """Returns the wall clock in microseconds since the Unix epoch."""
    return time.time_ns() // 1_000


class Stamps:
    """The clock of one client."""

    def __init__(self, clock: Callable[[], int] = wall_clock_us) -> None:
        self._clock = clock
        self._last = 0
        # How far the nodes' clock is behind this machine's; never positive, in microseconds.
        self._offset = 0
        self._ahead: dict[str, int] = {}

    def next(self, source: str) -> int:
        """Returns a timestamp for a new record of the source."""
        now = max(self._clock() + self._offset, self._last + 1)
        self._last = now
        known = self._ahead.pop(source, 0)
        if known < now:
            return now
        if known >= TS_MAX:
            raise AnodeError("future_timestamp", f"the latest ts of {source!r} is the greatest there is")
        self._remember(source, known + 1)
        return known + 1

    def learn(self, source: str, ts: int) -> None:
        """Notes that the source has a record with this timestamp."""
        if ts > max(self._last, self._ahead.get(source, 0)):
            self._ahead.pop(source, None)
            self._remember(source, ts)

    def handle_node_clock(self, ts: int) -> None:
        """Notes the time of a node, after it has refused a timestamp of this clock as too far ahead."""
        self._offset = min(0, ts - self._clock())
        # Earlier timestamps were refused, so none of them needs to be exceeded.
        self._last = 0

    def _remember(self, source: str, ts: int) -> None:
        if len(self._ahead) >= AHEAD_MAX:
            del self._ahead[next(iter(self._ahead))]
        self._ahead[source] = ts
