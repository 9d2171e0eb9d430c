"""The one error that the client raises, and the loss of a connection, which it handles by itself."""

from __future__ import annotations

import enum
from typing import Any, Optional


class AnodeError(Exception):
    """A request that failed, or a subscription or client that cannot go on.

    `code` is one of the error codes of docs/protocol.md, or one of the client's own: `unavailable` (no node could be
    reached in time), `timeout` (no answer in time), `unanswered` (the connection was lost, and the record may not be
    sent again), `closed` (the client or subscription was closed), `bad_url`, `protocol` (the other side does not speak
    as a node does).
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        temporary: bool = False,
        applied: Optional[bool] = False,
        ts: Optional[int] = None,
        nodes: Optional[int] = None,
        retry_after_ms: Optional[int] = None,
    ) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        #: Whether the same request may succeed later.
        self.temporary = temporary
        #: Whether the node applied the record all the same; `None` if the client cannot know.
        self.applied = applied
        #: The timestamp of the record, with which it can be published again.
        self.ts = ts
        #: How many members hold the record, if the level `replicated` was not reached.
        self.nodes = nodes
        #: The time after which the node wants to be asked again, in milliseconds.
        self.retry_after_ms = retry_after_ms


#: The longest wait that a node may ask for, in milliseconds. Longer ones are cut to it.
RETRY_AFTER_MS_MAX = 600_000


def refusal(body: dict[str, Any]) -> AnodeError:
    """Returns the error that a node has sent, in a frame or as a problem over HTTP."""
    wait_ms = body.get("retry_after_ms")
    return AnodeError(
        str(body.get("code", "protocol")),
        str(body.get("message", body.get("detail", "the node gave no reason"))),
        temporary=body.get("temporary") is True,
        applied=body.get("applied") is True,
        ts=body.get("ts"),
        nodes=body.get("nodes"),
        retry_after_ms=min(wait_ms, RETRY_AFTER_MS_MAX) if isinstance(wait_ms, int) else None,
    )


class Retry(enum.Enum):
    """When to connect again after a connection was lost or refused."""

    NEVER = "never"
    BACK_OFF = "back off"
    SOON = "soon"
    NOW = "now"


class Lost(Exception):
    """A connection that was lost or could not be opened."""

    def __init__(self, error: AnodeError, retry: Retry) -> None:
        super().__init__(str(error))
        self.error = error
        self.retry = retry


#: Close codes that say that the client itself broke the protocol. Connecting again would break it again.
_BROKEN = {1002, 1003, 1007, 1009}


def closed(code: int, reason: str, last: Optional[AnodeError]) -> Lost:
    """Returns the loss for a close code. `last` is the error that the node sent before it closed."""
    if 4000 <= code < 4100 or code in _BROKEN:
        name = {4001: "unauthorized", 4003: "forbidden", 1009: "too_large"}.get(code, "protocol")
        message = last.message if last else reason or f"the node closed the connection with {code}"
        return Lost(AnodeError(last.code if last else name, message), Retry.NEVER)
    error = AnodeError("unavailable", f"the connection was closed with {code} {reason}".rstrip(), temporary=True)
    if 4100 <= code < 4200:
        return Lost(error, Retry.BACK_OFF)
    return Lost(error, Retry.NOW if 4200 <= code < 4300 else Retry.SOON)
