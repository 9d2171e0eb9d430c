"""Subscribing: one connection for each subscription, which is resumed by a token at any node."""

from __future__ import annotations

import asyncio
import inspect
import json
from collections import deque
from types import TracebackType
from typing import Any, Callable, Optional, Union

from .errors import AnodeError, Lost, Retry, refusal
from .link import Dialer, Link
from .options import READ_AHEAD_BYTES, READ_AHEAD_RECORDS
from .records import Record, record_of
from .seen import Seen
from .tasks import end

#: The id of the frame that subscribes.
_SUBSCRIBE_ID = 1


class _Mark:
    """An event between records: the snapshot has ended, or the state begins anew."""

    def __init__(self, callback: Optional[Callable[[], Any]]) -> None:
        self.callback = callback


class _Queue:
    """What was read and not delivered yet, bounded in records and bytes."""

    def __init__(self) -> None:
        self._items: deque[tuple[Union[Record, _Mark], int]] = deque()
        self._bytes = 0
        self._changed = asyncio.Event()
        self._over = False
        self._error: Optional[AnodeError] = None

    async def put(self, item: Union[Record, _Mark], size: int) -> None:
        self._items.append((item, size))
        self._bytes += size
        self._changed.set()
        while self._bytes > READ_AHEAD_BYTES or len(self._items) > READ_AHEAD_RECORDS:
            self._changed.clear()
            await self._changed.wait()

    async def get(self) -> Union[Record, _Mark, None]:
        """Returns the next item; `None` at the end. Raises the error that ended the subscription."""
        while not self._items:
            if self._error is not None:
                raise self._error
            if self._over:
                return None
            self._changed.clear()
            await self._changed.wait()
        item, size = self._items.popleft()
        self._bytes -= size
        self._changed.set()
        return item

    def end(self, error: Optional[AnodeError]) -> None:
        """Ends the queue: with an error after what it holds, or without one at once."""
        self._over = True
        self._error = self._error or error
        if error is None:
            self._items.clear()
            self._bytes = 0
        self._changed.set()


class Feed:
    """What reads records from nodes, connection after connection."""

    def __init__(
        self,
        dialer: Dialer,
        request: dict[str, Any],
        on_reset: Optional[Callable[[], Any]],
        on_eos: Optional[Callable[[], Any]],
        feeds: set[Feed],
    ) -> None:
        #: All feeds of the client that run.
        self._feeds = feeds
        self._task: Optional[asyncio.Task[None]] = None
        self.queue = _Queue()
        self._dialer = dialer
        self._request = request
        self._on_reset = on_reset
        self._on_eos = on_eos
        self._seen = Seen()
        self._token: Optional[str] = None
        self._was_accepted = False
        self._in_snapshot = True

    def start(self) -> None:
        """Begins to connect."""
        self._feeds.add(self)
        self._task = asyncio.create_task(self._run())

    def cancel(self) -> None:
        """Ends the reading soon."""
        self._feeds.discard(self)
        if self._task is not None:
            self._task.cancel()

    async def stop(self) -> None:
        """Ends the reading, and drops what was read and not delivered."""
        self.queue.end(None)
        self.cancel()
        if self._task is not None:
            await end(self._task)

    async def _run(self) -> None:
        link: Optional[Link] = None
        try:
            while True:
                link = await self._dialer.dial()
                try:
                    await self._serve(link)
                except Lost as lost:
                    await link.close()
                    await self._dialer.handle_loss(lost, link)
        except AnodeError as error:
            self.queue.end(error)
        except Exception as error:
            self.queue.end(AnodeError("protocol", f"the client failed: {error!r}"))
            raise
        finally:
            self._feeds.discard(self)
            if link is not None:
                await asyncio.shield(link.close())

    async def _serve(self, link: Link) -> None:
        request = dict(self._request) if self._token is None else {**self._request, "resume": self._token}
        await link.send(json.dumps({"id": _SUBSCRIBE_ID, "subscribe": request}))
        while True:
            text, message = await link.receive()
            if not isinstance(message, dict):
                raise AnodeError("protocol", "a node sent an array that nobody has asked for")
            if "source" in message:
                await self._handle_record(text, message)
            elif "resume" in message:
                self._token = message["resume"]
            elif "eos" in message:
                self._token = message["eos"]["resume"]
                if self._in_snapshot:
                    self._in_snapshot = False
                    await self.queue.put(_Mark(self._on_eos), 0)
            elif message.get("id") == _SUBSCRIBE_ID:
                await self._handle_answer(message, "resume" in request)

    async def _handle_answer(self, message: dict[str, Any], resumes: bool) -> None:
        if "error" in message:
            error = refusal(message["error"])
            if error.temporary:
                raise Lost(error, Retry.BACK_OFF)
            raise error
        if resumes and message["result"].get("recovered") is True:
            return
        # All there is comes again. Deletions since then do not, so the program must forget what it held. If this
        # state does not come whole, the old token must not be used on top of a part of it.
        self._token = None
        self._in_snapshot = True
        if self._was_accepted:
            self._seen.forget()
            await self.queue.put(_Mark(self._on_reset), 0)
        self._was_accepted = True

    async def _handle_record(self, text: str, message: dict[str, Any]) -> None:
        record = record_of(message, self._in_snapshot)
        head = f'"origin":"{record.origin}",'
        start = text.find(head)
        data_hash = hash(text[start + len(head) :] if start >= 0 else json.dumps(record.data, default=repr))
        if self._seen.admit(record.source, record.ts, record.deleted, data_hash, record.gone):
            await self.queue.put(record, len(text))


class Subscription:
    """The records of a subscription: `async for record in subscription`.

    It ends when it is closed, when the client is closed, or with an `AnodeError` if it cannot go on. Leaving the loop
    and dropping the subscription closes it, too.
    """

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._loop = asyncio.get_running_loop()
        feed.start()

    def __aiter__(self) -> Subscription:
        return self

    async def __anext__(self) -> Record:
        while True:
            item = await self._feed.queue.get()
            if item is None:
                raise StopAsyncIteration
            if isinstance(item, Record):
                return item
            if item.callback is not None:
                done = item.callback()
                if inspect.isawaitable(done):
                    await done

    async def close(self) -> None:
        """Ends the subscription. Records that were read and not delivered are dropped."""
        await self._feed.stop()

    async def __aenter__(self) -> Subscription:
        return self

    async def __aexit__(
        self, kind: Optional[type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        await self.close()

    def __del__(self) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._feed.cancel)

