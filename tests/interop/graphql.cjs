// Checks the schema of two nodes with the reference implementation of GraphQL, and drives subscriptions through
// `graphql-ws`: node graphql.cjs HOST:PORT HOST:PORT
'use strict';
const assert = require('node:assert/strict');
const path = require('node:path');
const modules = process.env.INTEROP_MODULES;
const { buildClientSchema, getIntrospectionQuery, parse, printSchema, validate, validateSchema } =
  require(path.join(modules, 'graphql'));
const { createClient } = require(path.join(modules, 'graphql-ws'));
const webSocketImpl = require(path.join(modules, 'ws'));

async function post(host, query, variables) {
  const answer = await fetch(`http://${host}/graphql`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', accept: 'application/graphql-response+json, application/json' },
    body: JSON.stringify({ query, variables }),
  });
  assert.equal(answer.status, 200);
  assert.equal(answer.headers.get('content-type'), 'application/graphql-response+json');
  const { data, errors } = await answer.json();
  assert.equal(errors, undefined);
  return data;
}

async function checkSchema(host) {
  // The longest query that tools send to learn a schema.
  const query = getIntrospectionQuery({
    descriptions: true, specifiedByUrl: true, directiveIsRepeatable: true, schemaDescription: true,
    inputValueDeprecation: true, oneOf: true,
  });
  const schema = buildClientSchema(await post(host, query));
  assert.deepEqual(validateSchema(schema), []);
  const fine = 'subscription { records(patterns: ["a"], mode: ALL) { ... on Record { ts data } ... on Eos { resume } } }';
  assert.deepEqual(validate(schema, parse(fine)), []);
  assert.notDeepEqual(validate(schema, parse('{ record { ts } }')), []);
  for (const type of ['Query', 'Mutation', 'Subscription', 'Record', 'RecordConnection', 'Micros', 'JSON']) {
    assert.match(printSchema(schema), new RegExp(`(type|scalar) ${type}\\b`));
    assert.ok(schema.getType(type).description, `${type} is described`);
  }
}

// Returns an iterator over the events of a subscription, each of which must come within 20 s.
function subscribe(client, variables) {
  const query = `subscription($patterns: [String!]!) { records(patterns: $patterns) {
    __typename ... on Record { source ts data deleted } ... on Eos { resume } } }`;
  const events = client.iterate({ query, variables });
  return {
    async next() {
      const late = new Promise((_, reject) => {
        setTimeout(() => reject(new Error('nothing came')), 20_000).unref();
      });
      const { value, done } = await Promise.race([events.next(), late]);
      assert.equal(done, false);
      assert.equal(value.errors, undefined);
      return value.data.records;
    },
    end: () => events.return(),
  };
}

async function main(first, second) {
  await checkSchema(first);
  await checkSchema(second);

  let noteClosed;
  const closed = new Promise((resolve) => { noteClosed = resolve; });
  const client = createClient({
    url: `ws://${second}/graphql`,
    webSocketImpl,
    connectionParams: { some: 'parameter' },
    lazy: false,
    retryAttempts: 0,
    on: { closed: (event) => noteClosed(event.code) },
  });
  const publish = `mutation($records: [RecordInput!]!) { publish(records: $records, ack: REPLICATED) { nodes error { code } } }`;
  const put = async (source, data) => {
    const { publish: results } = await post(first, publish, { records: [{ source, data }] });
    assert.deepEqual(results, [{ nodes: 2, error: null }]);
  };

  await put('ws/1', { n: [1, 'two', null] });
  const events = subscribe(client, { patterns: ['ws/*'] });
  const snapshot = await events.next();
  assert.deepEqual([snapshot.source, snapshot.data], ['ws/1', { n: [1, 'two', null] }]);
  assert.ok((await events.next()).resume);
  for (let round = 0; round < 20; round += 1) {
    await put('ws/2', round);
    assert.equal((await events.next()).data, round);
  }
  // A second subscription on the same connection, and a query.
  const others = subscribe(client, { patterns: ['other'] });
  assert.equal((await others.next()).__typename, 'Eos');
  const query = client.iterate({ query: '{ node { id } }' });
  assert.equal((await query.next()).value.data.node.id.length > 0, true);
  await others.end();
  await put('ws/2', 'still');
  assert.equal((await events.next()).data, 'still');
  await events.end();

  const bad = client.iterate({ query: 'subscription { records(patterns: ["a//b"]) { __typename } }' });
  await assert.rejects(bad.next(), (errors) => errors[0].extensions.code === 'bad_pattern');
  await client.dispose();
  // The library tells of the end when the node has answered it.
  assert.equal(await closed, 1000);
  console.log('interop ok');
}

main(...process.argv.slice(2)).then(() => process.exit(0), (error) => {
  console.error(error);
  process.exit(1);
});
