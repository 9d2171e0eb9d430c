"""The three clients, each driven by a program of its own that speaks lines of JSON."""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
from pathlib import Path
from typing import Any, Optional

#: The longest time for one step, in seconds.
STEP_MAX_S = 180


class Driver:
    """One client in its program."""

    def __init__(self, name: str, command: list[str], environment: dict[str, str]) -> None:
        self.name = name
        self._command = command
        self._environment = environment
        self._ids = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._process: Optional[asyncio.subprocess.Process] = None
        self._reader: Optional[asyncio.Task[None]] = None

    async def start(self) -> None:
        self._process = await asyncio.create_subprocess_exec(
            *self._command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, env=self._environment,
            limit=64 * 1024 * 1024,
        )
        self._reader = asyncio.create_task(self._read())

    async def call(self, step: dict[str, Any]) -> dict[str, Any]:
        """Performs a step, and returns `{"ok": …}` or `{"error": …}`."""
        assert self._process is not None and self._process.stdin is not None
        id = next(self._ids)
        answer = self._waiting[id] = asyncio.get_running_loop().create_future()
        self._process.stdin.write(json.dumps({**step, "id": id}).encode() + b"\n")
        await self._process.stdin.drain()
        reply = await asyncio.wait_for(answer, STEP_MAX_S)
        if "bug" in reply:
            raise RuntimeError(f"{self.name}: {step}: {reply['bug']}")
        return {name: reply[name] for name in ("ok", "error") if name in reply}

    async def stop(self) -> int:
        """Ends the program, and returns its exit code."""
        if self._process is None or self._process.stdin is None:
            return 0
        self._process.stdin.close()
        try:
            return await asyncio.wait_for(self._process.wait(), 20)
        except asyncio.TimeoutError:
            self._process.kill()
            return await self._process.wait()

    async def _read(self) -> None:
        assert self._process is not None and self._process.stdout is not None
        while line := await self._process.stdout.readline():
            reply = json.loads(line)
            waiting = self._waiting.pop(reply["id"], None)
            if waiting is not None and not waiting.done():
                waiting.set_result(reply)
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(RuntimeError(f"the driver of {self.name} has ended"))


def drivers(here: Path, rust: Path, only: list[str], environment: dict[str, str]) -> list[Driver]:
    """Returns the drivers of these clients."""
    commands = {
        "py": [sys.executable, str(here / "drivers/driver.py")],
        "ts": ["node", str(here / "drivers/driver.mjs")],
        "rs": [str(rust)],
    }
    return [Driver(name, commands[name], environment) for name in only]
