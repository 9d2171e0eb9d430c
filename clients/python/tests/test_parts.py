"""Tests of the parts that need no node. What clients do at nodes is tested in clients/conformance."""

from __future__ import annotations

import asyncio
import unittest
from typing import Any

from anode_client.access import Access
from anode_client.address import NodeUrl
from anode_client.client import Client
from anode_client.errors import AnodeError, Retry, closed
from anode_client.options import Options
from anode_client.records import TS_MAX, payload_of, record_of
from anode_client.roster import WAIT_MAX_S, Attempts, Roster
from anode_client.seen import DELETED_MAX, Seen
from anode_client.stamps import AHEAD_MAX, Stamps
from anode_client.tasks import end
from anode_client.window import Window


class Tasks(unittest.IsolatedAsyncioTestCase):
    async def test_a_task_that_loses_a_cancellation_is_ended(self) -> None:
        """A client's `close` waited for ever for a publisher that had lost its cancellation while it connected anew."""

        async def run() -> None:
            try:
                await asyncio.sleep(3_600)
            except asyncio.CancelledError:
                await asyncio.sleep(3_600)

        task = asyncio.create_task(run())
        await asyncio.sleep(0)
        await asyncio.wait_for(end(task), 30)
        self.assertTrue(task.cancelled())
        await end(task)


class Addresses(unittest.TestCase):
    def test_urls(self) -> None:
        for url, shown in [
            ("ws://127.0.0.1:7070", "ws://127.0.0.1:7070"),
            ("http://a.example", "ws://a.example:7070"),
            ("https://a.example:1/p/", "wss://a.example:1/p"),
            ("a:1", "ws://a:1"),
            ("ws://[::1]:5/", "ws://[::1]:5"),
        ]:
            self.assertEqual(str(NodeUrl.parse(url)), shown)
        for bad in ["", "ftp://a", "wss://", "ws://a:x", "ws://a b", "ws://u@a:1", "ws://a:1/?x"]:
            with self.assertRaises(AnodeError, msg=bad) as raised:
                NodeUrl.parse(bad)
            self.assertEqual(raised.exception.code, "bad_url")

    def test_members_are_spoken_to_as_the_node_was(self) -> None:
        self.assertEqual(str(NodeUrl.parse("wss://a:1/p").member("b:2")), "wss://b:2")
        self.assertIsNone(NodeUrl.parse("a:1").member("?"))


class Rosters(unittest.TestCase):
    def test_the_lost_node_is_tried_last(self) -> None:
        a, b = NodeUrl.parse("a:1"), NodeUrl.parse("b:1")
        roster = Roster([a, b])
        attempts = Attempts(roster)
        self.assertEqual(attempts.next(), a)
        roster.handle_greeting(a, ["a:1", "c:1", "d:1"])
        attempts.wait_s(Retry.SOON)
        tried = [attempts.next().host for _ in range(4)]
        self.assertEqual((tried[2:], sorted(tried)), (["b", "a"], ["a", "b", "c", "d"]))

    def test_waits_grow_and_are_random(self) -> None:
        attempts = Attempts(Roster([]))
        self.assertEqual(attempts.wait_s(Retry.NOW), 0)
        waits = [attempts.wait_s(Retry.NOW) for _ in range(200)]
        self.assertTrue(waits[0] <= 0.2 and max(waits) <= WAIT_MAX_S and max(waits) > WAIT_MAX_S / 2)
        attempts.succeed()
        self.assertEqual(attempts.wait_s(Retry.NOW), 0)


class StampsOfRecords(unittest.TestCase):
    def test_stamps_rise_whatever_the_clock_does(self) -> None:
        walls = iter([100, 100, 90, 200, 150])
        stamps = Stamps(lambda: next(walls))
        self.assertEqual([stamps.next("a") for _ in range(5)], [100, 101, 102, 200, 201])

    def test_a_source_that_is_ahead_pushes_no_other(self) -> None:
        wall = [100]
        stamps = Stamps(lambda: wall[0])
        stamps.learn("a", 500)
        self.assertEqual([stamps.next("a"), stamps.next("a"), stamps.next("b")], [501, 502, 102])
        wall[0] = 600
        self.assertEqual(stamps.next("a"), 600)
        stamps.learn("c", TS_MAX)
        with self.assertRaises(AnodeError):
            stamps.next("c")

    def test_a_clock_that_is_ahead_is_put_right(self) -> None:
        wall = [50_000]
        stamps = Stamps(lambda: wall[0])
        self.assertEqual(stamps.next("a"), 50_000)
        stamps.handle_node_clock(20_000)
        self.assertEqual(stamps.next("a"), 20_000)

    def test_what_is_remembered_is_bounded(self) -> None:
        stamps = Stamps(lambda: 1)
        for number in range(AHEAD_MAX + 10):
            stamps.learn(f"s/{number}", 1_000)
        self.assertEqual(len(stamps._ahead), AHEAD_MAX)


class SeenRecords(unittest.TestCase):
    def test_records_rise_and_come_once(self) -> None:
        seen = Seen()
        self.assertTrue(seen.admit("a", 5, False, 1))
        self.assertFalse(seen.admit("a", 5, False, 1), "the same again")
        self.assertFalse(seen.admit("a", 4, False, 9), "older")
        self.assertTrue(seen.admit("a", 5, False, 2), "of two with one ts the winner comes last")
        self.assertTrue(seen.admit("a", 5, True, 0), "an expired value ends with its own ts")
        self.assertFalse(seen.admit("a", 5, False, 2), "a deletion wins over data of the same ts")
        self.assertTrue(seen.admit("b", 1, False, 1))
        seen.forget()
        self.assertTrue(seen.admit("a", 5, False, 1))

    def test_deletions_are_not_kept_for_ever(self) -> None:
        seen = Seen()
        for number in range(3 * DELETED_MAX):
            seen.admit(f"s/{number}", number, True, 0)
        self.assertLessEqual(len(seen._deleted) + len(seen._deleted_before), 2 * (DELETED_MAX + 1))


class Frames(unittest.TestCase):
    def test_data(self) -> None:
        self.assertEqual(payload_of(b"\x00\xff"), '"data_b64":"AP8="')
        self.assertEqual(payload_of({"a": [1, None]}), '"data":{"a":[1,null]}')
        for bad in (float("nan"), object(), {1, 2}):
            with self.assertRaises(AnodeError):
                payload_of(bad)
        body = {"source": "a", "ts": 1, "origin": "n", "data_b64": "AP8="}
        self.assertEqual(record_of(body).data, b"\x00\xff")
        with self.assertRaises(AnodeError):
            record_of({**body, "data_b64": "?"})
        with self.assertRaises(AnodeError):
            record_of({"source": "a"})

    def test_close_codes_say_when_to_come_back(self) -> None:
        for code, retry in [
            (1000, Retry.SOON), (1006, Retry.SOON), (1009, Retry.NEVER), (4000, Retry.NEVER), (4099, Retry.NEVER),
            (4100, Retry.BACK_OFF), (4199, Retry.BACK_OFF), (4200, Retry.NOW), (4299, Retry.NOW), (4300, Retry.SOON),
        ]:
            self.assertIs(closed(code, "", None).retry, retry, code)
        told = AnodeError("unauthorized", "the token has expired")
        self.assertEqual(closed(4001, "x", told).error.message, told.message)


class Calls(unittest.IsolatedAsyncioTestCase):
    async def test_what_is_no_integer_is_refused_before_it_is_sent(self) -> None:
        client = Client([NodeUrl.parse("a:1")], Access(None, None), Options(1, 1, 1, 1, None, None), None)
        wrong: Any
        for wrong in (1.5, True, "1"):
            with self.assertRaises(AnodeError) as raised:
                await client.publish("a", 1, ts=wrong)
            self.assertEqual(raised.exception.code, "bad_timestamp")
            with self.assertRaises(AnodeError) as raised:
                await client.publish("a", 1, ttl_ms=wrong)
            self.assertEqual(raised.exception.code, "bad_request")


class Windows(unittest.IsolatedAsyncioTestCase):
    async def test_who_finds_no_room_waits_in_order(self) -> None:
        window = Window(2, 100)
        await window.enter(60)
        order: list[int] = []

        async def enter(number: int, size: int) -> None:
            await window.enter(size)
            order.append(number)

        tasks = [asyncio.create_task(enter(*place)) for place in enumerate([50, 10, 500])]
        await asyncio.sleep(0)
        self.assertEqual(order, [], "a small one does not overtake a large one")
        window.leave(60)
        await asyncio.sleep(0.01)
        self.assertEqual(order, [0, 1])
        window.leave(50)
        window.leave(10)
        await asyncio.sleep(0.01)
        self.assertEqual(order, [0, 1, 2], "one that is larger than all gets all")
        await asyncio.gather(*tasks)

    async def test_who_gives_up_waiting_leaves_no_gap(self) -> None:
        window = Window(1, 100)
        await window.enter(1)
        first, second = asyncio.create_task(window.enter(1)), asyncio.create_task(window.enter(1))
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.sleep(0)
        window.leave(1)
        await asyncio.wait_for(second, 1)


if __name__ == "__main__":
    unittest.main()
