// Receives a webhook of a node, and checks every request by the library of Standard Webhooks:
// node webhooks.cjs SECRET RECORDS
'use strict';
const assert = require('node:assert/strict');
const http = require('node:http');
const path = require('node:path');
const { Webhook } = require(path.join(process.env.INTEROP_MODULES, 'standardwebhooks'));

const [secret, count] = [process.argv[2], Number(process.argv[3])];
const webhook = new Webhook(secret);
const stranger = new Webhook(`whsec_${Buffer.alloc(32, 9).toString('base64')}`);
const sources = new Set();
// The headers of the first request, which is answered with an error, so that it is sent again.
let failed;

// Verifies a request as it came, and asserts that the library refuses it where anything was changed.
function check(body, headers) {
  webhook.verify(body, headers).forEach((record) => sources.add(record.source));
  const refuses = (verifier, changed, text = body) =>
    assert.throws(() => verifier.verify(text, { ...headers, ...changed }), { name: 'WebhookVerificationError' });
  refuses(stranger, {});
  refuses(webhook, {}, `${body} `);
  refuses(webhook, { 'webhook-id': `${headers['webhook-id']}x` });
  refuses(webhook, { 'webhook-timestamp': String(Number(headers['webhook-timestamp']) - 1) });
}

const server = http.createServer((request, response) => {
  const parts = [];
  request.on('data', (part) => parts.push(part));
  request.on('end', () => {
    const body = Buffer.concat(parts).toString();
    const isAgain = failed !== undefined && failed['webhook-id'] === request.headers['webhook-id'];
    if (failed === undefined) {
      webhook.verify(body, request.headers);
      failed = request.headers;
      response.writeHead(503).end();
      return;
    }
    assert.ok(isAgain || sources.size > 0, 'the batch that failed comes again first, with its id');
    check(body, request.headers);
    response.writeHead(204).end();
    if (sources.size >= count) {
      console.log(`interop ok ${sources.size}`);
      server.close();
    }
  });
});
server.listen(0, '127.0.0.1', () => console.log(`http://127.0.0.1:${server.address().port}/`));
