"""Addresses of nodes: ws://HOST:PORT or http://HOST:PORT, with TLS wss:// or https://."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional
from urllib.parse import urlsplit

from .errors import AnodeError

DEFAULT_PORT = 7070


@dataclass(frozen=True)
class NodeUrl:
    """The address of a node for clients."""

    host: str
    port: int
    tls: bool
    #: The beginning of all paths, for a node behind a proxy; usually empty.
    prefix: str = ""

    @staticmethod
    def parse(url: str) -> NodeUrl:
        """Returns the address, or raises `bad_url`. Without a scheme it is `ws://`."""
        error = AnodeError("bad_url", f"{url!r} cannot be used; allowed: ws://HOST:PORT, wss://HOST:PORT, http, https")
        try:
            parts = urlsplit(url if "://" in url else f"ws://{url}")
            port = parts.port
        except ValueError:
            raise error from None
        is_odd = parts.query or parts.fragment or parts.username is not None or any(c.isspace() for c in url)
        if parts.scheme not in ("ws", "wss", "http", "https") or not parts.hostname or is_odd:
            raise error
        prefix = parts.path.rstrip("/")
        return NodeUrl(parts.hostname, port or DEFAULT_PORT, parts.scheme in ("wss", "https"), prefix)

    def member(self, http: str) -> Optional[NodeUrl]:
        """Returns the address of another member, which is spoken to in the same way; `None` if it is none."""
        try:
            other = NodeUrl.parse(http)
        except AnodeError:
            return None
        return NodeUrl(other.host, other.port, self.tls)

    @property
    def authority(self) -> str:
        """The host and port, as in a URL."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def websocket(self, path: str) -> str:
        """Returns the URL of a WebSocket of this node."""
        return f"{'wss' if self.tls else 'ws'}://{self.authority}{self.prefix}{path}"

    def __str__(self) -> str:
        return self.websocket("")
