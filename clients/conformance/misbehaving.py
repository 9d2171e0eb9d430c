"""What the clients do at a node that misbehaves: see `fake_node.py` for the behaviours."""

from __future__ import annotations

import asyncio
import time
from typing import Any, Awaitable, Callable

from drivers import Driver
from fake_node import FLOOD_RECORDS, HOUR_US, FakeNode
from scenario import Mismatch


class Misbehaving:
    """The checks of one client. Every method is one."""

    def __init__(self, driver: Driver, fake: FakeNode) -> None:
        self._driver = driver
        self._fake = fake

    def all(self) -> dict[str, Callable[[], Awaitable[None]]]:
        """Returns the checks by the names of their behaviours."""
        names = [name for name in dir(self) if not name.startswith("_") and name != "all"]
        return {name: getattr(self, name) for name in names}

    def _frames(self, behaviour: str) -> list[dict[str, Any]]:
        return self._fake.frames[behaviour, self._driver.name]

    def _connections(self, behaviour: str) -> list[float]:
        return self._fake.connections[behaviour, self._driver.name]

    async def _connect(self, behaviour: str, **options: Any) -> dict[str, Any]:
        url = f"ws://127.0.0.1:{self._fake.port}/{behaviour}/{self._driver.name}"
        return await self._driver.call({"do": "connect", "client": behaviour, "urls": [url], **options})

    async def _publish(self, behaviour: str, **fields: Any) -> dict[str, Any]:
        step = {"do": "publish", "client": behaviour, "source": "s/a", "data": 1, **fields}
        return await self._driver.call(step)

    def _same(self, what: str, got: Any, expected: Any) -> None:
        if got != expected:
            raise Mismatch(f"{self._driver.name}: {what}: expected {expected!r}, got {got!r}")

    def _that(self, what: str, holds: bool) -> None:
        if not holds:
            raise Mismatch(f"{self._driver.name}: {what}")

    async def silent(self) -> None:
        """A node that says nothing is given up after the time of its greeting, and the record comes through."""
        await self._connect("silent")
        begun = time.monotonic()
        reply = await self._publish("silent", timeout_ms=20_000)
        self._same("the answer", reply.get("ok", reply).get("outcome"), "applied")
        self._that("it took at least the 400 ms of the greeting", time.monotonic() - begun > 0.15)
        self._same("connections", len(self._connections("silent")), 2)

    async def overloaded(self) -> None:
        """A record that is refused for a while is sent again with the same timestamp."""
        await self._connect("overloaded")
        reply = await self._publish("overloaded")
        frames = self._frames("overloaded")
        self._same("attempts", len(frames), 3)
        self._same("timestamps", [frame["ts"] for frame in frames], [reply["ok"]["ts"]] * 3)
        self._same("frames but for ids", [frame["data"] for frame in frames], [1, 1, 1])

    async def gone(self) -> None:
        """A client that is to wait for a minute until it connects again is closed at once."""
        await self._connect("gone")
        await self._publish("gone")
        while len(self._connections("gone")) < 2:
            await asyncio.sleep(0.05)
        # The refusal has to come to the client.
        await asyncio.sleep(0.5)
        begun = time.monotonic()
        self._same("answer", await self._driver.call({"do": "close", "client": "gone"}), {"ok": None})
        self._that("it is closed at once", time.monotonic() - begun < 10)

    async def late(self) -> None:
        """A level that is not reached in time is waited for again, with the same timestamp."""
        await self._connect("late")
        reply = await self._publish("late", ack="replicated")
        frames = self._frames("late")
        self._same("outcome", reply["ok"]["outcome"], "duplicate")
        self._same("timestamps", frames[0]["ts"], frames[1]["ts"])
        self._same("level", frames[1]["ack"], "replicated")

    async def full(self) -> None:
        """Temporary errors are raised when the time is over, with the wait that the node asks for in between."""
        await self._connect("full")
        reply = await self._publish("full", timeout_ms=1_000)
        ts = self._frames("full")[0]["ts"]
        self._same("error", reply["error"], {"code": "rate_limited", "temporary": True, "applied": False, "ts": ts})
        self._that("attempts are apart", 2 <= len(self._frames("full")) <= 4)

    async def lost(self) -> None:
        """A record whose answer was lost is sent again with the same timestamp, and `stale` is final then."""
        await self._connect("lost")
        reply = await self._publish("lost")
        frames = self._frames("lost")
        self._same("timestamps", frames[0]["ts"], frames[1]["ts"])
        self._same("answer", (reply["ok"]["outcome"], reply["ok"]["current_ts"]), ("stale", frames[0]["ts"] + 5))

    async def behind(self) -> None:
        """With a slow clock, a record without a timestamp wins all the same, and so does the next one."""
        await self._connect("behind")
        first = await self._publish("behind")
        second = await self._publish("behind")
        other = await self._publish("behind", source="s/b")
        stamps = [frame["ts"] for frame in self._frames("behind")]
        self._same("outcome", first["ok"]["outcome"], "applied")
        self._that("it is stamped anew", stamps[1] > stamps[0] + 5_000_000)
        self._that("stamps of the source rise", second["ok"]["ts"] > first["ok"]["ts"])
        self._that("other sources are not pushed ahead", other["ok"]["ts"] < first["ok"]["ts"])

    async def ahead(self) -> None:
        """With a clock that is ahead, the node stamps the first record, and the client goes by that clock."""
        await self._connect("ahead")
        first = await self._publish("ahead")
        second = await self._publish("ahead", source="s/b")
        frames = self._frames("ahead")
        self._same("frames", ["ts" in frame for frame in frames], [True, False, True])
        self._that("the node's time is taken", abs(frames[0]["ts"] - HOUR_US - second["ok"]["ts"]) < 60_000_000)
        self._that("stamps rise", second["ok"]["ts"] > first["ok"]["ts"])

    async def deaf(self) -> None:
        """What is unanswered is bounded; further records wait, and all get an error in the end."""
        await self._connect("deaf", max_outstanding=4)
        sent = [asyncio.create_task(self._publish("deaf", timeout_ms=3_000)) for _ in range(4)]
        while len(self._frames("deaf")) < 4:
            await asyncio.sleep(0.05)
        replies = await asyncio.gather(*sent, *(self._publish("deaf", timeout_ms=500) for _ in range(6)))
        self._same("frames", len(self._frames("deaf")), 4)
        self._same("codes", {reply["error"]["code"] for reply in replies}, {"timeout"})
        applied = [reply["error"]["applied"] for reply in replies]
        self._same("may be applied", (applied.count(None), applied.count(False)), (4, 6))

    async def close4002(self) -> None:
        """Codes from 4000 to 4099 end the client, with an error for each record."""
        await self._connect("close4002")
        reply = await self._publish("close4002")
        self._same("error", (reply["error"]["code"], reply["error"]["applied"]), ("protocol", None))
        again = await self._publish("close4002")
        self._same("error", again["error"]["code"], "protocol")
        self._same("connections", len(self._connections("close4002")), 1)

    async def close1009(self) -> None:
        """A frame that is too large for the node is not sent again and again."""
        await self._connect("close1009")
        reply = await self._publish("close1009")
        self._same("error", reply["error"]["code"], "too_large")
        self._same("connections", len(self._connections("close1009")), 1)

    async def close4100(self) -> None:
        """Codes from 4100 to 4199 make the client wait, and the record comes through."""
        await self._connect("close4100")
        reply = await self._publish("close4100")
        self._same("outcome", reply["ok"]["outcome"], "applied")
        self._same("connections", len(self._connections("close4100")), 3)

    async def close4200(self) -> None:
        """After codes from 4200 to 4299 the client comes back at once."""
        await self._connect("close4200")
        reply = await self._publish("close4200")
        self._same("outcome", reply["ok"]["outcome"], "applied")
        self._same("connections", len(self._connections("close4200")), 3)

    async def unauthorized(self) -> None:
        """A refused token is an error at once."""
        reply = await self._connect("unauthorized", token="x")
        self._same("error", (reply["error"]["code"], reply["error"]["temporary"]), ("unauthorized", False))
        self._same("connections", len(self._connections("unauthorized")), 1)

    async def busy(self) -> None:
        """`Retry-After` of a handshake is kept."""
        await self._connect("busy")
        first, second = self._connections("busy")
        self._that("it waits for a second", second - first > 0.95)

    async def flood(self) -> None:
        """A program that is slow stops the node, is not taken for dead, and takes the node for alive."""
        await self._connect("flood")
        step = {"do": "subscribe", "client": "flood", "name": "flood", "sources": "s/*", "wait_ms": 4_000}
        await self._driver.call(step)
        await asyncio.sleep(3.5)
        sent = self._fake.flooded.get(self._driver.name, 0)
        self._that(f"the node is stopped ({sent} records were sent)", 0 < sent < FLOOD_RECORDS)
        told: dict[str, Any] = {"eos": 0}
        deadline = time.monotonic() + 60
        while told["eos"] == 0 and time.monotonic() < deadline:
            await asyncio.sleep(0.2)
            told = (await self._driver.call({"do": "feed", "name": "flood"}))["ok"]
        facts = (told["eos"], told["disorder"], told["resets"], told["error"])
        self._same("ends of the snapshot, disorder, resets, error", facts, (1, 0, 0, None))
        self._that("the last record came", told["state"]["s/a"].startswith(f"{FLOOD_RECORDS - 1} "))
        await asyncio.sleep(1)
        self._same("connections, for publishing and for the subscription", len(self._connections("flood")), 2)

    async def resume(self) -> None:
        """A subscription resumes by its token, delivers nothing twice, and says when the state begins anew."""
        await self._connect("resume")
        name = "resume"
        await self._driver.call(
            {"do": "subscribe", "client": "resume", "name": name, "sources": "s/*", "mode": "latest"}
        )
        def record(source: str, ts: int, data: Any, snapshot: bool = False) -> tuple[Any, ...]:
            return (source, ts, data, data is None, snapshot)

        expected = [
            record("s/a", 10, 1, True), record("s/b", 11, 1, True), "eos", record("s/a", 12, 2), record("s/c", 13, 1),
            record("s/c", 13, None), record("s/a", 12, 3), record("s/b", 14, None), record("s/b", 15, 2),
            "reset", record("s/a", 9, 9, True), "reset", record("s/a", 9, 9, True), record("s/d", 1, 1, True), "eos",
        ]
        deadline = time.monotonic() + 20
        log: list[Any] = []
        while len(log) < len(expected) and time.monotonic() < deadline:
            await asyncio.sleep(0.1)
            log = (await self._driver.call({"do": "log", "name": name}))["ok"]
        names = ("source", "ts", "data", "deleted", "snapshot")
        shown = [item if isinstance(item, str) else tuple(item[name] for name in names) for item in log]
        self._same("what is delivered", shown, expected)
        asked = [frame["subscribe"].get("resume") for frame in self._frames("resume")]
        self._same("tokens", asked, [None, "T2", "T3", None])


async def misbehaving(drivers: list[Driver]) -> int:
    """Runs all checks with all clients, and returns how many there were."""
    fake = FakeNode()
    await fake.start()
    try:
        checks = [
            (driver, name, check)
            for driver in drivers
            for name, check in Misbehaving(driver, fake).all().items()
        ]

        async def one(driver: Driver, name: str, check: Callable[[], Awaitable[None]]) -> None:
            try:
                await check()
            except Exception as error:
                raise Mismatch(f"{name}: {error}") from error

        outcomes = await asyncio.gather(*(one(*check) for check in checks if check[1] != "flood"), return_exceptions=True)
        # The node must not be kept busy by one client while it serves another.
        for check in checks:
            if check[1] == "flood":
                outcomes += await asyncio.gather(one(*check), return_exceptions=True)
        failures = [str(outcome) for outcome in outcomes if outcome is not None]
        if failures:
            raise Mismatch("\n".join(failures))
        for driver in drivers:
            for name in Misbehaving(driver, fake).all():
                if name != "unauthorized":
                    await driver.call({"do": "close", "client": name})
        return len(checks)
    finally:
        await fake.stop()
