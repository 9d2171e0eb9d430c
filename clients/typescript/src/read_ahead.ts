/** What a subscription has read and not delivered yet, bounded in records and characters. */

import { AnodeError, Lost } from "./errors.js";
import { READ_AHEAD_CHARACTERS, READ_AHEAD_RECORDS, UNPAUSED_CHARACTERS_MAX } from "./options.js";
import type { AnodeRecord } from "./records.js";

/** A record, or what is called between two records. */
export interface Item {
  record?: AnodeRecord;
  callback?: (() => void | Promise<void>) | undefined;
  size: number;
}

/** The queue between a connection and the program that reads. */
export class ReadAhead {
  /** Is called when there is room again. */
  onRoom: () => void = () => undefined;
  private items: Item[] = [];
  private at = 0;
  private size = 0;
  private isOver = false;
  private error: AnodeError | undefined;
  private readers: (() => void)[] = [];
  private waiters: (() => void)[] = [];
  /** For a connection that cannot be paused: the item of each source, which is replaced by a newer one. */
  private places: Map<string, Item> | undefined;

  constructor(private readonly mode: string) {}

  /** Whether no more should be read. */
  get isFull(): boolean {
    return this.size > READ_AHEAD_CHARACTERS || this.items.length - this.at > READ_AHEAD_RECORDS;
  }

  put(item: Item): void {
    const { record } = item;
    if (this.isOver) {
      return;
    }
    if (this.places !== undefined && record !== undefined) {
      const waiting = this.places.get(record.source);
      if (waiting !== undefined) {
        this.size += item.size - waiting.size;
        Object.assign(waiting, item);
        return;
      }
      this.places.set(record.source, item);
    } else if (record === undefined) {
      // What comes after a callback must not be delivered before it.
      this.places?.clear();
    }
    this.items.push(item);
    this.size += item.size;
    this.readers.shift()?.();
  }

  /**
   * Keeps the bound for a connection that cannot be paused: in `mode: "latest"` newer records replace those of their
   * source that wait, as the node would do; in `mode: "all"` the connection is lost.
   */
  checkUnpaused(): void {
    if (this.mode === "all") {
      if (this.size > UNPAUSED_CHARACTERS_MAX) {
        const reason = 'this program is too slow for mode "all"';
        throw new Lost(new AnodeError("overloaded", reason, { temporary: true }), "now");
      }
    } else if (this.places === undefined) {
      this.places = new Map();
      for (const item of this.items.slice(this.at)) {
        if (item.record === undefined) {
          this.places.clear();
        } else {
          this.places.set(item.record.source, item);
        }
      }
    }
  }

  /** Returns the next item; `undefined` at the end. Rejects with the error that ended the subscription. */
  async get(): Promise<Item | undefined> {
    for (;;) {
      const item = this.items[this.at];
      if (item !== undefined) {
        this.take(item);
        return item;
      }
      if (this.error !== undefined) {
        throw this.error;
      }
      if (this.isOver) {
        return undefined;
      }
      await new Promise<void>((resolve) => this.readers.push(resolve));
    }
  }

  /** Waits until there is room. */
  async room(): Promise<void> {
    while (this.isFull && !this.isOver) {
      await new Promise<void>((resolve) => this.waiters.push(resolve));
    }
  }

  /** Ends the queue: with an error after what it holds, or without one at once. */
  end(error: AnodeError | undefined): void {
    this.isOver = true;
    this.error ??= error;
    if (error === undefined) {
      this.items = [];
      this.at = 0;
      this.size = 0;
    }
    for (const wake of [...this.readers.splice(0), ...this.waiters.splice(0)]) {
      wake();
    }
  }

  private take(item: Item): void {
    this.at += 1;
    this.size -= item.size;
    if (item.record !== undefined && this.places?.get(item.record.source) === item) {
      this.places.delete(item.record.source);
    }
    if (this.at > READ_AHEAD_RECORDS && this.at * 2 > this.items.length) {
      this.items.splice(0, this.at);
      this.at = 0;
    }
    if (!this.isFull) {
      this.places = undefined;
      this.onRoom();
      this.waiters.splice(0).forEach((wake) => wake());
    }
  }
}
