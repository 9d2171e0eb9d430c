/** Tests of the parts that need no node. What clients do at nodes is tested in clients/conformance. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { NodeUrl } from "../src/address.js";
import { AnodeError, closed } from "../src/errors.js";
import { ReadAhead } from "../src/read_ahead.js";
import { base64url, payloadOf, recordOf, TS_MAX } from "../src/records.js";
import { Attempts, Roster } from "../src/roster.js";
import { DELETED_MAX, Seen, textHash } from "../src/seen.js";
import { AHEAD_MAX, Stamps, wallClockUs } from "../src/stamps.js";
import { Window } from "../src/window.js";

const hasCode = (code: string) => (error: unknown) => error instanceof AnodeError && error.code === code;

test("urls", () => {
  for (const [url, shown] of [
    ["ws://127.0.0.1:7070", "ws://127.0.0.1:7070"],
    ["http://a.example", "ws://a.example:7070"],
    ["http://a.example:80", "ws://a.example:80"],
    ["https://a.example:1/p/", "wss://a.example:1/p"],
    ["a:1", "ws://a:1"],
    ["ws://[::1]:5/", "ws://[::1]:5"],
  ] as const) {
    assert.equal(String(NodeUrl.parse(url)), shown);
  }
  for (const bad of ["", "ftp://a", "wss://", "ws://a:x", "ws://a b", "ws://u@a:1", "ws://a:1/?x"]) {
    assert.throws(() => NodeUrl.parse(bad), hasCode("bad_url"), bad);
  }
  assert.equal(String(NodeUrl.parse("wss://a:1/p").member("b:2")), "wss://b:2");
  assert.equal(NodeUrl.parse("a:1").member("?"), undefined);
});

test("the lost node is tried last", () => {
  const [a, b] = [NodeUrl.parse("a:1"), NodeUrl.parse("b:1")];
  const roster = new Roster([a, b]);
  const attempts = new Attempts(roster);
  assert.equal(attempts.next(), a);
  roster.handleGreeting(a, ["a:1", "c:1", "d:1"]);
  attempts.waitMs("soon");
  const tried = [0, 1, 2, 3].map(() => attempts.next().authority);
  assert.deepEqual(tried.slice(2), ["b:1", "a:1"]);
  assert.deepEqual([...tried].sort(), ["a:1", "b:1", "c:1", "d:1"]);
});

test("waits grow and are random", () => {
  const attempts = new Attempts(new Roster([]));
  assert.equal(attempts.waitMs("now"), 0);
  const waits = Array.from({ length: 200 }, () => attempts.waitMs("now"));
  assert.ok((waits[0] ?? 0) <= 200 && Math.max(...waits) <= 10_000 && Math.max(...waits) > 5_000);
  attempts.succeed();
  assert.equal(attempts.waitMs("now"), 0);
});

test("stamps rise whatever the clock does", () => {
  const walls = [100, 100, 90, 200, 150];
  const stamps = new Stamps(() => walls.shift() ?? 0);
  assert.deepEqual([0, 1, 2, 3, 4].map(() => stamps.next("a")), [100, 101, 102, 200, 201]);
  assert.ok(Number.isSafeInteger(wallClockUs()) && wallClockUs() > 1.7e15);
});

test("a source that is ahead pushes no other", () => {
  let wall = 100;
  const stamps = new Stamps(() => wall);
  stamps.learn("a", 500);
  assert.deepEqual([stamps.next("a"), stamps.next("a"), stamps.next("b")], [501, 502, 102]);
  wall = 600;
  assert.equal(stamps.next("a"), 600);
  stamps.learn("c", TS_MAX);
  assert.throws(() => stamps.next("c"), hasCode("future_timestamp"));
  stamps.handleNodeClock(200);
  assert.equal(stamps.next("d"), 200);
  for (let number = 0; number < AHEAD_MAX + 10; number += 1) {
    stamps.learn(`s/${number}`, 1_000_000);
  }
  assert.equal((stamps as unknown as { ahead: Map<string, number> }).ahead.size, AHEAD_MAX);
});

test("records rise and come once", () => {
  const seen = new Seen();
  assert.ok(seen.admit("a", 5, false, 1));
  assert.ok(!seen.admit("a", 5, false, 1), "the same again");
  assert.ok(!seen.admit("a", 4, false, 9), "older");
  assert.ok(seen.admit("a", 5, false, 2), "of two with one ts the winner comes last");
  assert.ok(seen.admit("a", 5, true, 0), "an expired value ends with its own ts");
  assert.ok(!seen.admit("a", 5, false, 2), "a deletion wins over data of the same ts");
  assert.ok(seen.admit("b", 1, false, 1));
  assert.ok(seen.admit("b", 2, false, 7, true), "gone");
  assert.ok(!seen.admit("b", 2, false, 7, true), "gone again");
  assert.ok(seen.admit("b", 3, false, 1), "and back");
  seen.forget();
  assert.ok(seen.admit("a", 5, false, 1));
  for (let number = 0; number < 3 * DELETED_MAX; number += 1) {
    seen.admit(`s/${number}`, number, true, 0);
  }
  const { deleted, deletedBefore } = seen as unknown as Record<string, Map<string, unknown>>;
  assert.ok((deleted?.size ?? 0) + (deletedBefore?.size ?? 0) <= 2 * (DELETED_MAX + 1));
  const hashes = new Set(Array.from({ length: 100_000 }, (_, number) => textHash(`{"n":${number}}`)));
  assert.equal(hashes.size, 100_000);
});

test("data", () => {
  assert.equal(payloadOf(Uint8Array.of(0, 255)), '"data_b64":"AP8="');
  assert.equal(payloadOf(new Uint8Array(100_000)).length, '"data_b64":""'.length + 133_336);
  assert.equal(payloadOf({ a: [1, null] }), '"data":{"a":[1,null]}');
  assert.throws(() => payloadOf(undefined), hasCode("bad_json"));
  assert.throws(() => payloadOf(1n), hasCode("bad_json"));
  const body = { source: "a", ts: 1, origin: "n", data_b64: "AP8=" };
  assert.deepEqual(recordOf(body, true).data, Uint8Array.of(0, 255));
  assert.throws(() => recordOf({ ...body, data_b64: "?" }, true), hasCode("protocol"));
  assert.equal(base64url("a?>~"), "YT8-fg");
});

test("close codes say when to come back", () => {
  for (const [code, retry] of [
    [1000, "soon"], [1006, "soon"], [1009, "never"], [4000, "never"], [4099, "never"], [4100, "back off"],
    [4199, "back off"], [4200, "now"], [4299, "now"], [4300, "soon"],
  ] as const) {
    assert.equal(closed(code, "", undefined).retry, retry, String(code));
  }
  const told = new AnodeError("unauthorized", "the token has expired");
  assert.equal(closed(4001, "x", told).error, told);
});

test("who finds no room waits in order", async () => {
  const window = new Window(2, 100);
  await window.enter(60, 1_000);
  const order: number[] = [];
  const entering = [50, 10, 500].map((size, number) => window.enter(size, 5_000).then(() => order.push(number)));
  await Promise.resolve();
  assert.deepEqual(order, [], "a small one does not overtake a large one");
  assert.equal(await window.enter(1, 10), false, "nobody waits for ever");
  window.leave(60);
  await Promise.all(entering.slice(0, 2));
  assert.deepEqual(order, [0, 1]);
  window.leave(50);
  window.leave(10);
  await Promise.all(entering);
  assert.deepEqual(order, [0, 1, 2], "one that is larger than all gets all");
});

test("without a way to stop reading, newer records replace those that wait", async () => {
  const record = (ts: number, source = "a") => ({ source, ts, origin: "n", data: ts, deleted: false, gone: false, snapshot: false });
  const queue = new ReadAhead("latest");
  for (let ts = 0; ts < 5_000; ts += 1) {
    queue.put({ record: record(ts), size: 100 });
    if (queue.isFull) {
      queue.checkUnpaused();
    }
  }
  queue.put({ callback: undefined, size: 0 });
  queue.put({ record: record(5_000), size: 100 });
  const got: (number | undefined)[] = [];
  for (let item = await queue.get(); item !== undefined; item = got.length < 1_027 ? await queue.get() : undefined) {
    got.push(item.record?.ts);
  }
  assert.deepEqual(got.slice(-3), [4_999, undefined, 5_000], "a record never overtakes a callback");
  assert.ok(got.length < 1_030);
  const all = new ReadAhead("all");
  all.put({ record: record(1), size: 17 * 1024 * 1024 });
  assert.throws(() => all.checkUnpaused(), /too slow/);
});
