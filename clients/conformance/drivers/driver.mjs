// Drives the TypeScript client: takes a JSON object a line on stdin, and answers each by one on stdout (README.md).
import { readFile } from "node:fs/promises";
import { createInterface } from "node:readline";

import { AnodeError, connect } from "../../typescript/dist/index.js";

const clients = new Map();
const errors = new Map();
const feeds = new Map();

const value = (data) => (data instanceof Uint8Array ? { b64: Buffer.from(data).toString("base64") } : (data ?? null));

const shown = ({ source, ts, origin, data, deleted, gone, snapshot }) => ({
  source,
  ts,
  origin,
  data: value(data),
  deleted,
  gone,
  snapshot,
});

const told = ({ code, temporary, applied = null, ts = null }) => ({ code, temporary, applied, ts });

const chosen = (step, ...names) => Object.fromEntries(names.filter((name) => name in step).map((name) => [name, step[name]]));

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** A subscription, and all that it has delivered. */
class Feed {
  log = [];
  state = {};
  last = {};
  disorder = 0;
  resets = 0;
  eos = 0;
  error = null;
  over = false;

  reset = () => {
    this.resets += 1;
    this.log.push("reset");
    this.state = {};
    this.last = {};
  };

  endOfSnapshot = () => {
    this.eos += 1;
    this.log.push("eos");
  };

  async run(records, waitMs) {
    this.records = records;
    await pause(waitMs);
    try {
      for await (const record of records) {
        this.log.push(shown(record));
        this.disorder += record.ts < (this.last[record.source] ?? -1) ? 1 : 0;
        this.last[record.source] = record.ts;
        if (record.deleted || record.gone) {
          delete this.state[record.source];
        } else {
          this.state[record.source] = value(record.data);
        }
      }
    } catch (error) {
      this.error = told(error);
    }
    this.over = true;
  }

  told() {
    const { state, disorder, resets, eos, error, over } = this;
    return { state, disorder, resets, eos, error, over };
  }
}

async function open(name, step) {
  const names = ["token", "token_file", "ca", "max_outstanding", "timeout_ms", "publish_timeout_ms", "read_timeout_ms"];
  const options = chosen(step, ...names);
  if ("token_from" in step) {
    options.token = async () => (await readFile(step.token_from, "utf8")).trim();
  }
  errors.set(name, 0);
  options.on_error = () => errors.set(name, errors.get(name) + 1);
  clients.set(name, await connect(step.urls, options));
  return null;
}

async function burst(client, step) {
  const failed = {};
  const running = new Set();
  for (let number = 0; number < step.count; number += 1) {
    while (running.size >= (step.concurrency ?? 64)) {
      await Promise.race(running);
    }
    const publishing = client
      .publish(`${step.prefix}/${number % step.sources}`, number, chosen(step, "ack"))
      .catch((error) => {
        failed[error.code] = (failed[error.code] ?? 0) + 1;
      })
      .finally(() => running.delete(publishing));
    running.add(publishing);
    if (number % 10 === 9) {
      await pause(step.pause_ms ?? 0);
    }
  }
  await Promise.all(running);
  return { failed };
}

async function all(records) {
  const list = [];
  for await (const record of records) {
    list.push(shown(record));
  }
  return list;
}

function data(step) {
  if ("bytes" in step) {
    return Uint8Array.from(Buffer.from(step.bytes, "base64"));
  }
  return typeof step.data === "string" ? step.data.repeat(step.times ?? 1) : step.data;
}

const ack = ({ ts, outcome, level, current_ts = null, nodes = null }) => ({ ts, outcome, level, current_ts, nodes });

async function perform(step) {
  const name = step.client ?? "main";
  if (step.do === "connect") {
    return open(name, step);
  }
  if (["feed", "log", "unsubscribe"].includes(step.do)) {
    const feed = feeds.get(step.name);
    if (step.do === "unsubscribe") {
      await feed.records.close();
    }
    return step.do === "log" ? feed.log : feed.told();
  }
  const client = clients.get(name);
  switch (step.do) {
    case "publish":
      return ack(await client.publish(step.source, data(step), chosen(step, "ack", "ts", "ttl_ms", "timeout_ms")));
    case "delete":
      return ack(await client.delete(step.source, chosen(step, "ack", "ts")));
    case "burst":
      return burst(client, step);
    case "get": {
      const record = await client.get(step.source);
      return record === undefined ? null : shown(record);
    }
    case "list":
      return all(client.list(step.pattern));
    case "history":
      return all(client.history(step.source, step.from, step.to));
    case "subscribe": {
      const feed = new Feed();
      feeds.set(step.name, feed);
      const options = { ...chosen(step, "mode", "snapshot", "filter"), on_reset: feed.reset, on_eos: feed.endOfSnapshot };
      void feed.run(client.subscribe(step.sources, options), step.wait_ms ?? 0);
      return null;
    }
    case "errors":
      return errors.get(name);
    case "close":
      await client.close();
      return null;
    default:
      throw new Error(`unknown step ${step.do}`);
  }
}

for await (const line of createInterface({ input: process.stdin })) {
  const step = JSON.parse(line);
  void perform(step).then(
    (ok) => console.log(JSON.stringify({ id: step.id, ok })),
    (error) =>
      console.log(JSON.stringify({ id: step.id, ...(error instanceof AnodeError ? { error: told(error) } : { bug: String(error.stack) }) })),
  );
}
process.exit(0);
