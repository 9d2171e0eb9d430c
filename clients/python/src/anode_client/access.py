"""The token that the client brings, and where it comes from."""

from __future__ import annotations

import asyncio
import inspect
import os
from pathlib import Path
from typing import Awaitable, Callable, Optional, Union

from .errors import AnodeError

#: A token, or a function that returns one and is called again when a fresh one is needed.
TokenSource = Union[str, Callable[[], Union[str, Awaitable[str]]]]


class Access:
    """The token in force. All connections of a client share it."""

    def __init__(self, token: Optional[TokenSource], token_file: Optional[Union[str, Path]]) -> None:
        if token is None and token_file is not None:
            path = Path(token_file)
            token = lambda: path.read_text().strip()  # noqa: E731
        self._source = token if token is not None else os.environ.get("ANODE_TOKEN") or None
        self._token = self._source if isinstance(self._source, str) else None
        self._lock = asyncio.Lock()

    @property
    def renews(self) -> bool:
        """Whether a fresh token can be had."""
        return callable(self._source)

    async def token(self) -> Optional[str]:
        """Returns the token to bring; `None` if there is none."""
        return self._token if self._token is not None or not self.renews else await self.renew(None)

    async def renew(self, used: Optional[str]) -> Optional[str]:
        """Returns a token other than `used`: one that another connection has fetched meanwhile, or a fresh one."""
        async with self._lock:
            if not callable(self._source) or self._token != used:
                return self._token
            try:
                got = self._source()
                token = await got if inspect.isawaitable(got) else got
            except Exception as error:
                message = f"the function that makes tokens failed: {error!r}"
                raise AnodeError("unauthorized", message, temporary=True) from error
            self._token = token
            return token
