"""What is published and read."""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass
from typing import Any, Optional, Union

from .errors import AnodeError

#: The greatest timestamp there is.
TS_MAX = 2**53 - 1


@dataclass(frozen=True)
class Record:
    """One value of one source."""

    source: str
    #: Microseconds since the Unix epoch.
    ts: int
    #: The name of the node that accepted the record; empty where the source is `gone`.
    origin: str
    #: The value of the JSON, or `bytes` if bytes were published; `None` for a deletion, or where the source is `gone`.
    data: Any
    deleted: bool = False
    #: Whether the record belongs to the state at the beginning of the subscription, and is no news.
    snapshot: bool = False
    #: Whether the filter is not true any longer of the source, of which a record was delivered before.
    gone: bool = False


@dataclass(frozen=True)
class Ack:
    """The answer to a publish."""

    #: The timestamp of the record.
    ts: int
    #: `applied`, `duplicate` or `stale`.
    outcome: str
    #: The acknowledgement level that was reached.
    level: str
    #: For `stale`: the timestamp of the newer record.
    current_ts: Optional[int] = None
    #: For the level `replicated`: how many members hold the record.
    nodes: Optional[int] = None


def record_of(body: dict[str, Any], snapshot: bool = False) -> Record:
    """Returns the record that a node has sent."""
    try:
        data = base64.b64decode(body["data_b64"], validate=True) if "data_b64" in body else body.get("data")
        gone = body.get("gone") is True
        origin = "" if gone else body["origin"]
        return Record(body["source"], body["ts"], origin, data, body.get("deleted") is True, snapshot, gone)
    except (KeyError, TypeError, binascii.Error) as error:
        raise AnodeError("protocol", f"the node sent a record that cannot be read: {error!r}") from error


def ack_of(result: dict[str, Any]) -> Ack:
    """Returns the answer that a node has sent."""
    try:
        return Ack(
            result["ts"], result["outcome"], result["level"], result.get("current_ts"), result.get("nodes")
        )
    except KeyError as error:
        raise AnodeError("protocol", f"the node sent an answer without {error}") from error


def payload_of(data: Union[Any, bytes]) -> str:
    """Returns the field of a frame that carries the data."""
    if isinstance(data, (bytes, bytearray, memoryview)):
        return f'"data_b64":"{base64.b64encode(data).decode()}"'
    try:
        return '"data":' + json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError) as error:
        raise AnodeError("bad_json", f"data cannot be written as JSON: {error}") from error
