"""Drives the Python client: takes a JSON object a line on stdin, and answers each by one on stdout (README.md)."""

from __future__ import annotations

import asyncio
import base64
import json
import sys
from pathlib import Path
from typing import Any

from anode_client import AnodeError, Client, Record, Subscription, connect

clients: dict[str, Client] = {}
errors: dict[str, int] = {}
feeds: dict[str, Feed] = {}


def value(data: Any) -> Any:
    return {"b64": base64.b64encode(data).decode()} if isinstance(data, bytes) else data


def shown(record: Record) -> dict[str, Any]:
    return {
        "source": record.source,
        "ts": record.ts,
        "origin": record.origin,
        "data": value(record.data),
        "deleted": record.deleted,
        "gone": record.gone,
        "snapshot": record.snapshot,
    }


class Feed:
    """A subscription, and all that it has delivered."""

    def __init__(self) -> None:
        self.log: list[Any] = []
        self.state: dict[str, Any] = {}
        self.last: dict[str, int] = {}
        self.disorder = 0
        self.resets = 0
        self.eos = 0
        self.error: Any = None
        self.over = False
        self.records: Subscription

    def reset(self) -> None:
        self.resets += 1
        self.log.append("reset")
        self.state.clear()
        self.last.clear()

    def end_of_snapshot(self) -> None:
        self.eos += 1
        self.log.append("eos")

    async def run(self, wait_ms: int) -> None:
        await asyncio.sleep(wait_ms / 1000)
        try:
            async for record in self.records:
                self.log.append(shown(record))
                if record.ts < self.last.get(record.source, -1):
                    self.disorder += 1
                self.last[record.source] = record.ts
                if record.deleted or record.gone:
                    self.state.pop(record.source, None)
                else:
                    self.state[record.source] = value(record.data)
        except AnodeError as error:
            self.error = told(error)
        self.over = True

    def told(self) -> dict[str, Any]:
        names = ("state", "disorder", "resets", "eos", "error", "over")
        return {name: getattr(self, name) for name in names}


def told(error: AnodeError) -> dict[str, Any]:
    return {"code": error.code, "temporary": error.temporary, "applied": error.applied, "ts": error.ts}


def chosen(step: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: step[name] for name in names if name in step}


async def open_client(name: str, step: dict[str, Any]) -> None:
    options = chosen(step, "token", "token_file", "ca", "max_outstanding")
    for setting in ("timeout", "publish_timeout", "read_timeout"):
        if f"{setting}_ms" in step:
            options[setting] = step[f"{setting}_ms"] / 1000
    if "token_from" in step:
        options["token"] = lambda: Path(step["token_from"]).read_text().strip()
    errors[name] = 0

    def count(_: AnodeError) -> None:
        errors[name] += 1

    clients[name] = await connect(step["urls"], on_error=count, **options)


async def burst(client: Client, step: dict[str, Any]) -> dict[str, Any]:
    failed: dict[str, int] = {}
    gate = asyncio.Semaphore(step.get("concurrency", 64))
    pause = step.get("pause_ms", 0) / 1000

    async def one(number: int) -> None:
        source = f"{step['prefix']}/{number % step['sources']}"
        try:
            await client.publish(source, number, **chosen(step, "ack"))
        except AnodeError as error:
            failed[error.code] = failed.get(error.code, 0) + 1
        finally:
            gate.release()

    tasks = []
    for number in range(step["count"]):
        await gate.acquire()
        tasks.append(asyncio.create_task(one(number)))
        if number % 10 == 9:
            await asyncio.sleep(pause)
    await asyncio.gather(*tasks)
    return {"failed": failed}


async def perform(step: dict[str, Any]) -> Any:
    what, name = step["do"], step.get("client", "main")
    if what == "connect":
        return await open_client(name, step)
    if what in ("feed", "log", "unsubscribe"):
        feed = feeds[step["name"]]
        if what == "unsubscribe":
            await feed.records.close()
        return feed.log if what == "log" else feed.told()
    client = clients[name]
    if what == "publish":
        data = base64.b64decode(step["bytes"]) if "bytes" in step else step["data"]
        data = data * step["times"] if "times" in step else data
        options = chosen(step, "ack", "ts", "ttl_ms")
        if "timeout_ms" in step:
            options["timeout"] = step["timeout_ms"] / 1000
        return vars(await client.publish(step["source"], data, **options))
    if what == "delete":
        return vars(await client.delete(step["source"], **chosen(step, "ack", "ts")))
    if what == "burst":
        return await burst(client, step)
    if what == "get":
        record = await client.get(step["source"])
        return None if record is None else shown(record)
    if what == "list":
        return [shown(record) async for record in client.list(step["pattern"])]
    if what == "history":
        return [shown(record) async for record in client.history(step["source"], step.get("from"), step.get("to"))]
    if what == "subscribe":
        feed = feeds[step["name"]] = Feed()
        options = chosen(step, "mode", "snapshot", "filter")
        feed.records = client.subscribe(
            step["sources"], on_reset=feed.reset, on_eos=feed.end_of_snapshot, **options
        )
        feed.task = asyncio.create_task(feed.run(step.get("wait_ms", 0)))  # type: ignore[attr-defined]
        return None
    if what == "errors":
        return errors[name]
    assert what == "close", what
    return await client.close()


async def answer(line: str) -> None:
    step = json.loads(line)
    try:
        reply = {"id": step["id"], "ok": await perform(step)}
    except AnodeError as error:
        reply = {"id": step["id"], "error": told(error)}
    except Exception as error:
        reply = {"id": step["id"], "bug": repr(error)}
    sys.stdout.write(json.dumps(reply) + "\n")
    sys.stdout.flush()


async def main() -> None:
    loop = asyncio.get_running_loop()
    lines = asyncio.StreamReader(limit=64 * 1024 * 1024)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    tasks = set()
    while line := await lines.readline():
        task = asyncio.create_task(answer(line.decode()))
        tasks.add(task)
        task.add_done_callback(tasks.discard)


asyncio.run(main())
