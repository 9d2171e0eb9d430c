// Makes the pictures of the page: `node screenshots.mjs FOLDER`. See scripts/screenshots.

import { createServer } from "node:http";
import os from "node:os";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { Cluster, Machine, browser, connected, eventually, feed, open } from "./harness.mjs";

/** Seconds for which the cluster runs before the first picture, so that the plots have something to show. */
const SECONDS = Number(process.env.SECONDS_BEFORE ?? 45);

const folder = path.resolve(process.argv[2] ?? ".");
const zones = ["oslo", "oslo", "bergen", "bergen", "tromso"];
const cluster = await Cluster.start(5, { zones });
const chrome = await browser();
const machines = zones.map((zone, at) => ({ name: `${zone}/machine-${at + 1}`, figures: new Machine() }));
const stop = feed(10, async (turn) => {
  const at = turn % machines.length;
  await cluster.publish(at, machines[at].figures.records(machines[at].name));
  if (turn % 25 === 0) {
    // Mistakes of clients, so that there is something that was refused.
    await fetch(`${cluster.url(0)}v1/publish`, { method: "POST", body: '{"source":"a//b","data":1}' });
    await fetch(`${cluster.url(0)}v1/publish`, { method: "POST", body: '{"source":"a","data":1,"ts":9000000000000000}' });
  }
});

async function picture(name, view, options, prepare = async () => {}) {
  const { page, close } = await open(chrome, `${cluster.url(0)}#/${view}`, { viewport: { width: 1280, height: 800 }, ...options });
  await connected(page);
  await page.evaluate(() => document.fonts.ready);
  await prepare(page);
  await page.screenshot({ path: path.join(folder, name), timeout: 60_000 });
  await close();
}

// This page stays open from the beginning, so that its plots cover the whole time.
const long = await open(chrome, cluster.url(0), { colorScheme: "light" });
const dark = await open(chrome, cluster.url(0), { colorScheme: "dark" });
await long.page.locator(".connection").waitFor();
await sleep(SECONDS * 1_000);
await long.page.screenshot({ path: path.join(folder, "page-cluster.png"), timeout: 60_000 });
await dark.page.screenshot({ path: path.join(folder, "page-cluster-dark.png"), timeout: 60_000 });
await long.close();
await dark.close();
const opened = async (page) => {
  await page.waitForSelector('[data-name="oslo/machine-1/memory/MemAvailable"]');
  await page.waitForSelector(".plot canvas");
  await sleep(2_500);
};
await picture("page-sources.png", "sources/oslo/machine-1/memory/MemAvailable", {}, opened);
await picture("page-flow.png", "flow", { colorScheme: "dark" }, async (page) => {
  await page.getByText("since the node's start").click();
  await page.waitForSelector(".share-bar");
  await sleep(3_000);
});
await picture("page-subscribe.png", "listen", { viewport: { width: 1100, height: 560 } }, async (page) => {
  await page.fill("textarea[name=patterns]", "bergen/*/load/*\noslo/**");
  await page.click("button[type=submit]");
  await sleep(3_000);
});
await picture("page-phone.png", "cluster", { viewport: { width: 390, height: 780 }, colorScheme: "dark" }, () => sleep(6_000));
// A program beside the cluster: it tells figures of this machine to those who ask, and takes what webhooks send.
const beside = createServer((request, response) => {
  request.resume();
  const isAsked = request.method === "GET";
  response.writeHead(isAsked ? 200 : 204, isAsked ? { "Content-Type": "application/json" } : {});
  response.end(isAsked ? JSON.stringify({ uptime: Math.round(os.uptime()), free: os.freemem() }) : undefined);
});
await new Promise((resolve) => beside.listen(0, "127.0.0.1", resolve));
const address = `http://127.0.0.1:${beside.address().port}`;
const definitions = {
  "middleware/possible": { on: "*/*/memory/*", cel: 'data < 0 ? reject("less than nothing") : data' },
  "pull/office": { kind: "http", every: "2s", url: `${address}/figures`, records: [{ source: "office/machine-6", pointer: "" }] },
  "hook/office": { on: "office/**", url: `${address}/in` },
};
for (const [place, definition] of Object.entries(definitions)) {
  const headers = { "Content-Type": "application/json" };
  const answer = await fetch(`${cluster.url(0)}v1/${place}`, { method: "PUT", headers, body: JSON.stringify(definition) });
  if (answer.status !== 200) {
    throw new Error(`${place}: ${answer.status} ${await answer.text()}`);
  }
}
// The pull source and the webhook are run by one member each, and tell how they are doing after some seconds.
for (const place of ["pull/office", "hook/office"]) {
  await eventually(`${place} is doing something`, async () => {
    const { state } = await (await fetch(`${cluster.url(0)}v1/${place}`)).json();
    return state?.records > 0;
  });
}
await picture("page-extend.png", "extend", { viewport: { width: 1280, height: 1000 } }, async (page) => {
  await page.waitForSelector('tr[data-extension="pull/office"][data-runner^="node-"]');
  await page.waitForSelector('tr[data-extension="hook/office"][data-runner^="node-"]');
  await sleep(3_000);
});
await stop();
await chrome.close();
cluster.stop();
beside.close();
beside.closeAllConnections();
