"""Reading over HTTP: the latest record of a source, lists and histories, page by page."""

from __future__ import annotations

import asyncio
import http.client
import json
import random
import time
from typing import Any, AsyncIterator, Generator, Optional
from urllib.parse import quote, urlencode

from .access import Access
from .address import NodeUrl
from .errors import AnodeError, refusal
from .options import OPEN_MAX_S, Options
from .records import Record, record_of
from .roster import Roster

#: Records of a page.
PAGE = 1_000
#: The bounds of the wait before a request is sent again, in seconds.
_AGAIN_FIRST_S, _AGAIN_MAX_S = 0.1, 2.0


class Pages:
    """Records of a list or history: `async for record in pages`, or `await pages` for all of them at once."""

    def __init__(self, reads: Reads, path: str, query: dict[str, Any]) -> None:
        self._reads = reads
        self._path = path
        self._query = query

    async def __aiter__(self) -> AsyncIterator[Record]:
        after: Optional[str] = None
        while True:
            query = {**self._query, "limit": PAGE, **({"after": after} if after is not None else {})}
            page = await self._reads.fetch(f"{self._path}?{urlencode(query)}")
            for body in page.get("records", []):
                yield record_of(body)
            after = page.get("after")
            if after is None:
                return

    def __await__(self) -> Generator[Any, None, list[Record]]:
        return self._all().__await__()

    async def _all(self) -> list[Record]:
        return [record async for record in self]


class Reads:
    """Requests over HTTP, to the node of the client's connection first, and to others if that does not answer."""

    def __init__(self, roster: Roster, access: Access, options: Options) -> None:
        self._roster = roster
        self._access = access
        self._options = options

    async def get(self, source: str) -> Optional[Record]:
        """Returns the latest record of a source; `None` if there is none."""
        try:
            return record_of(await self.fetch(f"/v1/sources/{_name(source)}"))
        except AnodeError as error:
            if error.code == "not_found":
                return None
            raise

    def list(self, pattern: str) -> Pages:
        """Returns the latest records of all sources that match, in the order of their names."""
        return Pages(self, "/v1/sources", {"pattern": pattern})

    def history(self, source: str, start: Optional[int], end: Optional[int]) -> Pages:
        """Returns the past records of a source, the newest first."""
        bounds = {"from": start, "to": end}
        query = {name: ts for name, ts in bounds.items() if ts is not None}
        return Pages(self, f"/v1/sources/{_name(source)}/history", query)

    async def fetch(self, path: str) -> Any:
        """Returns the body of an answer. Temporary failures are tried again, at other nodes, in bounded time."""
        deadline = time.monotonic() + self._options.read_timeout
        nodes: list[NodeUrl] = []
        attempt, renewed = 0, False
        while True:
            if not nodes:
                current = self._roster.current
                nodes = sorted(self._roster.candidates(current), key=lambda node: node != current)
            node = nodes.pop(0)
            token = await self._access.token()
            left = deadline - time.monotonic()
            try:
                status, body = await asyncio.wait_for(
                    asyncio.to_thread(self._exchange, node, path, token, min(left, OPEN_MAX_S)), max(left, 0.001)
                )
                if status == 200:
                    return json.loads(body)
                error = _problem(status, body)
            except (OSError, http.client.HTTPException, asyncio.TimeoutError, ValueError) as failure:
                message = f"no answer from {node}: {failure or type(failure).__name__}"
                error = AnodeError("unavailable", message, temporary=True)
            if error.code == "unauthorized" and self._access.renews and not renewed:
                renewed = True
                await self._access.renew(token)
                nodes.insert(0, node)
                continue
            attempt += 1
            wait_s = random.uniform(0, min(_AGAIN_FIRST_S * 2.0 ** min(attempt, 16), _AGAIN_MAX_S))
            wait_s = max(wait_s, (error.retry_after_ms or 0) / 1000)
            if not error.temporary or time.monotonic() + wait_s >= deadline:
                raise error
            self._options.report(error)
            await asyncio.sleep(wait_s)

    def _exchange(self, node: NodeUrl, path: str, token: Optional[str], timeout: float) -> tuple[int, bytes]:
        """Sends one request on a connection of its own, and reads the answer. Runs on another thread."""
        connection = (
            http.client.HTTPSConnection(node.host, node.port, timeout=timeout, context=self._options.ssl)
            if node.tls
            else http.client.HTTPConnection(node.host, node.port, timeout=timeout)
        )
        try:
            headers = {"Accept": "application/json", "Connection": "close"}
            if token is not None:
                headers["Authorization"] = f"Bearer {token}"
            connection.request("GET", node.prefix + path, headers=headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()


def _name(source: str) -> str:
    try:
        return quote(source, safe="")
    except UnicodeEncodeError as error:
        raise AnodeError("bad_source", f"half a surrogate pair cannot be sent: {error}") from error


def _problem(status: int, body: bytes) -> AnodeError:
    try:
        problem = json.loads(body)
        if "code" in problem:
            return refusal(problem)
    except (ValueError, TypeError):
        pass
    return AnodeError("unavailable", f"the node answered with status {status}", temporary=status >= 500)
