/** Subscribing: one connection for each subscription, which is resumed by a token at any node. */

import type { Dialer } from "./dialer.js";
import { AnodeError, Lost, refusal } from "./errors.js";
import type { Link, Message } from "./link.js";
import { type Item, ReadAhead } from "./read_ahead.js";
import { type AnodeRecord, type RecordBody, recordOf } from "./records.js";
import { Seen, textHash } from "./seen.js";

/** The id of the frame that subscribes. */
const SUBSCRIBE_ID = 1;

/** A function that is called between two records. */
export type Callback = (() => void | Promise<void>) | undefined;

/** What a subscription asks for. */
export interface Wanted {
  readonly request: Readonly<Record<string, unknown>>;
  readonly mode: string;
  readonly on_reset: Callback;
  readonly on_eos: Callback;
}

/** What reads records from nodes, connection after connection. */
export class Feed {
  readonly queue: ReadAhead;
  private readonly seen = new Seen();
  private link: Link | undefined;
  private token: string | undefined;
  private wasAccepted = false;
  private inSnapshot = true;

  constructor(
    private readonly dialer: Dialer,
    private readonly wanted: Wanted,
  ) {
    this.queue = new ReadAhead(wanted.mode);
  }

  /** Reads until it makes no sense any more. */
  async run(): Promise<void> {
    try {
      for (;;) {
        const link = await this.dialer.dial();
        this.link = link;
        this.queue.onRoom = () => link.resume();
        try {
          this.subscribe(link);
          await link.run((text, message) => this.handle(link, text, message));
        } catch (error) {
          link.close();
          if (!(error instanceof Lost)) {
            throw error;
          }
          await this.queue.room();
          await this.dialer.handleLoss(error, link);
        }
      }
    } catch (error) {
      const isKnown = error instanceof AnodeError;
      const reason = isKnown ? error : new AnodeError("protocol", `the client failed: ${String(error)}`);
      // Closing is no error of the subscription.
      this.queue.end(reason.code === "closed" ? undefined : reason);
    }
  }

  /** Ends the reading, and drops what was read and not delivered. */
  stop(): void {
    this.queue.end(undefined);
    this.link?.close();
  }

  private subscribe(link: Link): void {
    const resume = this.token === undefined ? {} : { resume: this.token };
    link.send(JSON.stringify({ id: SUBSCRIBE_ID, subscribe: { ...this.wanted.request, ...resume } }));
  }

  private handle(link: Link, text: string, message: Message): void {
    if ("source" in message) {
      this.handleRecord(text, message as unknown as RecordBody);
    } else if ("resume" in message) {
      this.token = message["resume"] as string;
    } else if ("eos" in message) {
      this.token = (message["eos"] as { resume: string }).resume;
      if (this.inSnapshot) {
        this.inSnapshot = false;
        this.queue.put({ callback: this.wanted.on_eos, size: 0 });
      }
    } else if (message.id === SUBSCRIBE_ID) {
      this.handleAnswer(message);
    }
    if (this.queue.isFull) {
      if (!link.pauses) {
        this.queue.checkUnpaused();
      }
      link.pause();
    }
  }

  private handleAnswer(message: Message): void {
    if (message.error !== undefined) {
      const error = refusal(message.error);
      throw error.temporary ? new Lost(error, "back off") : error;
    }
    const result = message["result"] as { recovered?: boolean };
    if (this.token !== undefined && result.recovered === true) {
      return;
    }
    // All there is comes again. Deletions since then do not, so the program must forget what it held. If this state does
    // not come whole, the old token must not be used on top of a part of it.
    this.token = undefined;
    this.inSnapshot = true;
    if (this.wasAccepted) {
      this.seen.forget();
      this.queue.put({ callback: this.wanted.on_reset, size: 0 });
    }
    this.wasAccepted = true;
  }

  private handleRecord(text: string, message: RecordBody): void {
    const record = recordOf(message, this.inSnapshot);
    const head = `"origin":"${record.origin}",`;
    const start = text.indexOf(head);
    const data = start >= 0 ? text.slice(start + head.length) : JSON.stringify(record.data ?? null);
    const { source, ts, deleted, gone } = record;
    if (this.seen.admit(source, ts, deleted, textHash(data), gone)) {
      this.queue.put({ record, size: text.length });
    }
  }
}

/**
 * The records of a subscription: `for await (const record of subscription)`.
 *
 * It ends when it is closed, when the client is closed, or with an `AnodeError` if it cannot go on. Leaving the loop
 * closes it.
 */
export class Subscription implements AsyncIterableIterator<AnodeRecord> {
  constructor(
    private readonly feed: Feed,
    private readonly abort: AbortController,
  ) {}

  [Symbol.asyncIterator](): this {
    return this;
  }

  async next(): Promise<IteratorResult<AnodeRecord, undefined>> {
    for (;;) {
      const item: Item | undefined = await this.feed.queue.get();
      if (item === undefined) {
        return { done: true, value: undefined };
      }
      if (item.record !== undefined) {
        return { done: false, value: item.record };
      }
      await item.callback?.();
    }
  }

  async return(): Promise<IteratorResult<AnodeRecord, undefined>> {
    await this.close();
    return { done: true, value: undefined };
  }

  /** Ends the subscription. Records that were read and not delivered are dropped. */
  async close(): Promise<void> {
    this.abort.abort();
    this.feed.stop();
  }
}
