import type { AnodeRecord, WireError } from "./types";

/** Most patterns of one subscription. */
const PATTERNS_MAX = 256;
/** Milliseconds for which changes are collected before they are told to the node. */
const COLLECT_MS = 60;
/** Milliseconds after which a subscription is asked for again that the node had no room for. */
const AGAIN_MS = 5_000;

export interface Watch {
  /** Changes the sources that are watched. */
  set(sources: readonly string[]): void;
  /** The record that is known of a watched source. */
  get(source: string): AnodeRecord | undefined;
  end(): void;
}

interface Subscription {
  sources: string[];
  /** The number by which the node knows it; `null` until it has answered. */
  number: number | null;
}

/**
 * The sources that parts of the page look at. Each is subscribed to by its name while somebody looks at it, so the
 * node sends what is seen and nothing else, however many sources there are.
 */
export class Watches {
  readonly #watchers = new Map<(record: AnodeRecord) => void, readonly string[]>();
  readonly #wanted = new Map<string, Set<(record: AnodeRecord) => void>>();
  readonly #records = new Map<string, AnodeRecord>();
  /** Subscriptions by the id of their request. */
  readonly #subscriptions = new Map<number, Subscription>();
  readonly #subscribed = new Set<string>();
  #lastId = 0;
  #timer = 0;
  /** Number of sources that are subscribed to, for who wants to see it. */
  get count(): number {
    return this.#subscribed.size;
  }

  constructor(private readonly send: (frame: object) => boolean) {}

  /** Begins to watch; `handle` gets every record of the sources that are set. */
  watch(handle: (record: AnodeRecord) => void): Watch {
    this.#watchers.set(handle, []);
    return {
      set: (sources) => this.#set(handle, sources),
      get: (source) => this.#records.get(source),
      end: () => {
        this.#set(handle, []);
        this.#watchers.delete(handle);
      },
    };
  }

  #set(handle: (record: AnodeRecord) => void, sources: readonly string[]): void {
    const kept = new Set(sources);
    for (const source of this.#watchers.get(handle) ?? []) {
      if (!kept.has(source)) {
        const handles = this.#wanted.get(source);
        handles?.delete(handle);
        if (handles?.size === 0) {
          this.#wanted.delete(source);
        }
      }
    }
    for (const source of kept) {
      let handles = this.#wanted.get(source);
      if (handles === undefined) {
        handles = new Set();
        this.#wanted.set(source, handles);
      }
      if (!handles.has(handle)) {
        handles.add(handle);
        const record = this.#records.get(source);
        if (record !== undefined) {
          handle(record);
        }
      }
    }
    this.#watchers.set(handle, [...kept]);
    this.#collect();
  }

  #collect(): void {
    if (this.#timer === 0) {
      this.#timer = window.setTimeout(() => {
        this.#timer = 0;
        this.#tell();
      }, COLLECT_MS);
    }
  }

  /** Tells the node what is new, and what nobody looks at any more. */
  #tell(): void {
    const added = [...this.#wanted.keys()].filter((source) => !this.#subscribed.has(source));
    for (let at = 0; at < added.length; at += PATTERNS_MAX) {
      const sources = added.slice(at, at + PATTERNS_MAX);
      const id = (this.#lastId += 1);
      if (!this.send({ id, subscribe: { sources } })) {
        return;
      }
      this.#subscriptions.set(id, { sources, number: null });
      for (const source of sources) {
        this.#subscribed.add(source);
      }
    }
    for (const [id, subscription] of this.#subscriptions) {
      const isWanted = subscription.sources.some((source) => this.#wanted.has(source));
      if (!isWanted && subscription.number !== null && this.send({ id: (this.#lastId += 1), unsubscribe: subscription.number })) {
        this.#subscriptions.delete(id);
        this.#forget(subscription.sources);
      }
    }
  }

  #forget(sources: string[]): void {
    for (const source of sources) {
      this.#subscribed.delete(source);
      this.#records.delete(source);
    }
  }

  /** The connection was greeted: everything is subscribed to anew. */
  handleOpen(): void {
    this.#tell();
  }

  handleClosed(): void {
    this.#subscriptions.clear();
    this.#subscribed.clear();
  }

  /** The node has answered a request: with the number of the subscription, or with an error. */
  handleAnswer(id: number, number: number | null, error: WireError | null): void {
    const subscription = this.#subscriptions.get(id);
    if (subscription === undefined) {
      return;
    }
    if (error === null) {
      subscription.number = number;
      this.#collect();
      return;
    }
    // What is refused for good counts as subscribed to, so that it is not asked for again and again.
    this.#subscriptions.delete(id);
    if (error.temporary === true) {
      setTimeout(() => {
        this.#forget(subscription.sources);
        this.#collect();
      }, AGAIN_MS);
    }
  }

  handleRecord(record: AnodeRecord): void {
    const handles = this.#wanted.get(record.source);
    if (this.#subscribed.has(record.source)) {
      this.#records.set(record.source, record);
    }
    if (handles !== undefined) {
      for (const handle of handles) {
        handle(record);
      }
    }
  }
}
