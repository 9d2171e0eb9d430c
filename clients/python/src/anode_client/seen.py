"""Which records a subscription has delivered, so that none comes twice or out of order after it was resumed."""

from __future__ import annotations

from typing import Optional

#: Deleted sources, and those that are gone, that are remembered, in each of two generations.
DELETED_MAX = 65_536

_Mark = tuple[int, bool, int]


class Seen:
    """The newest timestamp of every source, with a hash of its data."""

    def __init__(self) -> None:
        self._live: dict[str, _Mark] = {}
        self._deleted: dict[str, _Mark] = {}
        self._deleted_before: dict[str, _Mark] = {}

    def admit(self, source: str, ts: int, deleted: bool, data_hash: int, gone: bool = False) -> bool:
        """Returns whether the record is to be delivered, and remembers it if so.

        Of two records with the same timestamp a node sends the winner last, so a second one with other data is new.
        """
        mark = (ts, deleted, data_hash)
        known = self._known(source)
        if known is not None and (mark[:2] < known[:2] or mark == known):
            return False
        self._live.pop(source, None)
        self._deleted.pop(source, None)
        if deleted or gone:
            self._deleted[source] = mark
            if len(self._deleted) > DELETED_MAX:
                self._deleted_before, self._deleted = self._deleted, {}
        else:
            self._live[source] = mark
        return True

    def forget(self) -> None:
        """Forgets everything: the state begins anew."""
        self.__init__()  # type: ignore[misc]

    def _known(self, source: str) -> Optional[_Mark]:
        for marks in (self._live, self._deleted, self._deleted_before):
            mark = marks.get(source)
            if mark is not None:
                return mark
        return None
