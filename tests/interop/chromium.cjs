// Drives a node that speaks TLS and demands tokens through pages in Chromium. scripts/chromium runs it:
//   node chromium.cjs CHROMIUM MODULES NODE-PORT TOKEN CERT KEY SPKI-HASH ALLOWED-PORT
// Chromium trusts the certificate by the hash of its public key, and checks everything else as always.
'use strict';
const assert = require('node:assert/strict');
const fs = require('node:fs');
const https = require('node:https');
const path = require('node:path');
const [chromiumPath, modules, port, token, cert, key, spki, allowedPort] = process.argv.slice(2);
const { chromium } = require(path.join(modules, 'playwright-core'));
const node = `localhost:${port}`;
const RECORDS = 1000;

// Serves an empty page, so that there are pages of other origins. Port 0: any.
function serve(wanted) {
  const server = https.createServer({ cert: fs.readFileSync(cert), key: fs.readFileSync(key) }, (_, answer) => {
    answer.setHeader('content-type', 'text/html');
    answer.end('<!doctype html><title>a page</title>');
  });
  return new Promise((resolve) => server.listen(wanted, '127.0.0.1', () => resolve(server)));
}

// Runs in the page: subscribes, publishes over HTTP and over a WebSocket, and tells what has come.
async function exchange({ node, token, prefix, count, inFirstFrame }) {
  const encoded = btoa(token).replaceAll('+', '-').replaceAll('/', '_').replaceAll('=', '');
  const protocols = inFirstFrame ? ['anode.v1.json'] : ['anode.v1.json', `anode.token.${encoded}`];
  const open = (where) => new Promise((resolve, reject) => {
    const socket = new WebSocket(`wss://${node}${where}`, protocols);
    const waiting = [];
    const wanted = [];
    socket.onmessage = ({ data }) => {
      for (const message of data.startsWith('[') ? JSON.parse(data) : [JSON.parse(data)]) {
        wanted.length ? wanted.shift()(message) : waiting.push(message);
      }
    };
    socket.next = () => new Promise((next, late) => {
      if (waiting.length) return next(waiting.shift());
      const timer = setTimeout(() => late(new Error(`nothing from ${where}`)), 20_000);
      wanted.push((message) => { clearTimeout(timer); next(message); });
    });
    socket.onopen = () => resolve(socket);
    socket.onerror = () => reject(new Error(`${where} is refused`));
  });
  const enter = async (socket) => {
    const greeting = await socket.next();
    if (!greeting.connected) throw new Error(`no greeting: ${JSON.stringify(greeting)}`);
    if (!inFirstFrame) return;
    socket.send(JSON.stringify({ id: 1, auth: { token } }));
    const answer = await socket.next();
    if (answer.result?.name !== 'page') throw new Error(`no entry: ${JSON.stringify(answer)}`);
  };
  const subscriber = await open(`/subscribe?source=${prefix}/**`);
  await enter(subscriber);
  while (!(await subscriber.next()).eos);
  const headers = { authorization: `Bearer ${token}`, 'content-type': 'application/json' };
  const body = JSON.stringify({ source: `${prefix}/fetch`, data: 'a κόσμε' });
  const posted = await fetch(`https://${node}/v1/publish?ack=stored`, { method: 'POST', headers, body });
  const came = await subscriber.next();
  const read = await fetch(`https://${node}/v1/sources/${prefix}/fetch`, { headers });
  const publisher = await open('/publish');
  await enter(publisher);
  for (let number = 0; number < count; number += 1) {
    publisher.send(JSON.stringify({ source: `${prefix}/socket`, ts: Date.now() * 1000 + number, data: number }));
  }
  let last = -1;
  let records = 0;
  while (last < count - 1) {
    const { data } = await subscriber.next();
    if (data <= last) throw new Error(`${data} behind ${last}`);
    last = data;
    records += 1;
  }
  const told = { protocol: subscriber.protocol, posted: posted.status, came, read: (await read.json()).data, records };
  subscriber.close();
  publisher.close();
  return told;
}

// Runs in the page: what a page sees that may not come in.
async function refused({ node, token }) {
  const encoded = btoa(token).replaceAll('+', '-').replaceAll('/', '_').replaceAll('=', '');
  const socket = new WebSocket(`wss://${node}/subscribe?source=x`, ['anode.v1.json', `anode.token.${encoded}`]);
  const closed = new Promise((resolve) => {
    socket.onopen = () => resolve('open');
    socket.onclose = ({ code }) => resolve(code);
  });
  const headers = { authorization: `Bearer ${token}` };
  const fetched = fetch(`https://${node}/v1/sources/x`, { headers }).then((answer) => answer.status, () => 'blocked');
  return { socket: await closed, fetched: await fetched };
}

async function main() {
  const args = [`--ignore-certificate-errors-spki-list=${spki}`, '--no-sandbox'];
  const browser = await chromium.launch({ executablePath: chromiumPath, headless: true, args });
  const [allowed, foreign] = [await serve(Number(allowedPort)), await serve(0)];
  try {
    const page = await browser.newPage();
    const visit = async (url) => {
      const answer = await page.goto(url);
      assert.equal(answer.status(), 200, url);
      return answer.securityDetails();
    };
    const check = async (name, settings) => {
      const told = await page.evaluate(exchange, { node, token, prefix: name, count: RECORDS, ...settings });
      assert.equal(told.protocol, 'anode.v1.json', 'the subprotocol with the token is never chosen');
      assert.deepEqual([told.posted, told.read], [200, 'a κόσμε']);
      assert.deepEqual([told.came.source, told.came.data], [`${name}/fetch`, 'a κόσμε']);
      assert.ok(told.records > 0 && told.records <= RECORDS);
      console.log(`${name}: ${told.records} records by wss, and by https ${told.posted}`);
    };
    const { protocol } = await visit(`https://${node}/healthz`);
    console.log(`Chromium ${browser.version()} speaks ${protocol} with the node`);
    await check('own', {});
    await check('frame', { inFirstFrame: true });
    assert.deepEqual(await page.evaluate(refused, { node, token: 'wrong' }), { socket: 1006, fetched: 401 });
    console.log('own, with a wrong token: refused');
    await visit(`https://localhost:${allowed.address().port}/`);
    await check('allowed', {});
    await visit(`https://localhost:${foreign.address().port}/`);
    assert.deepEqual(await page.evaluate(refused, { node, token }), { socket: 1006, fetched: 'blocked' });
    console.log('a page of another origin: refused');
    console.log('interop ok');
  } finally {
    await browser.close();
    allowed.close();
    foreign.close();
  }
}

main().catch((error) => {
  console.error(error);
  process.exitCode = 1;
});
