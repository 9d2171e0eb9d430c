// Drives the client for browsers in a real Chromium through a cluster of three nodes, kills the node that it is connected
// to, and checks that nothing is lost, repeated or begun anew; and how it is told of wrong tokens and of a page that may not
// connect. `scripts/clients-test` calls it.
//
//   node chromium.mjs ANODE CHROMIUM DIST MODULES
//
// DIST has the built client, and MODULES the package playwright-core.

import { spawn, spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join, normalize } from 'node:path';

const [binary, browserPath, dist, modules] = process.argv.slice(2);
const { chromium } = createRequire(join(modules, 'index.js'))('playwright-core');
const folder = mkdtempSync(join(tmpdir(), 'anode-chromium-'));
const nodes = [];

function check(isFine, what) {
  if (!isFine) throw new Error(what);
}

// Starts a node, and returns its addresses once it is ready.
function startNode(name, origin, first) {
  const flags = ['serve', '--http', '127.0.0.1:0', '--gossip', '127.0.0.1:0', '--profile', 'local', '--node-name', name,
    '--data-dir', join(folder, name), '--auth', join(folder, 'auth.toml'), '--allow-origin', origin,
    ...(first ? ['--join', first.gossip] : [])];
  const process = spawn(binary, flags, { stdio: ['ignore', 'pipe', 'ignore'] });
  nodes.push(process);
  return new Promise((resolve, reject) => {
    process.once('exit', () => reject(new Error(`node ${name} has ended`)));
    process.stdout.once('data', (line) => {
      const [, http, gossip] = /http=(\S+) gossip=(\S+)/.exec(line);
      process.removeAllListeners('exit');
      resolve({ name, process, http, gossip, url: `ws://${http}` });
    });
  });
}

// Serves the built client, and a page that loads it.
function servePage() {
  const server = createServer((request, answer) => {
    if (request.url === '/') {
      answer.setHeader('content-type', 'text/html');
      answer.end('<!doctype html><script type="module">import * as anode from "/browser.js"; window.anode = anode;</script>');
      return;
    }
    try {
      const script = readFileSync(join(dist, normalize(request.url)));
      answer.setHeader('content-type', 'text/javascript');
      answer.end(script);
    } catch {
      answer.statusCode = 404;
      answer.end();
    }
  });
  return new Promise((resolve) => server.listen(0, '127.0.0.1', () => resolve(server)));
}

function token() {
  const made = spawnSync(binary, ['token', '--json'], { encoding: 'utf8' });
  check(made.status === 0, `anode token: ${made.stderr}`);
  return JSON.parse(made.stdout);
}

async function waitReady(node) {
  for (let attempt = 0; attempt < 300; attempt += 1) {
    const answer = await fetch(`http://${node.http}/readyz`).catch(() => undefined);
    if (answer?.status === 200) return;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  throw new Error(`node ${node.name} does not get ready`);
}

// What runs in the page: everything that a program does with the client.
async function inPage({ urls, secret }) {
  const { connect } = window.anode;
  const told = { values: [], resets: 0, published: 0 };
  window.told = told;
  const client = await connect(urls, { token: secret });
  window.client = client;
  const records = client.subscribe('browser/**', { mode: 'all', on_reset: () => { told.resets += 1; } });
  void (async () => {
    for await (const record of records) told.values.push(record.data);
  })();
  window.publish = async (from, to) => {
    for (let number = from; number <= to; number += 1) {
      const ack = await client.publish(`browser/${number}`, number, { ack: 'stored' });
      if (!['applied', 'duplicate'].includes(ack.outcome)) throw new Error(`${number}: ${ack.outcome}`);
      told.published = number;
    }
  };
}

async function afterTheKill() {
  const { client } = window;
  const one = await client.get('browser/1');
  const listed = [];
  for await (const record of client.list('browser/**')) listed.push(record.data);
  const history = [];
  for await (const record of client.history('browser/7')) history.push(record.data);
  await client.publish('bytes', new Uint8Array([0, 255, 7]));
  const bytes = await client.get('bytes');
  await client.delete('browser/1', { ack: 'stored' });
  const gone = await client.get('browser/1');
  await client.close();
  return {
    one: one?.data, listed: listed.length, history, isGone: gone === undefined || gone === null || gone.deleted === true,
    bytes: [...bytes.data],
  };
}

async function refusal({ urls, secret }) {
  try {
    const client = await window.anode.connect(urls, { token: secret, timeout_ms: 5_000 });
    // Browsers do not tell the status of a refused handshake, so the client may learn why only when it brings the token.
    await client.publish('browser/refused', 1);
    await client.close();
    return 'published';
  } catch (error) {
    return error instanceof window.anode.AnodeError ? error.code : String(error);
  }
}

async function main() {
  const secret = token();
  writeFileSync(join(folder, 'auth.toml'), `[[token]]\nname = "page"\nsha256 = ${JSON.stringify(secret.sha256)}\n`
    + 'publish = ["**"]\nsubscribe = ["**"]\n');
  const [page, foreign] = await Promise.all([servePage(), servePage()]);
  const origin = `http://127.0.0.1:${page.address().port}`;
  const a = await startNode('a', origin);
  const others = await Promise.all(['b', 'c'].map((name) => startNode(name, origin, a)));
  await Promise.all([a, ...others].map(waitReady));
  const urls = [a, ...others].map((node) => node.url);
  const browser = await chromium.launch({ executablePath: browserPath, args: ['--no-sandbox'] });
  try {
    const tab = await browser.newPage();
    const open = async (url) => {
      await tab.goto(url);
      await tab.waitForFunction(() => window.anode !== undefined);
    };
    await open(`${origin}/`);
    await tab.evaluate(inPage, { urls, secret: secret.token });
    await tab.evaluate(() => window.publish(1, 40));
    const going = tab.evaluate(() => window.publish(41, 120));
    await tab.waitForFunction(() => window.told.published >= 60, undefined, { timeout: 30_000 });
    a.process.kill('SIGKILL');
    await going;
    await tab.waitForFunction(() => window.told.values.length >= 120, undefined, { timeout: 60_000 });
    const told = await tab.evaluate(() => window.told);
    const wanted = Array.from({ length: 120 }, (_, at) => at + 1);
    const sorted = [...told.values].sort((x, y) => x - y);
    check(JSON.stringify(sorted) === JSON.stringify(wanted), `lost or repeated: ${JSON.stringify(sorted)}`);
    check(told.resets === 0, 'the subscription began anew');
    const rest = await tab.evaluate(afterTheKill);
    const expected = { one: 1, listed: 120, history: [7], isGone: true, bytes: [0, 255, 7] };
    check(JSON.stringify(rest) === JSON.stringify(expected), `the rest: ${JSON.stringify(rest)}`);
    const living = others.map((node) => node.url);
    const wrong = await tab.evaluate(refusal, { urls: living, secret: 'wrong' });
    check(wrong === 'unauthorized', `a wrong token: ${wrong}`);
    await open(`http://127.0.0.1:${foreign.address().port}/`);
    const strange = await tab.evaluate(refusal, { urls: living, secret: secret.token });
    check(strange !== 'published', 'a page that may not connect has published');
    console.log(`Chromium ${browser.version()}: OK, 120 records over the death of a node; refused as ${wrong}, ${strange}`);
  } finally {
    await browser.close();
  }
}

main().then(() => 0, (error) => { console.error(error); return 1; }).then((code) => {
  nodes.forEach((node) => node.kill('SIGKILL'));
  rmSync(folder, { recursive: true, force: true });
  process.exit(code);
});
