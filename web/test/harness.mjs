// Real nodes, a real browser, and what the tests of the page share.

import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import os from "node:os";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { chromium } from "playwright-core";

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), "../..");
const binary = process.env.ANODE ?? path.join(process.env.CARGO_TARGET_DIR ?? path.join(root, "target"), "debug/anode");

/** Milliseconds within which everything that a test waits for must have happened, also on a machine under load. */
export const PATIENCE_MS = 30_000;

/** The port that is tried next: below those that the kernel gives to clients, and from another one in each process. */
let nextPort = process.pid * 211;

/** Whether nobody has a port of 127.0.0.1. */
function isFree(port) {
  return new Promise((resolve) => {
    const server = createServer();
    server.on("error", () => resolve(false));
    server.listen(port, "127.0.0.1", () => server.close(() => resolve(true)));
  });
}

/**
 * A free port, and another one at every call. The kernel was asked for any before, and gave the same one to two nodes of a
 * cluster, of which the first then ended at once.
 */
async function freePort() {
  for (;;) {
    nextPort += 1;
    const port = 12_000 + (nextPort % 20_000);
    if (await isFree(port)) {
      return port;
    }
  }
}

/** Waits until `found` returns something that is true. */
export async function eventually(what, found, patience = PATIENCE_MS) {
  const end = Date.now() + patience;
  let trouble = "";
  while (Date.now() < end) {
    try {
      const value = await found();
      if (value) {
        return value;
      }
    } catch (error) {
      trouble = String(error);
    }
    await sleep(50);
  }
  throw new Error(`not within ${patience} ms: ${what} ${trouble}`);
}

/** Processes that must not outlive this one, however it ends. */
const children = new Set();
process.on("exit", () => children.forEach((child) => child.kill("SIGKILL")));

/** Nodes of one cluster, and the folder that they store in. */
export class Cluster {
  nodes = [];
  #folder = mkdtempSync(path.join(os.tmpdir(), "anode-page-"));
  #name = `page-${process.pid}-${Date.now()}`;

  /** Starts nodes `node-1` and so on. `flags` gets the index of a node and the addresses of all. */
  static async start(count, { zones = [], flags = () => [] } = {}) {
    const cluster = new Cluster();
    const ports = [];
    for (let index = 0; index < count; index += 1) {
      ports.push({ http: `127.0.0.1:${await freePort()}`, gossip: `127.0.0.1:${await freePort()}` });
    }
    for (const [index, { http, gossip }] of ports.entries()) {
      const join = index === 0 ? [] : ["--join", ports[0].gossip];
      const zone = zones[index] === undefined ? [] : ["--zone", zones[index]];
      const args = ["--http", http, "--gossip", gossip, "--node-name", `node-${index + 1}`, ...join, ...zone, ...flags(index, ports)];
      cluster.nodes.push({ name: `node-${index + 1}`, http, args, process: null });
      cluster.spawn(index);
    }
    for (const node of cluster.nodes) {
      await eventually(`${node.name} is ready`, async () => (await fetch(`http://${node.http}/readyz`)).status === 200);
    }
    return cluster;
  }

  spawn(index) {
    const node = this.nodes[index];
    const common = ["--cluster-name", this.#name, "--profile", "local", "--data-dir", path.join(this.#folder, node.name), "--workers", "1"];
    const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith("ANODE_")));
    node.process = spawn(binary, ["serve", ...common, ...node.args], { env, stdio: "ignore" });
    children.add(node.process);
  }

  kill(index) {
    this.nodes[index].process.kill("SIGKILL");
  }

  url(index) {
    return `http://${this.nodes[index].http}/`;
  }

  async publish(index, records, token) {
    const headers = { "Content-Type": "application/json", ...(token === undefined ? {} : { Authorization: `Bearer ${token}` }) };
    const answer = await fetch(`http://${this.nodes[index].http}/v1/publish`, { method: "POST", headers, body: JSON.stringify(records) });
    if (answer.status !== 200) {
      throw new Error(`publish: ${answer.status} ${await answer.text()}`);
    }
    return answer.json();
  }

  stop() {
    for (const node of this.nodes) {
      node.process.kill("SIGKILL");
    }
    rmSync(this.#folder, { recursive: true, force: true, maxRetries: 20, retryDelay: 50 });
  }

  /** Writes a file of rights, and returns its path. */
  rights(text) {
    const file = path.join(this.#folder, "auth.toml");
    writeFileSync(file, text);
    return file;
  }
}

/** The entry of a token in a file of rights. */
export function tokenEntry(name, secret, rights) {
  return `[[token]]\nname = "${name}"\nsha256 = "${createHash("sha256").update(secret).digest("hex")}"\n${rights}\n`;
}

/** Writes a file of rights that is removed with the process. */
export function rightsFile(text) {
  const folder = mkdtempSync(path.join(os.tmpdir(), "anode-rights-"));
  process.on("exit", () => rmSync(folder, { recursive: true, force: true }));
  writeFileSync(path.join(folder, "auth.toml"), text);
  return path.join(folder, "auth.toml");
}

/** Starts Debian's Chromium, or the one that `CHROMIUM` names. */
export function browser() {
  const executablePath = process.env.CHROMIUM ?? "/usr/bin/chromium";
  if (!existsSync(executablePath)) {
    throw new Error(`${executablePath} is not there; scripts/web-test installs it`);
  }
  // Root, as in containers, has no sandbox.
  const args = process.getuid() === 0 ? ["--no-sandbox"] : [];
  return chromium.launch({ executablePath, args });
}

/**
 * Opens the page. Errors of its code, and what its policy forbids, fail the test at `check`. The browser runs `first`
 * before the code of the page.
 */
export async function open(chrome, url, options = {}, first = undefined) {
  const context = await chrome.newContext({ viewport: { width: 1280, height: 800 }, ...options });
  context.setDefaultTimeout(PATIENCE_MS);
  const page = await context.newPage();
  if (first !== undefined) {
    await page.addInitScript(first);
  }
  const errors = [];
  page.on("pageerror", (error) => errors.push(String(error)));
  page.on("console", (message) => {
    if (/Content Security Policy|Refused to/.test(message.text())) {
      errors.push(message.text());
    }
  });
  await page.goto(url);
  const check = () => {
    if (errors.length > 0) {
      throw new Error(errors.join("\n"));
    }
  };
  return { page, check, close: () => context.close() };
}

/** Waits until the page is connected to a node. If it is not, the error tells what the page says about that. */
export async function connected(page, name) {
  try {
    await page.waitForSelector(`.connection[data-phase=open]${name === undefined ? "" : `[data-node="${name}"]`}`);
  } catch (error) {
    const shown = await page.evaluate(() => [...document.querySelectorAll(".connection")].map((each) => each.outerHTML));
    throw new Error(`the page at ${page.url()} is not connected: ${shown.join("\n") || "it shows no connection"}`, { cause: error });
  }
}

/** Figures of this machine, as records. */
export class Machine {
  #before = os.cpus().map((cpu) => cpu.times);

  records(host) {
    const rounded = (value, digits = 2) => Number(value.toFixed(digits));
    const times = os.cpus().map((cpu) => cpu.times);
    const records = times.map((now, at) => {
      const spent = (kind) => now[kind] - (this.#before[at]?.[kind] ?? 0);
      const all = ["user", "nice", "sys", "idle", "irq"].reduce((sum, kind) => sum + spent(kind), 0) || 1;
      return {
        source: `${host}/cpu/${at}`,
        data: { user: rounded((spent("user") * 100) / all, 1), system: rounded((spent("sys") * 100) / all, 1), idle: rounded((spent("idle") * 100) / all, 1) },
      };
    });
    this.#before = times;
    os.loadavg().forEach((value, at) => records.push({ source: `${host}/load/${[1, 5, 15][at]}min`, data: rounded(value) }));
    records.push({ source: `${host}/uptime`, data: rounded(os.uptime(), 1) });
    for (const line of readFileSync("/proc/meminfo", "utf8").split("\n")) {
      const found = /^(MemFree|MemAvailable|Cached|Dirty|Active|Inactive|AnonPages|Mapped|Slab):\s+(\d+) kB/.exec(line);
      if (found !== null) {
        records.push({ source: `${host}/memory/${found[1]}`, data: rounded(Number(found[2]) / 1024, 1) });
      }
    }
    for (const line of readFileSync("/proc/net/dev", "utf8").split("\n").slice(2)) {
      const [name, ...counts] = line.trim().split(/[\s:]+/);
      if (counts.length > 8) {
        records.push({ source: `${host}/net/${name}`, data: { received: Number(counts[0]), sent: Number(counts[8]) } });
      }
    }
    for (const line of readFileSync("/proc/stat", "utf8").split("\n")) {
      const found = /^(ctxt|processes|procs_running|procs_blocked) (\d+)/.exec(line);
      if (found !== null) {
        records.push({ source: `${host}/kernel/${found[1]}`, data: Number(found[2]) });
      }
    }
    return records;
  }
}

/** Publishes until it is stopped; `records` is called `perSecond` times a second. */
export function feed(perSecond, records) {
  let isOn = true;
  const done = (async () => {
    const begun = performance.now();
    for (let turn = 0; isOn; turn += 1) {
      await records(turn).catch(() => undefined);
      await sleep(Math.max(0, begun + ((turn + 1) * 1_000) / perSecond - performance.now()));
    }
  })();
  return async () => {
    isOn = false;
    await done;
  };
}
