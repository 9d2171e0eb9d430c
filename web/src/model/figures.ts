import { Problem, members, read } from "../net/api";
import type { Link } from "../net/link";
import { type Metrics, parseMetrics, total } from "../net/metrics";
import { Store } from "../net/store";
import type { Member } from "../net/types";

/** Milliseconds between two readings. */
const EVERY_MS = 2_000;
/** Number of readings that are kept: those of ten minutes. */
const KEPT = 300;

/** What one reading tells. Rates are per second and `null` at the first reading of a node. */
export interface Reading {
  /** Seconds since the Unix epoch. */
  at: number;
  published: number | null;
  applied: number | null;
  delivered: number | null;
  /** Copies that came from peers. */
  copies: number | null;
  /** Records from clients and peers that were not the newest of their source. */
  vain: number | null;
  gossipBytes: number | null;
  sources: number;
  differing: number;
  pending: number;
  connections: number;
  clientMemory: number;
}

export interface Figures {
  members: Member[];
  metrics: Metrics | null;
  /** The first figures of this node that the page has seen. */
  first: Metrics | null;
  /** When the first figures were read, in seconds since the Unix epoch. */
  since: number;
  readings: readonly Reading[];
  /** Why there are no current figures; empty if there are. */
  trouble: string;
  /** Readings of the other nodes, where they let this page read them. */
  others: ReadonlyMap<string, Reading>;
}

const RATES = {
  published: "anode_records_published_total",
  applied: "anode_records_applied_total",
  delivered: "anode_deliveries_total",
  copies: "anode_data_copies_received_total",
} as const;

/** Reads the members and figures of the connected node every two seconds while the page is seen. */
export class FigureReader {
  readonly store = new Store<Figures>({
    members: [],
    metrics: null,
    first: null,
    since: 0,
    readings: [],
    trouble: "",
    others: new Map(),
  });
  #host = "";
  #last: { metrics: Metrics; at: number } | null = null;
  #isReading = false;
  readonly #lastOf = new Map<string, { metrics: Metrics; at: number }>();
  /** Whether the other nodes are asked for their figures, too. */
  asksOthers = false;

  constructor(private readonly link: Link) {}

  start(): void {
    setInterval(() => void this.#read(), EVERY_MS);
    this.link.state.watch(() => {
      if (this.link.state.value.phase === "open" && this.link.state.value.host !== this.#host) {
        void this.#read();
      }
    });
    document.addEventListener("visibilitychange", () => void this.#read());
    void this.#read();
  }

  async #read(): Promise<void> {
    const { host, phase } = this.link.state.value;
    if (this.#isReading || document.hidden || phase === "searching") {
      return;
    }
    this.#isReading = true;
    try {
      const [known, text] = await Promise.all([members(host), read(host, "/metrics")]);
      this.#take(host, known, parseMetrics(text));
      if (this.asksOthers) {
        await this.#readOthers(host, known);
      }
    } catch (error) {
      const isForbidden = error instanceof Problem && error.status === 403;
      const trouble = error instanceof Error ? error.message : String(error);
      this.store.patch({ trouble: isForbidden ? "This token may not see members and figures (right: observe)." : trouble });
    } finally {
      this.#isReading = false;
    }
  }

  #take(host: string, known: Member[], metrics: Metrics): void {
    const at = Date.now() / 1_000;
    const isFirst = host !== this.#host || this.#last === null || hasRestarted(this.#last.metrics, metrics);
    const before = isFirst ? null : this.#last;
    const { store } = this;
    store.patch({
      members: known,
      metrics,
      first: isFirst ? metrics : store.value.first,
      since: isFirst ? at : store.value.since,
      readings: [...store.value.readings.slice(-KEPT + 1), reading(metrics, at, before)],
      trouble: "",
    });
    this.#host = host;
    this.#last = { metrics, at };
  }

  async #readOthers(host: string, known: Member[]): Promise<void> {
    const up = known.filter((member) => member.state === "alive" && member.http !== host);
    const others = new Map<string, Reading>();
    await Promise.all(
      up.map(async (member) => {
        try {
          const metrics = parseMetrics(await read(member.http, "/metrics"));
          const at = Date.now() / 1_000;
          const last = this.#lastOf.get(member.id) ?? null;
          const before = last !== null && !hasRestarted(last.metrics, metrics) ? last : null;
          others.set(member.id, reading(metrics, at, before));
          this.#lastOf.set(member.id, { metrics, at });
        } catch {
          // This node does not let the page read its figures.
        }
      }),
    );
    this.store.patch({ others });
  }
}

/** Whether counters have begun anew. */
function hasRestarted(before: Metrics, now: Metrics): boolean {
  return Object.values(RATES).some((name) => (total(now, name) ?? 0) < (total(before, name) ?? 0));
}

function reading(metrics: Metrics, at: number, before: { metrics: Metrics; at: number } | null): Reading {
  const gauge = (name: string): number => total(metrics, name) ?? 0;
  const rate = (...names: string[]): number | null => {
    if (before === null || at <= before.at) {
      return null;
    }
    const growth = names.map((name) => gauge(name) - (total(before.metrics, name) ?? 0));
    return Math.max(0, growth.reduce((sum, one) => sum + one, 0) / (at - before.at));
  };
  return {
    at,
    published: rate(RATES.published),
    applied: rate(RATES.applied),
    delivered: rate(RATES.delivered),
    copies: rate(RATES.copies),
    vain: rate("anode_records_stale_total", "anode_records_duplicate_total"),
    gossipBytes: rate("anode_gossip_bytes_sent_total", "anode_gossip_bytes_received_total"),
    sources: gauge("anode_sources"),
    differing: gauge("anode_shards_differing"),
    pending: gauge("anode_store_pending_records"),
    connections: gauge("anode_connections"),
    clientMemory: gauge("anode_client_memory_bytes"),
  };
}
