import type { GreetedMember } from "./types";

/** Most nodes that are remembered. */
const HOSTS_MAX = 64;

/** The nodes that the page may go on at, and the order in which they are tried. */
export class Hosts {
  /** Names by address. */
  readonly #names = new Map<string, string>();
  #untried: string[] = [];

  /** Remembers nodes. Those that were told last are kept. */
  add(members: GreetedMember[]): void {
    for (const { id, http } of members) {
      this.#names.delete(http);
      this.#names.set(http, id);
    }
    for (const host of this.#names.keys()) {
      if (this.#names.size <= HOSTS_MAX) {
        break;
      }
      this.#names.delete(host);
    }
    this.beginRound();
  }

  /** Begins a round over all nodes in random order, so that not every page goes to the same node. */
  beginRound(): void {
    this.#untried = [...this.#names.keys()];
    for (let at = this.#untried.length - 1; at > 0; at -= 1) {
      const other = Math.floor(Math.random() * (at + 1));
      [this.#untried[at], this.#untried[other]] = [this.#untried[other]!, this.#untried[at]!];
    }
  }

  /** The next node of the round after `host` has failed; `null` at the end of the round. */
  after(host: string | null): string | null {
    this.#untried = this.#untried.filter((other) => other !== host);
    return this.#untried[0] ?? null;
  }

  nameOf(host: string): string | undefined {
    return this.#names.get(host);
  }

  all(): GreetedMember[] {
    return [...this.#names].map(([http, id]) => ({ id, http }));
  }
}
