// Drives two nodes through Node's `ws`: node client.cjs HOST:PORT HOST:PORT
'use strict';
const assert = require('node:assert/strict');
const path = require('node:path');
// `wss` over TLS; the authority is then the one of the variable NODE_EXTRA_CA_CERTS.
const scheme = process.env.INTEROP_SCHEME ?? 'ws';
const WebSocket = require(path.join(process.env.INTEROP_MODULES, 'ws'));

// A WebSocket with a queue of messages. `next()` returns the next one, and fails after 20 s.
function open(url, protocols) {
  const socket = new WebSocket(url, protocols, { perMessageDeflate: true });
  const waiting = [];
  const wanted = [];
  socket.on('message', (data, isBinary) => {
    const message = isBinary ? data : data.toString();
    wanted.length ? wanted.shift()(message) : waiting.push(message);
  });
  socket.next = () => new Promise((resolve, reject) => {
    if (waiting.length) return resolve(waiting.shift());
    const timer = setTimeout(() => reject(new Error(`nothing from ${url}`)), 20_000);
    wanted.push((message) => { clearTimeout(timer); resolve(message); });
  });
  socket.json = async () => JSON.parse(await socket.next());
  return new Promise((resolve, reject) => {
    socket.on('open', () => resolve(socket));
    socket.on('error', reject);
  });
}

async function main(first, second) {
  const publisher = await open(`${scheme}://${first}/publish?ack=stored`);
  const subscriber = await open(`${scheme}://${second}/subscribe`);
  assert.ok((await publisher.json()).connected.session);
  assert.ok((await subscriber.json()).connected.node);

  subscriber.send(JSON.stringify({ id: 'all', subscribe: { sources: ['js/*'] } }));
  assert.deepEqual(await subscriber.json(), { id: 'all', result: { subscription: 1 } });
  assert.ok((await subscriber.json()).eos.resume);

  publisher.send(JSON.stringify({ id: 1, source: 'js/1', data: { nested: [1, 'zwei', null] } }));
  const answer = await publisher.json();
  assert.equal(answer.result.level, 'stored', JSON.stringify(answer));
  assert.deepEqual((await subscriber.json()).data, { nested: [1, 'zwei', null] });

  publisher.send(JSON.stringify({ source: 'js/2', data_b64: Buffer.from([0, 255]).toString('base64') }));
  assert.equal((await subscriber.json()).data_b64, 'AP8=');

  const pong = new Promise((resolve) => subscriber.once('pong', resolve));
  subscriber.ping('are you there');
  assert.equal((await pong).toString(), 'are you there');

  const closed = new Promise((resolve) => subscriber.once('close', resolve));
  subscriber.close(1000);
  assert.equal(await closed, 1000);

  await assert.rejects(open(`${scheme}://${first}/publish`, ['mqtt']), /400/);
  publisher.terminate();
}

main(...process.argv.slice(2, 4)).then(
  () => console.log('interop ok'),
  (error) => { console.error(error); process.exit(1); },
);
