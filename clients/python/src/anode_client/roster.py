"""Which nodes there are to connect to, and how long to wait before the next attempt."""

from __future__ import annotations

import random
from typing import Optional

from .address import NodeUrl
from .errors import Retry

#: The longest wait before an attempt, in seconds.
WAIT_MAX_S = 10.0
#: The bound of the first wait after a loss, and after a node has asked to back off, in seconds.
_FIRST_WAIT_S = {Retry.NOW: 0.1, Retry.SOON: 0.1, Retry.BACK_OFF: 1.0}


class Roster:
    """The nodes that the user has named, and those that the greetings have named."""

    def __init__(self, seeds: list[NodeUrl]) -> None:
        self.seeds = seeds
        self.greeted: list[NodeUrl] = []
        #: The node to which the client was connected last.
        self.current: Optional[NodeUrl] = None

    def handle_greeting(self, node: NodeUrl, members: list[str]) -> None:
        """Takes the members of a greeting in place of the earlier ones."""
        self.current = node
        named = [member for member in map(node.member, members) if member is not None]
        if named:
            self.greeted = named

    def candidates(self, avoid: Optional[NodeUrl]) -> list[NodeUrl]:
        """Returns all nodes, the next to try first: greeted ones in random order, then seeds, `avoid` last."""
        greeted = random.sample(self.greeted, len(self.greeted))
        nodes = list(dict.fromkeys(greeted + self.seeds)) if avoid else list(dict.fromkeys(self.seeds + greeted))
        return sorted(nodes, key=lambda node: node == avoid)


class Attempts:
    """The attempts to open one connection, over all nodes, with growing waits between them."""

    def __init__(self, roster: Roster) -> None:
        self._roster = roster
        self._left: list[NodeUrl] = []
        self._failures = 0
        self._last: Optional[NodeUrl] = None

    def next(self) -> NodeUrl:
        """Returns the node to try. Every node is tried once before any is tried again."""
        if not self._left:
            self._left = self._roster.candidates(self._last)
        self._last = self._left.pop(0)
        return self._last

    def succeed(self) -> None:
        """Notes that a connection has served for a while, so that the next loss is the first of its kind."""
        self._failures = 0

    def wait_s(self, retry: Retry) -> float:
        """Notes a failure, and returns the wait before the next attempt: full jitter, with a doubling bound."""
        self._failures += 1
        if self._failures == 1:
            self._left = []
            if retry is Retry.NOW:
                return 0.0
        bound = _FIRST_WAIT_S[retry] * 2.0 ** min(self._failures - 1, 16)
        return random.uniform(0.0, min(bound, WAIT_MAX_S))
