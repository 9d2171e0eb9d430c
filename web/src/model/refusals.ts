import type { Metrics } from "../net/metrics";

export interface Refusal {
  /** The metric and its label, by which it is found elsewhere. */
  key: string;
  what: string;
  cause: string;
  /** What the reason means; empty if the page does not know it. */
  why: string;
  total: number;
  /** Number since the page has begun to look. */
  fresh: number;
}

interface Kind {
  what: string;
  why: Readonly<Record<string, string>>;
}

const CODES: Readonly<Record<string, string>> = {
  bad_json: "The text is not JSON, or is nested too deeply.",
  bad_request: "A field is unknown, missing or contradicts another one.",
  bad_source: "The text is not the name of a source.",
  bad_pattern: "The text is not a pattern.",
  bad_filter: "The text is not an expression.",
  bad_timestamp: "The timestamp is not a whole number of microseconds from 0 to 2^53 - 1.",
  future_timestamp: "The timestamp is more than 10 s ahead of the node's clock.",
  too_large: "The data has more bytes than a record may have.",
  forbidden: "The token does not allow it, or the name is reserved for the system.",
  overloaded: "A queue or the map is full, or clients hold as much memory as they may.",
  rate_limited: "The token exceeds its rate.",
  store_unavailable: "The store cannot take the record at the moment.",
  timeout: "The acknowledgement level was not reached in time.",
  clock_skew: "The clock of the node is too far off those of the other members.",
  rejected: "A middleware has refused the record, and told the publisher why.",
  middleware_failed: "A middleware that had to decide about the record has failed.",
};

const KINDS: Readonly<Record<string, Kind>> = {
  anode_refusals_total: { what: "Publishes of clients", why: CODES },
  anode_records_refused_total: {
    what: "Records of peers",
    why: { future: "The timestamp is more than a day ahead of this node's clock." },
  },
  anode_gossip_refused_total: {
    what: "Messages of other nodes",
    why: {
      plain: "It came without a seal, and this node takes only sealed ones.",
      key: "It is sealed with a key that this node does not have.",
      replay: "It was sent before, or is meant for another node or life.",
      forged: "It is damaged or made up.",
    },
  },
  anode_gossip_datagrams_ignored_total: {
    what: "Datagrams",
    why: { "": "They belong to another cluster or version, are damaged, or come from strangers." },
  },
  anode_http_cuts_total: {
    what: "HTTP connections",
    why: {
      slow_body: "The body came slower than the least rate.",
      slow_reader: "The answer was read slower than the least rate.",
      place: "Others needed the place while the client was waited for.",
    },
  },
  anode_client_memory_refusals_total: {
    what: "Clients, for want of memory",
    why: {
      frames: "Frames that arrive would have taken more than is left.",
      unsent: "What waits to be sent would have taken more than is left.",
      answers: "Answers that wait would have taken more than is left.",
      subscriptions: "Patterns would have taken more than is left.",
      pages: "Pages of records would have taken more than is left.",
    },
  },
  anode_auth_failures_total: { what: "Tokens", why: { "": "They are unknown or have expired." } },
  anode_auth_rate_limited_total: { what: "Records over the rate of a token", why: {} },
  anode_accept_failures_total: { what: "Connections", why: { "": "They could not be accepted, mostly for want of file descriptors." } },
  anode_conflated_total: {
    what: "Records for slow subscribers",
    why: { "": "A newer record of the same source was sent in their place." },
  },
  anode_merged_before_spread_total: {
    what: "Records for other nodes",
    why: { "": "A newer one of the same source came before they could be sent." },
  },
  anode_middleware_rejected_total: { what: "Records, by middlewares", why: { "": CODES["rejected"] ?? "" } },
  anode_middleware_failures_total: { what: "Failures of middlewares", why: { "": "Their records were refused, or passed, as the definition says." } },
  anode_middleware_dropped_total: { what: "Records dropped by middlewares", why: { "": "The publishers were told so." } },
  anode_hook_failures_total: { what: "Batches of webhooks", why: { "": "The receiver did not take them; they are sent again." } },
  anode_tls_handshakes_total: { what: "Handshakes of TLS", why: { failed: "The client spoke no TLS, or took too long." } },
};

/** Names of metrics that count what was refused, of versions that know more than this page. */
const OTHERS = /^anode_\w*(refus|reject|dropped|failures|limited|cuts|slow_consumers|closes)\w*_total$/;

/** Everything that a node counts as refused, what happened most recently first. */
export function refusals(metrics: Metrics, first: Metrics | null): Refusal[] {
  const found: Refusal[] = [];
  for (const [name, samples] of metrics) {
    const kind = KINDS[name];
    if (kind === undefined && !OTHERS.test(name)) {
      continue;
    }
    for (const { labels, value } of samples) {
      const cause = Object.values(labels).join(" ");
      if (value === 0 || (name === "anode_tls_handshakes_total" && cause !== "failed")) {
        continue;
      }
      const same = first?.get(name)?.find((sample) => Object.values(sample.labels).join(" ") === cause);
      found.push({
        key: cause === "" ? name : `${name} ${cause}`,
        what: kind?.what ?? name.replace(/^anode_|_total$/g, "").replaceAll("_", " "),
        cause,
        why: kind?.why[cause] ?? "",
        total: value,
        fresh: Math.max(0, value - (same?.value ?? 0)),
      });
    }
  }
  return found.sort((a, b) => b.fresh - a.fresh || b.total - a.total || a.key.localeCompare(b.key));
}
