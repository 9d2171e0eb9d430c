"""Publishing: every record is sent until it is answered, at most within its time, always with the same timestamp."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
from collections import deque
from dataclasses import dataclass, field
from typing import Any, Optional

from .errors import AnodeError, Lost, Retry, refusal
from .link import Dialer, Link
from .options import Options
from .records import Ack, ack_of
from .stamps import Stamps
from .tasks import end
from .window import Window

#: Refusals that are about the node and not about the record, so that another node may take it.
_OF_THE_NODE = {"clock_skew", "overloaded", "store_unavailable"}
#: After so many of them for one record, the client goes to another node.
_REFUSALS_MAX = 4
#: The bounds of the wait before a record is sent again that was refused for a while, in seconds.
_AGAIN_FIRST_S, _AGAIN_MAX_S = 0.1, 5.0


@dataclass
class _Outgoing:
    """A record on its way."""

    id: int
    source: str
    #: The fields of the frame but for id, source and ts.
    fields: str
    ts: Optional[int]
    #: Whether the timestamp was chosen by this client and not by the user.
    is_stamped_here: bool
    deadline: float
    answer: asyncio.Future[Ack] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    #: Whether it was sent on the connection that is open now.
    is_sent: bool = False
    #: Whether it may have been applied: `None` means that an answer was lost.
    applied: Optional[bool] = False
    refusals: int = 0
    refused: Optional[AnodeError] = None
    waits: bool = False

    def frame(self) -> str:
        ts = "" if self.ts is None else f'"ts":{self.ts},'
        source = json.dumps(self.source, ensure_ascii=False)
        return f'{{"id":{self.id},"source":{source},{ts}{self.fields}}}'

    def fail(self, error: AnodeError) -> None:
        if not self.answer.done():
            error.ts = error.ts if error.ts is not None else self.ts
            if error.applied is False:
                error.applied = self.applied
            self.answer.set_exception(error)

    def is_certain(self) -> bool:
        """Whether an answer is about the only attempt that can have reached a node."""
        return self.is_stamped_here and self.applied is False


class Publisher:
    """The records on their way, and the connection that they take."""

    def __init__(self, dialer: Dialer, stamps: Stamps, options: Options) -> None:
        self._dialer = dialer
        self._stamps = stamps
        self._options = options
        self._ids = itertools.count(1)
        self._window = Window(options.max_outstanding, options.max_outstanding_bytes)
        self._outgoing: dict[int, _Outgoing] = {}
        self._ready: deque[_Outgoing] = deque()
        self._wake = asyncio.Event()
        self._link: Optional[Link] = None
        self._over: Optional[AnodeError] = None
        self._task: Optional[asyncio.Task[None]] = None
        #: Is set when the first connection is open, or when there will be none.
        self.begun = asyncio.Event()

    def start(self) -> None:
        """Begins to connect."""
        self._task = asyncio.create_task(self._run())

    @property
    def error(self) -> Optional[AnodeError]:
        """Why nothing can be published any more; `None` while it can."""
        return self._over

    async def publish(self, source: str, fields: str, ts: Optional[int], timeout: Optional[float]) -> Ack:
        """Sends a record until it is answered."""
        self._check()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + (self._options.publish_timeout if timeout is None else timeout)
        try:
            size = len(source.encode()) + len(fields.encode())
        except UnicodeEncodeError as error:
            raise AnodeError("bad_json", f"half a surrogate pair cannot be sent: {error}") from error
        try:
            await asyncio.wait_for(self._window.enter(size), deadline - loop.time())
        except asyncio.TimeoutError:
            message = "as many records as may be outstanding had no answer in time"
            raise AnodeError("timeout", message, temporary=True, ts=ts) from None
        outgoing: Optional[_Outgoing] = None
        try:
            self._check()
            stamp = self._stamps.next(source) if ts is None else ts
            outgoing = _Outgoing(next(self._ids), source, fields, stamp, ts is None, deadline)
            self._outgoing[outgoing.id] = outgoing
            self._send(outgoing)
            return await asyncio.wait_for(asyncio.shield(outgoing.answer), deadline - loop.time())
        except asyncio.TimeoutError:
            raise self._overdue(outgoing) from None
        finally:
            if outgoing is not None:
                self._outgoing.pop(outgoing.id, None)
                outgoing.answer.cancel()
            self._window.leave(size)

    async def close(self, error: AnodeError) -> None:
        """Ends the connection. What is unanswered fails with this error."""
        self._fail(error)
        if self._task is not None:
            await end(self._task)
        if self._link is not None:
            await self._link.close()

    def _check(self) -> None:
        if self._over is not None:
            over = self._over
            raise AnodeError(over.code, over.message, temporary=over.temporary)

    def _overdue(self, outgoing: Optional[_Outgoing]) -> AnodeError:
        assert outgoing is not None
        applied: Optional[bool] = None if outgoing.is_sent else outgoing.applied
        if outgoing.refused is not None:
            error = outgoing.refused
            error.applied = error.applied or applied
        else:
            why = self._dialer.failure if self._link is None else None
            message = "no answer in time" + (f"; {why}" if why else "")
            error = AnodeError("timeout", message, temporary=True, applied=applied)
        error.ts = outgoing.ts
        return error

    def _send(self, outgoing: _Outgoing) -> None:
        outgoing.waits = False
        self._ready.append(outgoing)
        self._wake.set()

    def _fail(self, error: AnodeError) -> None:
        self._over = self._over or error
        self.begun.set()
        for outgoing in list(self._outgoing.values()):
            outgoing.applied = None if outgoing.is_sent and not outgoing.applied else outgoing.applied
            outgoing.fail(AnodeError(error.code, error.message, temporary=error.temporary))

    async def _run(self) -> None:
        try:
            while True:
                link = self._link = await self._dialer.dial()
                self.begun.set()
                try:
                    await self._serve(link)
                except Lost as lost:
                    self._link = None
                    self._handle_loss()
                    await link.close()
                    await self._dialer.handle_loss(lost, link)
        except AnodeError as error:
            self._fail(error)
        except Exception as error:
            self._fail(AnodeError("protocol", f"the client failed: {error!r}"))
            raise

    def _handle_loss(self) -> None:
        """Decides what becomes of the records that were sent on the connection that is lost."""
        for outgoing in list(self._outgoing.values()):
            if not outgoing.is_sent:
                continue
            outgoing.is_sent = False
            outgoing.applied = outgoing.applied or None
            if outgoing.ts is None:
                message = "the connection was lost before the answer, and the record has no timestamp"
                outgoing.fail(AnodeError("unanswered", message, temporary=True, applied=None))

    async def _serve(self, link: Link) -> None:
        self._ready = deque(outgoing for outgoing in self._outgoing.values() if not outgoing.waits)
        self._wake.set()
        writer = asyncio.create_task(self._write(link))
        try:
            while True:
                _, message = await link.receive()
                for answer in message if isinstance(message, list) else [message]:
                    self._handle_answer(answer)
        finally:
            writer.cancel()
            await asyncio.gather(writer, return_exceptions=True)

    async def _write(self, link: Link) -> None:
        try:
            while True:
                while self._ready:
                    outgoing = self._ready.popleft()
                    if outgoing.answer.done() or outgoing.is_sent:
                        continue
                    frame = outgoing.frame()
                    size = len(frame.encode())
                    if link.max_frame_bytes is not None and size > link.max_frame_bytes:
                        message = f"the frame has {size} bytes; the node takes at most {link.max_frame_bytes}"
                        outgoing.fail(AnodeError("too_large", message))
                        continue
                    outgoing.is_sent = True
                    await link.send(frame)
                self._wake.clear()
                await self._wake.wait()
        except Lost:
            # The reader notices the same.
            return
        except Exception as error:
            self._fail(AnodeError("protocol", f"the client failed: {error!r}"))
            raise

    def _handle_answer(self, message: Any) -> None:
        id = message.get("id") if isinstance(message, dict) else None
        outgoing = self._outgoing.get(id) if isinstance(id, int) else None
        if outgoing is None or outgoing.answer.done():
            # The program has given up waiting for this answer.
            return
        outgoing.is_sent = False
        if "error" in message:
            self._handle_refusal(outgoing, refusal(message["error"]))
            return
        try:
            ack = ack_of(message["result"])
        except (AnodeError, KeyError) as error:
            outgoing.fail(AnodeError("protocol", str(error), applied=None))
            return
        if outgoing.ts is None:
            self._stamps.handle_node_clock(ack.ts)
        if ack.outcome == "stale" and outgoing.is_certain() and ack.current_ts is not None:
            # The clock of this machine is behind. A record without a timestamp of the user wins over what is there.
            self._stamps.learn(outgoing.source, ack.current_ts)
            try:
                outgoing.ts = self._stamps.next(outgoing.source)
            except AnodeError as error:
                outgoing.fail(error)
                return
            self._send(outgoing)
            return
        if not outgoing.is_stamped_here:
            self._stamps.learn(outgoing.source, ack.ts)
        outgoing.answer.set_result(ack)

    def _handle_refusal(self, outgoing: _Outgoing, error: AnodeError) -> None:
        if error.code == "future_timestamp" and outgoing.is_certain() and outgoing.ts is not None:
            # The clock of this machine is ahead. The node stamps this record, and tells its clock so.
            outgoing.ts = None
            self._send(outgoing)
            return
        outgoing.applied = True if error.applied else outgoing.applied
        if not error.temporary:
            outgoing.fail(error)
            return
        outgoing.refusals += 1
        outgoing.refused = error
        bound = min(_AGAIN_FIRST_S * 2.0 ** min(outgoing.refusals, 16), _AGAIN_MAX_S)
        wait_s = max(random.uniform(0, bound), (error.retry_after_ms or 0) / 1000)
        loop = asyncio.get_running_loop()
        if loop.time() + wait_s >= outgoing.deadline:
            outgoing.fail(error)
            return
        outgoing.waits = True
        loop.call_later(wait_s, self._send, outgoing)
        if outgoing.refusals % _REFUSALS_MAX == 0 and error.code in _OF_THE_NODE and self._dialer.has_others:
            raise Lost(error, Retry.SOON)
