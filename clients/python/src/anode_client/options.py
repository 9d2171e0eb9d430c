"""The settings of a client, and its fixed bounds."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Optional, Union

from .errors import AnodeError

#: How long opening one connection may take, greeting included, in seconds.
OPEN_MAX_S = 5.0
#: After this time a connection counts as one that served, so that waits begin small again, in seconds.
SERVED_S = 5.0
#: How long a node may be silent if its greeting names no other time, in milliseconds.
PING_MS_DEFAULT = 25_000
#: The largest frame that is taken from a node; nodes send much smaller ones.
MESSAGE_BYTES_MAX = 64 * 1024 * 1024
#: Records that a subscription reads ahead of the program; then the node is not read from.
READ_AHEAD_RECORDS = 1_024
#: Bytes of records that a subscription reads ahead of the program.
READ_AHEAD_BYTES = 1024 * 1024


@dataclass(frozen=True)
class Options:
    """The settings that all parts of a client share."""

    publish_timeout: float
    read_timeout: float
    max_outstanding: int
    max_outstanding_bytes: int
    ssl: Optional[ssl.SSLContext]
    on_error: Optional[Callable[[AnodeError], Any]]

    def report(self, error: AnodeError) -> None:
        """Tells the user of a failure that the client handles by itself."""
        if self.on_error is not None:
            self.on_error(error)


def tls_context(
    ca: Optional[Union[str, Path]], cert: Optional[Union[str, Path]], key: Optional[Union[str, Path]]
) -> ssl.SSLContext:
    """Returns the settings of TLS. `ca` is a file, or the text of one."""
    try:
        text = str(ca) if ca is not None else None
        is_text = text is not None and "-----BEGIN" in text
        context = ssl.create_default_context(
            cafile=None if is_text else text, cadata=text if is_text else None
        )
        if cert is not None:
            context.load_cert_chain(str(cert), str(key) if key is not None else None)
        return context
    except (OSError, ssl.SSLError) as error:
        raise AnodeError("bad_request", f"ca, cert or key cannot be used: {error}") from error
