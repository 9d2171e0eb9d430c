"""One WebSocket to one node: handshake, greeting, tokens, and whether the node is still there."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any, Optional

from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as open_websocket
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, WebSocketException
from websockets.typing import Subprotocol

from .access import Access
from .address import NodeUrl
from .errors import RETRY_AFTER_MS_MAX, AnodeError, Lost, Retry, closed, refusal
from .options import MESSAGE_BYTES_MAX, OPEN_MAX_S, PING_MS_DEFAULT, SERVED_S, Options
from .roster import Attempts, Roster

#: The id of frames that bring a token. Publishes have numbers as ids.
_AUTH_ID = "auth"
#: Parts of the life of a token: it is renewed when a fifth is left, or a minute if that is less.
_RENEW_PART, _RENEW_BEFORE_S = 0.2, 60.0
#: After so many refused tokens in a row the client gives up.
REFUSED_TOKENS_MAX = 3
#: The shortest time between two attempts to renew a token, in seconds.
_RENEW_WAIT_MIN_S = 1.0


class Link:
    """An open connection. `receive` must be called again and again; `close` must be called at the end."""

    def __init__(self, ws: ClientConnection, node: NodeUrl, token: Optional[str], access: Access, options: Options):
        self._ws = ws
        self._access = access
        self._options = options
        self.token = token
        self._refused: Optional[AnodeError] = None
        self._heard = self._opened = time.monotonic()
        self._reads = False
        self._silent = False
        self._tasks: list[asyncio.Task[None]] = []
        self._renewal: Optional[asyncio.Task[None]] = None
        self.node = node
        self.members: list[str] = []
        self.ping_s = PING_MS_DEFAULT / 1000
        self.max_frame_bytes: Optional[int] = None

    async def begin(self) -> None:
        """Waits for the greeting, and starts what watches the connection."""
        message = await self.receive()
        greeting = message[1].get("connected")
        if not isinstance(greeting, dict):
            raise Lost(AnodeError("protocol", f"{self.node} does not greet as a node does"), Retry.BACK_OFF)
        self.members = [str(member["http"]) for member in greeting.get("members", []) if "http" in member]
        self.ping_s = max(greeting.get("ping_ms", PING_MS_DEFAULT), 1) / 1000
        self.max_frame_bytes = greeting.get("max_frame_bytes")
        self._tasks.append(asyncio.create_task(self._watch()))
        if self._access.renews:
            # The answer tells when the token ends.
            await self._bring()

    @property
    def served(self) -> bool:
        """Whether the connection has lived for a while."""
        return time.monotonic() - self._opened >= SERVED_S

    async def send(self, text: str) -> None:
        """Sends a frame. Waits while the node does not read."""
        try:
            await self._ws.send(text)
        except ConnectionClosed as error:
            raise self._lost(error) from error

    async def receive(self) -> tuple[str, Any]:
        """Returns the next frame, as text and as JSON. Answers about tokens are dealt with here."""
        while True:
            self._reads = True
            try:
                text = await self._ws.recv()
            except ConnectionClosed as error:
                raise self._lost(error) from error
            finally:
                self._reads = False
            self._heard = time.monotonic()
            try:
                message = json.loads(text)
            except ValueError as error:
                what = f"{self.node} sent a frame that is not JSON"
                raise Lost(AnodeError("protocol", what), Retry.BACK_OFF) from error
            if isinstance(message, dict):
                if message.get("id") == _AUTH_ID:
                    self._handle_auth(message)
                    continue
                if "error" in message and "id" not in message and "index" not in message:
                    # The reason of the close that follows, or of nothing that this client waits for.
                    self._refused = refusal(message["error"])
                    self._options.report(self._refused)
                    continue
            return (text if isinstance(text, str) else text.decode()), message

    async def close(self) -> None:
        """Closes the connection in good order."""
        for task in [*self._tasks, *([self._renewal] if self._renewal else [])]:
            task.cancel()
        self._ws.close_timeout = 1.0
        await self._ws.close()

    def _lost(self, error: ConnectionClosed) -> Lost:
        if self._silent:
            what = f"{self.node} was silent for {self.ping_s:g} s"
            return Lost(AnodeError("unavailable", what, temporary=True), Retry.NOW)
        frame = error.rcvd
        code, reason = (frame.code, frame.reason) if frame is not None else (1006, "")
        if frame is None and error.sent is not None and error.sent.code in (1007, 1009):
            code, reason = 1006, error.sent.reason
        return closed(code, reason, self._refused)

    async def _watch(self) -> None:
        """Sends pings while nothing comes, and ends the connection if nothing comes for the time of the greeting."""
        while True:
            await asyncio.sleep(self.ping_s / 4)
            if not self._reads:
                # The program is slow, so nothing is read. The ping only shows the node that this client lives.
                self._heard = time.monotonic()
            silence = time.monotonic() - self._heard
            if silence > self.ping_s:
                self._silent = True
                self._ws.transport.abort()
                return
            if silence > self.ping_s / 2 or not self._reads:
                try:
                    pong = await self._ws.ping()
                except ConnectionClosed:
                    return
                asyncio.ensure_future(pong).add_done_callback(self._handle_pong)

    def _handle_pong(self, pong: asyncio.Future[float]) -> None:
        if not pong.cancelled() and pong.exception() is None:
            self._heard = time.monotonic()

    async def _bring(self) -> None:
        await self.send(json.dumps({"id": _AUTH_ID, "auth": {"token": self.token}}))

    def _handle_auth(self, message: dict[str, Any]) -> None:
        if "error" in message:
            self._refused = refusal(message["error"])
            return
        expires = message.get("result", {}).get("expires")
        if expires is not None and self._access.renews:
            if self._renewal is not None:
                self._renewal.cancel()
            self._renewal = asyncio.create_task(self._renew(float(expires)))

    async def _renew(self, expires: float) -> None:
        left = expires - time.time()
        await asyncio.sleep(max(left - min(_RENEW_BEFORE_S, left * _RENEW_PART), _RENEW_WAIT_MIN_S))
        while True:
            try:
                self.token = await self._access.renew(self.token)
                await self._bring()
                return
            except AnodeError as error:
                self._options.report(error)
                await asyncio.sleep(_RENEW_WAIT_MIN_S)
            except Lost:
                return


class Dialer:
    """Opens the connections of one kind, one after the other."""

    def __init__(self, path: str, roster: Roster, access: Access, options: Options) -> None:
        self._path = path
        self._roster = roster
        self._access = access
        self._options = options
        self._attempts = Attempts(roster)
        self._wait_s = 0.0
        # The token of the last attempt, and how many were refused in a row.
        self._token: Optional[str] = None
        self._refused_tokens = 0
        #: The failure of the last attempt.
        self.failure: Optional[AnodeError] = None

    @property
    def has_others(self) -> bool:
        """Whether there is more than one node to connect to."""
        return len(self._roster.candidates(None)) > 1

    async def dial(self) -> Link:
        """Returns a new connection to any node. Raises `AnodeError` if it makes no sense to go on trying."""
        while True:
            await asyncio.sleep(self._wait_s)
            try:
                return await self._open(self._attempts.next())
            except Lost as lost:
                await self.handle_loss(lost, None)

    async def handle_loss(self, lost: Lost, link: Optional[Link]) -> None:
        """Notes why a connection was lost. Raises `AnodeError` if it makes no sense to connect again."""
        if link is not None and link.served:
            self._attempts.succeed()
            self._refused_tokens = 0
        self.failure = lost.error
        retry = lost.retry
        if retry is Retry.NEVER:
            if lost.error.code != "unauthorized" or not self._access.renews or self._refused_tokens >= REFUSED_TOKENS_MAX:
                raise lost.error
            retry = await self._renew(link.token if link is not None else self._token)
        self._wait_s = self._attempts.wait_s(retry)
        if lost.error.retry_after_ms is not None:
            self._wait_s = max(self._wait_s, lost.error.retry_after_ms / 1000)
        self._options.report(lost.error)

    async def _renew(self, used: Optional[str]) -> Retry:
        """Fetches another token after one was refused. A fresh one may be known to some nodes before others."""
        try:
            fresh = await self._access.renew(used)
        except AnodeError as error:
            self._options.report(error)
            return Retry.BACK_OFF
        self._refused_tokens += 1
        return Retry.SOON if fresh != used else Retry.BACK_OFF

    async def _open(self, node: NodeUrl) -> Link:
        ws: Optional[ClientConnection] = None
        try:
            token = self._token = await self._access.token()
            ws = await asyncio.wait_for(self._handshake(node, token), OPEN_MAX_S)
            link = Link(ws, node, token, self._access, self._options)
            await asyncio.wait_for(link.begin(), OPEN_MAX_S)
            self._roster.handle_greeting(node, link.members)
            return link
        except AnodeError as error:
            raise Lost(error, Retry.BACK_OFF if error.temporary else Retry.NEVER) from error
        except InvalidStatus as error:
            raise _refused_handshake(node, error) from error
        except (OSError, asyncio.TimeoutError, InvalidHandshake, WebSocketException) as error:
            message = f"{node}: {error or type(error).__name__}"
            raise Lost(AnodeError("unavailable", message, temporary=True), Retry.SOON) from error
        except Lost:
            if ws is not None:
                ws.transport.abort()
            raise

    async def _handshake(self, node: NodeUrl, token: Optional[str]) -> ClientConnection:
        return await open_websocket(
            node.websocket(self._path),
            additional_headers={"Authorization": f"Bearer {token}"} if token is not None else None,
            subprotocols=[Subprotocol("anode.v1.json")],
            ssl=self._options.ssl if node.tls else None,
            compression=None,
            proxy=None,
            open_timeout=OPEN_MAX_S,
            ping_interval=None,
            max_size=MESSAGE_BYTES_MAX,
            max_queue=16,
        )


def _refused_handshake(node: NodeUrl, refused: InvalidStatus) -> Lost:
    """Returns the loss for a handshake that was answered with a status."""
    status, body = refused.response.status_code, bytes(refused.response.body or b"")
    try:
        error = refusal(json.loads(body))
    except (ValueError, AttributeError):
        error = AnodeError("unavailable", f"{node} answered the handshake with {status}", temporary=True)
    if status in (400, 401, 403):
        return Lost(error, Retry.NEVER)
    after = refused.response.headers.get("Retry-After", "")
    if error.retry_after_ms is None and after.isdigit():
        error.retry_after_ms = min(int(after) * 1000, RETRY_AFTER_MS_MAX)
    return Lost(error, Retry.BACK_OFF)
