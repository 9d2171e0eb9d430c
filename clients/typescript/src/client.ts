/** The client: one connection for publishing, one for each subscription, and requests over HTTP for reading. */

import { Access } from "./access.js";
import { NodeUrl } from "./address.js";
import { Dialer, type Shared } from "./dialer.js";
import { AnodeError } from "./errors.js";
import { type ConnectOptions, LIMIT_MAX_MS } from "./options.js";
import type { Platform, PlatformMaker } from "./platform.js";
import { Publisher } from "./publisher.js";
import { type Ack, type AnodeRecord, type Level, payloadOf } from "./records.js";
import { type Pages, Reads } from "./reads.js";
import { Roster } from "./roster.js";
import { Stamps } from "./stamps.js";
import { type Callback, Feed, Subscription } from "./subscription.js";

/** What may be said of a deletion. */
export interface DeleteOptions {
  /** What to wait for. Default: `accepted`. */
  ack?: Level;
  /** The timestamp, in microseconds since the Unix epoch. Without it the client stamps the record. */
  ts?: number;
  /** How long it may take with all its attempts, in milliseconds, in place of the client's setting. */
  timeout_ms?: number;
}

/** What may be said of a record. */
export interface PublishOptions extends DeleteOptions {
  /** The time to live, in milliseconds. */
  ttl_ms?: number;
}

/** What may be said of a subscription. */
export interface SubscribeOptions {
  /** `latest` (default): a slow reader gets the newest of each source. `all`: every record that the node applies. */
  mode?: "latest" | "all";
  /** Whether to get what is there already. Default: `true`. */
  snapshot?: boolean;
  /** Only records for which this expression is true. */
  filter?: string;
  /** Is called when the subscription could not be resumed: forget what you hold, all of it comes again. */
  on_reset?: () => void | Promise<void>;
  /** Is called when what was there at the beginning has come. */
  on_eos?: () => void | Promise<void>;
}

/** Connects to a node, and returns the client when the node has greeted. */
export async function connectOn(
  make: PlatformMaker,
  readToken: (path: string) => Promise<string>,
  urls: string | Iterable<string>,
  settings: ConnectOptions = {},
): Promise<Client> {
  const seeds = (typeof urls === "string" ? [urls] : [...urls]).map((url) => NodeUrl.parse(url));
  if (seeds.length === 0) {
    throw new AnodeError("bad_url", "no node is named; allowed: one URL or more");
  }
  const platform = await make(settings);
  const { token_file: file } = settings;
  const token = settings.token ?? (file === undefined ? platform.environmentToken : () => readToken(file));
  const client = new Client(seeds, platform, new Access(token), settings);
  try {
    await client.begin(Math.min(settings.timeout_ms ?? 10_000, LIMIT_MAX_MS));
  } catch (error) {
    await client.close();
    throw error;
  }
  return client;
}

/** A client of a cluster. Made by `connect`. */
export class Client {
  private readonly abort = new AbortController();
  private readonly shared: Shared;
  private readonly dialer: Dialer;
  private readonly publisher: Publisher;
  private readonly reads: Reads;
  private readonly subscriptions = new Set<Subscription>();
  private readonly publishTimeoutMs: number;
  private readonly onReset: Callback;

  /** Is called by `connect`. */
  constructor(seeds: NodeUrl[], platform: Platform, access: Access, settings: ConnectOptions) {
    this.publishTimeoutMs = Math.min(settings.publish_timeout_ms ?? 30_000, LIMIT_MAX_MS);
    this.onReset = settings.on_reset;
    const options = {
      publishTimeoutMs: this.publishTimeoutMs,
      readTimeoutMs: settings.read_timeout_ms ?? 10_000,
      maxOutstanding: Math.max(settings.max_outstanding ?? 1_024, 1),
      maxOutstandingBytes: Math.max(settings.max_outstanding_bytes ?? 4 * 1024 * 1024, 1),
      report: settings.on_error ?? (() => undefined),
    };
    this.shared = { platform, roster: new Roster(seeds), access, options, closing: this.abort.signal };
    this.dialer = new Dialer("/publish", this.shared);
    this.publisher = new Publisher(this.dialer, new Stamps(), options);
    this.reads = new Reads(this.shared);
  }

  /** Publishes a value. A `Uint8Array` or `ArrayBuffer` is published as bytes, all else as JSON. */
  async publish(source: string, data: unknown, options: PublishOptions = {}): Promise<Ack> {
    const ttl = options.ttl_ms === undefined ? "" : `,"ttl_ms":${JSON.stringify(options.ttl_ms)}`;
    return this.send(source, payloadOf(data) + ttl, options);
  }

  /** Marks a source as deleted. */
  async delete(source: string, options: DeleteOptions = {}): Promise<Ack> {
    return this.send(source, '"deleted":true', options);
  }

  /** Returns the records of all sources that match one of the patterns, first those that are there already. */
  subscribe(sources: string | Iterable<string>, options: SubscribeOptions = {}): Subscription {
    this.check();
    const { mode = "latest", snapshot = true, filter } = options;
    const patterns = typeof sources === "string" ? [sources] : [...sources];
    const request = { sources: patterns, mode, snapshot, ...(filter !== undefined && { filter }) };
    const abort = new AbortController();
    const end = (): void => abort.abort();
    this.abort.signal.addEventListener("abort", end);
    const dialer = new Dialer("/subscribe", this.shared, abort.signal);
    const on_reset = options.on_reset ?? this.onReset;
    const feed = new Feed(dialer, { request, mode, on_reset, on_eos: options.on_eos });
    const subscription = new Subscription(feed, abort);
    this.subscriptions.add(subscription);
    void feed.run().finally(() => {
      this.abort.signal.removeEventListener("abort", end);
      this.subscriptions.delete(subscription);
    });
    return subscription;
  }

  /** Returns the latest record of a source; `undefined` if there is none. */
  async get(source: string): Promise<AnodeRecord | undefined> {
    this.check();
    return this.reads.get(source);
  }

  /** Returns the latest records of all sources that match, in the order of their names. */
  list(pattern = "**"): Pages {
    this.check();
    return this.reads.list(pattern);
  }

  /** Returns the past records of a source, the newest first, with timestamps within the bounds. */
  history(source: string, from?: number, to?: number): Pages {
    this.check();
    return this.reads.history(source, from, to);
  }

  /** Closes all connections. Subscriptions end; publishes without an answer are rejected with `closed`. */
  async close(): Promise<void> {
    this.abort.abort();
    this.publisher.close(new AnodeError("closed", "the client was closed"));
    await Promise.all([...this.subscriptions].map((subscription) => subscription.close()));
  }

  /** Waits for the first connection. A token that may not publish is tried as one that may subscribe. */
  async begin(timeoutMs: number): Promise<void> {
    void this.publisher.run();
    let timer: ReturnType<typeof setTimeout> | undefined;
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(() => {
        const why = this.dialer.failure ? `; the last failure: ${this.dialer.failure.reason}` : "";
        const reason = `no node has greeted within ${timeoutMs / 1000} s${why}`;
        reject(new AnodeError("unavailable", reason, { temporary: true }));
      }, timeoutMs);
    });
    try {
      await Promise.race([late, this.publisher.begun.catch((error: unknown) => this.beginToRead(error))]);
    } finally {
      clearTimeout(timer);
    }
  }

  private async beginToRead(error: unknown): Promise<void> {
    if (!(error instanceof AnodeError) || error.code !== "forbidden") {
      throw error;
    }
    const link = await new Dialer("/subscribe", this.shared).dial();
    link.close();
  }

  private check(): void {
    if (this.abort.signal.aborted) {
      throw new AnodeError("closed", "the client was closed");
    }
  }

  private send(source: string, payload: string, options: DeleteOptions): Promise<Ack> {
    const ack = options.ack === undefined ? "" : `,"ack":${JSON.stringify(options.ack)}`;
    return this.publisher.publish(source, payload + ack, options.ts, Math.min(options.timeout_ms ?? this.publishTimeoutMs, LIMIT_MAX_MS));
  }
}
