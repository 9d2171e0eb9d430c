"""A node that misbehaves in known ways. The behaviour is the first segment of the path, and the second one is the client
that is tested, so that all clients can be tested at the same time."""

from __future__ import annotations

import asyncio
import json
import time
from collections import defaultdict
from http import HTTPStatus
from typing import Any, Awaitable, Callable, Optional

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

#: How long nodes may be silent by their greetings, where the test is about that, in milliseconds.
PING_MS = {"silent": 400, "flood": 1_500}
#: Records that `flood` sends, and the bytes of their data: more than sockets hold.
FLOOD_RECORDS, FLOOD_BYTES = 8_000, 4_000
#: How far the clock of the node in `behind` is behind, in microseconds.
HOUR_US = 3_600_000_000

Frame = dict[str, Any]


def result(frame: Frame, **fields: Any) -> str:
    answer = {"ts": frame.get("ts", 0), "outcome": "applied", "level": frame.get("ack", "accepted"), **fields}
    return json.dumps({"id": frame["id"], "result": answer})


def error(frame: Frame, code: str, **fields: Any) -> str:
    return json.dumps({"id": frame["id"], "error": {"code": code, "message": "as the test wants", **fields}})


def record(source: str, ts: int, data: Any) -> str:
    body = {"deleted": True} if data is None else {"data": data}
    return json.dumps({"source": source, "ts": ts, "origin": "fake", **body}, separators=(",", ":"))


class FakeNode:
    """The node, and what it has received by (behaviour, client)."""

    def __init__(self) -> None:
        self.frames: dict[tuple[str, str], list[Frame]] = defaultdict(list)
        #: The times at which connections were asked for.
        self.connections: dict[tuple[str, str], list[float]] = defaultdict(list)
        #: How many records `flood` has been able to send.
        self.flooded: dict[str, int] = {}
        self._server: Optional[Server] = None
        self._stopping = asyncio.Event()
        self.port = 0

    async def start(self) -> None:
        self._server = await serve(
            self._serve, "127.0.0.1", 0, process_request=self._process, ping_interval=None, subprotocols=None,
            select_subprotocol=lambda _, offered: offered[0] if offered else None, max_queue=None,
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        self._stopping.set()
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    def _process(self, connection: ServerConnection, request: Request) -> Optional[Response]:
        _, behaviour, client, _ = request.path.split("/", 3)
        times = self.connections[behaviour, client]
        times.append(time.monotonic())
        if behaviour == "unauthorized":
            return connection.respond(HTTPStatus.UNAUTHORIZED, '{"code":"unauthorized","detail":"no","temporary":false}')
        if behaviour == "busy" and len(times) == 1:
            response = connection.respond(
                HTTPStatus.TOO_MANY_REQUESTS, '{"code":"rate_limited","detail":"wait","temporary":true}'
            )
            response.headers["Retry-After"] = "1"
            return response
        if behaviour == "gone" and len(times) > 1:
            response = connection.respond(
                HTTPStatus.SERVICE_UNAVAILABLE, '{"code":"overloaded","detail":"later","temporary":true}'
            )
            response.headers["Retry-After"] = "60"
            return response
        return None

    async def _serve(self, ws: ServerConnection) -> None:
        assert ws.request is not None
        _, behaviour, client, path = ws.request.path.split("/", 3)
        key = (behaviour, client)
        greeting = {
            "node": "fake", "session": "s", "ping_ms": PING_MS.get(behaviour, 25_000),
            "max_record_bytes": 65_536, "max_frame_bytes": 1_048_576, "members": [],
        }
        await ws.send(json.dumps({"connected": greeting}))
        act: Callable[..., Awaitable[None]] = getattr(self, f"_{behaviour}")
        try:
            await act(ws, self.frames[key], len(self.connections[key]))
        except ConnectionClosed:
            pass

    async def _next(self, ws: ServerConnection, frames: list[Frame]) -> Frame:
        while True:
            frame: Frame = json.loads(await ws.recv())
            if "auth" not in frame:
                frames.append(frame)
                return frame

    async def _silent(self, ws: ServerConnection, frames: list[Frame], connection: int) -> None:
        if connection == 1:
            # Neither data nor pings are read, so no pong is sent.
            ws.transport.pause_reading()
            await self._stopping.wait()
        await self._well(ws, frames, connection)

    async def _well(self, ws: ServerConnection, frames: list[Frame], connection: int) -> None:
        while True:
            await ws.send(result(await self._next(ws, frames)))

    _busy = _well

    async def _gone(self, ws: ServerConnection, frames: list[Frame], connection: int) -> None:
        await ws.send(result(await self._next(ws, frames)))
        await ws.close(1001)

    async def _flood(self, ws: ServerConnection, frames: list[Frame], connection: int) -> None:
        """More than a program takes that is slow at first."""
        frame = await self._next(ws, frames)
        assert ws.request is not None
        client = ws.request.path.split("/")[2]
        await ws.send(json.dumps({"id": frame["id"], "result": {"subscription": 1}}))
        for number in range(FLOOD_RECORDS):
            await ws.send(record("s/a", number, f"{number} " + "x" * FLOOD_BYTES))
            self.flooded[client] = number + 1
            if number % 50 == 0:
                # Pings are answered in between.
                await asyncio.sleep(0)
        await ws.send(json.dumps({"eos": {"subscription": 1, "resume": "T1"}}))
        await self._stopping.wait()

    async def _overloaded(self, ws: ServerConnection, frames: list[Frame], connection: int) -> None:
        while True:
            frame = await self._next(ws, frames)
            if len(frames) <= 2:
                await ws.send(error(frame, "overloaded", temporary=True))
            else:
                await ws.send(result(frame))

    async def _late(self, ws: ServerConnection, frames: list[Frame], connection: int) -> None:
        """The level is not reached at first, although the record was applied."""
        while True:
            frame = await self._next(ws, frames)
            if len(frames) == 1:
                await ws.send(error(frame, "timeout", temporary=True, applied=True, ts=frame["ts"]))
            else:
                await ws.send(result(frame, outcome="duplicate"))

    async def _full(self, ws: ServerConnection, frames: list[Frame], connection: int) -> None:
        while True:
            frame = await self._next(ws, frames)
            await ws.send(error(frame, "rate_limited", temporary=True, retry_after_ms=600))

    async def _lost(self, ws: ServerConnection, frames: list[Frame], connection: int) -> None:
        frame = await self._next(ws, frames)
        if connection == 1:
            ws.transport.abort()
            return
        # The other attempt came through, and something newer came since.
        await ws.send(result(frame, outcome="stale", current_ts=frame["ts"] + 5))
        await self._well(ws, frames, connection)

    async def _behind(self, ws: ServerConnection, frames: list[Frame], connection: int) -> None:
        """The clock of the client is behind: the source has a newer record."""
        while True:
            frame = await self._next(ws, frames)
            if len(frames) == 1:
                await ws.send(result(frame, outcome="stale", current_ts=frame["ts"] + 5_000_000))
            else:
                await ws.send(result(frame))

    async def _ahead(self, ws: ServerConnection, frames: list[Frame], connection: int) -> None:
        """The clock of the client is ahead of the node's by an hour."""
        while True:
            frame = await self._next(ws, frames)
            now = time.time_ns() // 1_000 - HOUR_US
            if frame.get("ts", 0) > now + 10_000_000:
                await ws.send(error(frame, "future_timestamp", temporary=False))
            else:
                await ws.send(result(frame, ts=frame.get("ts", now)))

    async def _deaf(self, ws: ServerConnection, frames: list[Frame], connection: int) -> None:
        while True:
            await self._next(ws, frames)

    async def _close(self, ws: ServerConnection, frames: list[Frame], connection: int, code: int) -> None:
        await self._next(ws, frames)
        if connection <= 2:
            await ws.close(code)
            return
        ws_frames = frames[-1]
        await ws.send(result(ws_frames))
        await self._well(ws, frames, connection)

    async def _close4002(self, ws: ServerConnection, frames: list[Frame], connection: int) -> None:
        await self._close(ws, frames, connection, 4002)

    async def _close1009(self, ws: ServerConnection, frames: list[Frame], connection: int) -> None:
        await self._close(ws, frames, connection, 1009)

    async def _close4100(self, ws: ServerConnection, frames: list[Frame], connection: int) -> None:
        await self._close(ws, frames, connection, 4100)

    async def _close4200(self, ws: ServerConnection, frames: list[Frame], connection: int) -> None:
        await self._close(ws, frames, connection, 4200)

    async def _resume(self, ws: ServerConnection, frames: list[Frame], connection: int) -> None:
        """Four connections: the first begins, the second recovers and repeats itself, the third does not recover and
        breaks off within its snapshot, the fourth must begin anew."""
        frame = await self._next(ws, frames)
        if "subscribe" not in frame:
            # The connection for publishing.
            frames.pop()
            await ws.send(result(frame))
            await self._stopping.wait()
        number = len(frames)

        async def say(*messages: Any) -> None:
            for message in messages:
                await ws.send(message if isinstance(message, str) else json.dumps(message))

        accepted = {"id": frame["id"], "result": {"subscription": 1}}
        if number == 1:
            await say(accepted, record("s/a", 10, 1), record("s/b", 11, 1))
            await say({"eos": {"subscription": 1, "resume": "T1"}}, record("s/a", 12, 2), {"resume": "T2"})
            await say(record("s/c", 13, 1), record("s/c", 13, None))
        elif number == 2:
            accepted["result"]["recovered"] = True
            await say(accepted, record("s/a", 11, 0), record("s/a", 12, 2), record("s/a", 12, 3))
            await say(record("s/c", 13, 1), record("s/b", 14, None), {"eos": {"subscription": 1, "resume": "T3"}})
            await say(record("s/b", 15, 2))
        elif number == 3:
            accepted["result"]["recovered"] = False
            await say(accepted, record("s/a", 9, 9))
        else:
            await say(accepted, record("s/a", 9, 9), record("s/d", 1, 1), {"eos": {"subscription": 1, "resume": "T4"}})
            await self._stopping.wait()
        await asyncio.sleep(0.2)
        await ws.close(4200)
