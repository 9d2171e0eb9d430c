"""The client: one connection for publishing, one for each subscription, and requests over HTTP for reading."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import TracebackType
from typing import Any, Callable, Iterable, Optional, Union

from .access import Access, TokenSource
from .address import NodeUrl
from .errors import AnodeError
from .link import Dialer
from .options import Options, tls_context
from .publisher import Publisher
from .reads import Pages, Reads
from .records import Ack, Record, payload_of
from .roster import Roster
from .stamps import Stamps
from .subscription import Feed, Subscription

_File = Union[str, Path]


async def connect(
    urls: Union[str, Iterable[str]],
    *,
    token: Optional[TokenSource] = None,
    token_file: Optional[_File] = None,
    ca: Optional[_File] = None,
    cert: Optional[_File] = None,
    key: Optional[_File] = None,
    on_reset: Optional[Callable[[], Any]] = None,
    on_error: Optional[Callable[[AnodeError], Any]] = None,
    timeout: float = 10.0,
    publish_timeout: float = 30.0,
    read_timeout: float = 10.0,
    max_outstanding: int = 1_024,
    max_outstanding_bytes: int = 4 * 1024 * 1024,
) -> Client:
    """Connects to a node, and returns the client when the node has greeted.

    `urls` are nodes to begin with, in order of preference: `ws://HOST:PORT`, with TLS `wss://`. `token` is a token or a
    function (it may be async) that returns one and is called again when a fresh one is needed; `token_file` is a file
    that is read again then; without both, the environment's `ANODE_TOKEN` is used. `ca` is a file with the authorities
    to trust in place of the system's; `cert` and `key` are files with a certificate of the client.

    `on_reset` is called, for every subscription that has none of its own, when a subscription could not be resumed.
    `on_error` is called with every failure that the client handles by itself. Times are in seconds: `timeout` for the
    first connection, `publish_timeout` for a publish with all its attempts, `read_timeout` for a read with all of them.
    At most `max_outstanding` publishes of `max_outstanding_bytes` together are unanswered; further ones wait.
    """
    seeds = [NodeUrl.parse(url) for url in ([urls] if isinstance(urls, str) else urls)]
    if not seeds:
        raise AnodeError("bad_url", "no node is named; allowed: one URL or more")
    context = tls_context(ca, cert, key) if any(seed.tls for seed in seeds) else None
    options = Options(
        publish_timeout, read_timeout, max(max_outstanding, 1), max(max_outstanding_bytes, 1), context, on_error
    )
    client = Client(seeds, Access(token, token_file), options, on_reset)
    try:
        await client._begin(timeout)
    except BaseException:
        await client.close()
        raise
    return client


class Client:
    """A client of a cluster. Made by `connect`."""

    def __init__(
        self, seeds: list[NodeUrl], access: Access, options: Options, on_reset: Optional[Callable[[], Any]]
    ) -> None:
        self._roster = Roster(seeds)
        self._access = access
        self._options = options
        self._on_reset = on_reset
        self._dialer = self._new_dialer("/publish")
        self._publisher = Publisher(self._dialer, Stamps(), options)
        self._reads = Reads(self._roster, access, options)
        self._feeds: set[Feed] = set()
        self._closed = False

    async def publish(
        self,
        source: str,
        data: Any,
        *,
        ack: Optional[str] = None,
        ts: Optional[int] = None,
        ttl_ms: Optional[int] = None,
        timeout: Optional[float] = None,
    ) -> Ack:
        """Publishes a value, and returns the answer of the node. `bytes` are published as bytes, all else as JSON.

        `ack` is `accepted` (default), `stored` or `replicated`. Without `ts`, in microseconds since the Unix epoch,
        the client stamps the record. `ttl_ms` is the time to live in milliseconds.
        """
        if ttl_ms is not None and (isinstance(ttl_ms, bool) or not isinstance(ttl_ms, int)):
            raise AnodeError("bad_request", f"ttl_ms is {ttl_ms!r}; allowed are integers", ts=ts)
        fields = payload_of(data) + (f',"ttl_ms":{ttl_ms}' if ttl_ms is not None else "")
        return await self._publish(source, fields, ack, ts, timeout)

    async def delete(
        self,
        source: str,
        *,
        ack: Optional[str] = None,
        ts: Optional[int] = None,
        timeout: Optional[float] = None,
    ) -> Ack:
        """Marks a source as deleted."""
        return await self._publish(source, '"deleted":true', ack, ts, timeout)

    def subscribe(
        self,
        sources: Union[str, Iterable[str]],
        *,
        mode: str = "latest",
        snapshot: bool = True,
        filter: Optional[str] = None,
        on_reset: Optional[Callable[[], Any]] = None,
        on_eos: Optional[Callable[[], Any]] = None,
    ) -> Subscription:
        """Returns the records of all sources that match one of the patterns, first those that are there already.

        `mode` is `latest` (a slow reader gets the newest of each source) or `all`. Without `snapshot` only news come.
        `on_reset` is called when the subscription could not be resumed: forget what you hold, all of it comes again.
        `on_eos` is called when what was there at the beginning has come. Both are called in the order of the records.
        """
        self._check()
        request: dict[str, Any] = {"sources": [sources] if isinstance(sources, str) else list(sources)}
        request.update({"mode": mode, "snapshot": snapshot})
        if filter is not None:
            request["filter"] = filter
        reset = on_reset if on_reset is not None else self._on_reset
        return Subscription(Feed(self._new_dialer("/subscribe"), request, reset, on_eos, self._feeds))

    async def get(self, source: str) -> Optional[Record]:
        """Returns the latest record of a source; `None` if there is none."""
        self._check()
        return await self._reads.get(source)

    def list(self, pattern: str = "**") -> Pages:
        """Returns the latest records of all sources that match, in the order of their names."""
        self._check()
        return self._reads.list(pattern)

    def history(self, source: str, from_: Optional[int] = None, to: Optional[int] = None) -> Pages:
        """Returns the past records of a source, the newest first, with timestamps within the bounds."""
        self._check()
        return self._reads.history(source, from_, to)

    async def close(self) -> None:
        """Closes all connections. Subscriptions end; publishes without an answer raise `closed`."""
        self._closed = True
        for feed in list(self._feeds):
            await feed.stop()
        await self._publisher.close(AnodeError("closed", "the client was closed"))

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(
        self, kind: Optional[type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        await self.close()

    def _new_dialer(self, path: str) -> Dialer:
        return Dialer(path, self._roster, self._access, self._options)

    def _check(self) -> None:
        if self._closed:
            raise AnodeError("closed", "the client was closed")

    async def _publish(
        self, source: str, fields: str, ack: Optional[str], ts: Optional[int], timeout: Optional[float]
    ) -> Ack:
        if ts is not None and (isinstance(ts, bool) or not isinstance(ts, int)):
            raise AnodeError("bad_timestamp", f"ts is {ts!r}; allowed are integers, microseconds")
        level = f',"ack":"{ack}"' if ack is not None else ""
        if ack is not None and not ack.isidentifier():
            raise AnodeError("bad_request", f"ack is {ack!r}; allowed are accepted, stored and replicated")
        return await self._publisher.publish(source, fields + level, ts, timeout)

    async def _begin(self, timeout: float) -> None:
        """Waits for the first connection. A token that may not publish is tried as one that may subscribe."""
        self._publisher.start()
        try:
            await asyncio.wait_for(self._publisher.begun.wait(), timeout)
            error = self._publisher.error
            if error is None:
                return
            if error.code != "forbidden":
                raise error
            link = await asyncio.wait_for(self._new_dialer("/subscribe").dial(), timeout)
            await link.close()
        except asyncio.TimeoutError:
            why = self._dialer.failure
            message = f"no node has greeted within {timeout:g} s" + (f"; the last failure: {why.message}" if why else "")
            raise AnodeError("unavailable", message, temporary=True) from None
