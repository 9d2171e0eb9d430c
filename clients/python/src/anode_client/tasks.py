"""The end of tasks."""

from __future__ import annotations

import asyncio
from typing import Any

#: Time after which a task that goes on is cancelled again, in seconds: longer than a connection takes to be closed in good order.
_AGAIN_S = 3.0


async def end(task: asyncio.Task[Any]) -> None:
    """
    Cancels a task, and waits until it has ended. Before Python 3.12, `asyncio.wait_for` loses a cancellation that comes in
    the moment of its answer, and the task goes on; so it is cancelled until it ends.
    """
    while not task.done():
        task.cancel()
        await asyncio.wait([task], timeout=_AGAIN_S)
    if not task.cancelled():
        # An exception that nobody asks for would be printed.
        task.exception()
