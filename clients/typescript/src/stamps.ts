/**
 * Timestamps of records that the user publishes without one.
 *
 * The client gives every record its timestamp before the record is sent. So a record whose answer was lost can be sent
 * again, to any node, and is the same record there. A timestamp is at least the wall clock, greater than all earlier ones
 * of this client, and greater than any of its source that this client knows of.
 */

import { AnodeError } from "./errors.js";
import { TS_MAX } from "./records.js";

/** Sources whose timestamps are ahead of the clock and remembered; more are forgotten, the oldest first. */
export const AHEAD_MAX = 65_536;

/**
 * Returns the wall clock in microseconds since the Unix epoch. The clock of JavaScript counts milliseconds; the part
 * below is taken from the monotonic clock, so that two clients rarely choose the same.
 */
export function wallClockUs(): number {
  return Date.now() * 1_000 + Math.floor((performance.now() % 1) * 1_000);
}

/** The clock of one client. */
export class Stamps {
  private last = 0;
  /** How far the nodes' clock is behind this machine's, in microseconds. */
  private behindUs = 0;
  private readonly ahead = new Map<string, number>();

  constructor(private readonly clock: () => number = wallClockUs) {}

  /** Returns a timestamp for a new record of the source. */
  next(source: string): number {
    const now = Math.max(this.clock() - this.behindUs, this.last + 1);
    this.last = now;
    const known = this.ahead.get(source);
    if (known === undefined) {
      return now;
    }
    this.ahead.delete(source);
    if (known < now) {
      return now;
    }
    if (known >= TS_MAX) {
      throw new AnodeError("future_timestamp", `the latest ts of ${JSON.stringify(source)} is the greatest there is`);
    }
    this.remember(source, known + 1);
    return known + 1;
  }

  /** Notes that the source has a record with this timestamp. */
  learn(source: string, ts: number): void {
    if (ts > Math.max(this.last, this.ahead.get(source) ?? 0)) {
      this.ahead.delete(source);
      this.remember(source, ts);
    }
  }

  /** Notes the time of a node, after it has refused a timestamp of this clock as too far ahead. */
  handleNodeClock(ts: number): void {
    this.behindUs = Math.max(0, this.clock() - ts);
    // Earlier timestamps were refused, so none of them needs to be exceeded.
    this.last = 0;
  }

  private remember(source: string, ts: number): void {
    if (this.ahead.size >= AHEAD_MAX) {
      const [oldest] = this.ahead.keys();
      this.ahead.delete(oldest as string);
    }
    this.ahead.set(source, ts);
  }
}
