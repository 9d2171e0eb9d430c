"""Performs the steps of a scenario with all clients, and compares what they answer."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

from cluster import Cluster
from drivers import Driver

#: Timestamps of the scenario are this many microseconds above its beginning at most; later ones are the clients' own.
OFFSET_MAX = 1_000


class Mismatch(Exception):
    """Clients that do not do what they should, or do not do the same."""


class Scenario:
    """One scenario on one cluster."""

    def __init__(self, drivers: list[Driver], cluster: Cluster, values: dict[str, Any]) -> None:
        self._drivers = drivers
        self._cluster = cluster
        self._base = time.time_ns() // 1_000
        self._values = {"urls": cluster.urls, "first": cluster.urls[:1], **values}
        self._running: dict[str, asyncio.Task[None]] = {}
        self.answers = 0

    async def perform(self, steps: list[dict[str, Any]]) -> None:
        """Performs the steps, one after the other; each with all clients at the same time."""
        for step in steps:
            try:
                await self._perform(step)
            except Mismatch as mismatch:
                raise Mismatch(f"{json.dumps(step)}\n  {mismatch}") from None
            except Exception as error:
                raise Mismatch(f"{json.dumps(step)}\n  {error!r}") from error
        assert not self._running, "a step that was begun must be ended"

    async def _perform(self, step: dict[str, Any]) -> None:
        if "sleep" in step:
            await asyncio.sleep(step["sleep"])
        elif "kill" in step:
            await self._cluster.nodes[step["kill"]].kill()
        elif "stop" in step:
            await self._cluster.nodes[step["stop"]].stop()
        elif "start" in step:
            await self._cluster.start_node(step["start"])
        elif "begin" in step:
            self._running[step["begin"]] = asyncio.create_task(self._with_all(step))
        elif "end" in step:
            await self._running.pop(step["end"])
        else:
            await self._with_all(step)

    async def _with_all(self, step: dict[str, Any]) -> None:
        deadline = time.monotonic() + step.get("within", 0)
        while True:
            try:
                replies = await asyncio.gather(*(self._with_one(driver, step) for driver in self._drivers))
                self._compare(replies)
                return
            except Mismatch:
                if time.monotonic() >= deadline:
                    raise
                await asyncio.sleep(0.25)

    def _compare(self, replies: list[Any]) -> None:
        first = json.dumps(replies[0], sort_keys=True)
        for driver, reply in zip(self._drivers, replies):
            if json.dumps(reply, sort_keys=True) != first:
                raise Mismatch(f"{self._drivers[0].name}: {first}\n  {driver.name}: {json.dumps(reply, sort_keys=True)}")
        self.answers += len(replies)

    async def _with_one(self, driver: Driver, step: dict[str, Any]) -> Any:
        hidden = ("expect", "within", "begin", "fields", "count")
        sent = {name: self._filled(value, driver.name) for name, value in step.items() if name not in hidden}
        if "count" in step and step["do"] == "burst":
            sent["count"] = step["count"]
        reply = self._shown(await driver.call(sent), driver.name)
        if "fields" in step and "ok" in reply:
            reply = {"ok": _only(reply["ok"], step["fields"])}
        if step.get("count") is not None and step["do"] != "burst":
            reply = {"ok": len(reply["ok"])} if "ok" in reply else reply
            expected: Any = {"ok": step["count"]}
        else:
            expected = step.get("expect", {"ok": {}} if step["do"] in ("publish", "delete") else {"ok": None})
        if not _fits(expected, reply):
            raise Mismatch(f"{driver.name}: expected {json.dumps(expected)}\n  and got {json.dumps(reply)[:2000]}")
        return reply

    def _filled(self, value: Any, name: str) -> Any:
        """Fills in names, values such as `$urls`, and timestamps `{"now": OFFSET}`."""
        if isinstance(value, str):
            if value.startswith("$") and value[1:] in self._values:
                return self._filled(self._values[value[1:]], name)
            return value.replace("{l}", name)
        if isinstance(value, list):
            return [self._filled(item, name) for item in value]
        if isinstance(value, dict):
            if list(value) == ["now"]:
                return self._base + value["now"]
            return {key: self._filled(item, name) for key, item in value.items()}
        return value

    def _shown(self, value: Any, name: str) -> Any:
        """Takes out of an answer what differs between clients: their names, origins, and the time."""
        if isinstance(value, str):
            return value.replace(f"{name}/", "{l}/")
        if isinstance(value, list):
            return [self._shown(item, name) for item in value]
        if isinstance(value, dict):
            return {
                self._shown(key, name): self._shown(item, name)
                for key, item in value.items()
                if key not in ("origin", "nodes")
            }
        if isinstance(value, int) and value >= self._base:
            offset = value - self._base
            return {"now": offset} if offset <= OFFSET_MAX else "later"
        return value


def _only(value: Any, fields: list[str]) -> Any:
    if isinstance(value, list):
        return [_only(item, fields) for item in value]
    if isinstance(value, dict):
        return {name: value[name] for name in fields if name in value}
    return value


def _fits(expected: Any, got: Any) -> bool:
    """Whether an answer has all that is expected; objects may have more."""
    if isinstance(expected, dict) and isinstance(got, dict):
        return all(name in got and _fits(value, got[name]) for name, value in expected.items())
    if isinstance(expected, list) and isinstance(got, list):
        return len(expected) == len(got) and all(_fits(*pair) for pair in zip(expected, got))
    return bool(expected == got and isinstance(expected, bool) == isinstance(got, bool))
