/** Which nodes there are to connect to, and how long to wait before the next attempt. */

import type { NodeUrl } from "./address.js";
import type { Retry } from "./errors.js";

/** The longest wait before an attempt, in milliseconds. */
const WAIT_MAX_MS = 10_000;
/** The bound of the first wait after a loss, and after a node has asked to back off, in milliseconds. */
const FIRST_WAIT_MS = 100;
const FIRST_BACK_OFF_MS = 1_000;

/** The nodes that the user has named, and those that greetings have named. */
export class Roster {
  private greeted: NodeUrl[] = [];
  /** The node to which the client was connected last. */
  current: NodeUrl | undefined;

  constructor(private readonly seeds: NodeUrl[]) {}

  /** Takes the members of a greeting in place of the earlier ones. */
  handleGreeting(node: NodeUrl, members: string[]): void {
    this.current = node;
    const named = members.map((member) => node.member(member)).filter((member) => member !== undefined);
    if (named.length > 0) {
      this.greeted = named;
    }
  }

  /**
   * Returns all nodes, the next to try first: greeted ones in random order, then seeds, `avoid` last. Before the first
   * attempt the seeds come first.
   */
  candidates(avoid: NodeUrl | undefined): NodeUrl[] {
    const greeted = shuffled(this.greeted);
    const all = avoid === undefined ? [...this.seeds, ...greeted] : [...greeted, ...this.seeds];
    const unique = [...new Map(all.map((node) => [String(node), node])).values()];
    const last = String(avoid);
    return [
      ...unique.filter((node) => String(node) !== last),
      ...unique.filter((node) => String(node) === last),
    ];
  }
}

/** The attempts to open one connection, over all nodes, with growing waits between them. */
export class Attempts {
  private left: NodeUrl[] = [];
  private failures = 0;
  private last: NodeUrl | undefined;

  constructor(private readonly roster: Roster) {}

  /** Returns the node to try. Every node is tried once before any is tried again. */
  next(): NodeUrl {
    if (this.left.length === 0) {
      this.left = this.roster.candidates(this.last);
    }
    this.last = this.left.shift() as NodeUrl;
    return this.last;
  }

  /** Notes that a connection has served for a while, so that the next loss is the first of its kind. */
  succeed(): void {
    this.failures = 0;
  }

  /** Notes a failure, and returns the wait before the next attempt: full jitter, with a doubling bound. */
  waitMs(retry: Retry): number {
    this.failures += 1;
    if (this.failures === 1) {
      this.left = [];
      if (retry === "now") {
        return 0;
      }
    }
    return jitter(retry === "back off" ? FIRST_BACK_OFF_MS : FIRST_WAIT_MS, this.failures - 1, WAIT_MAX_MS);
  }
}

/** Returns a random time below `first` doubled `times`, and below `max`, in milliseconds. */
export function jitter(first: number, times: number, max: number): number {
  return Math.random() * Math.min(first * 2 ** Math.min(times, 16), max);
}

function shuffled<T>(items: T[]): T[] {
  const copy = [...items];
  for (let at = copy.length - 1; at > 0; at -= 1) {
    const other = Math.floor(Math.random() * (at + 1));
    [copy[at], copy[other]] = [copy[other] as T, copy[at] as T];
  }
  return copy;
}
