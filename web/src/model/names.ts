import { type ListQuery, Problem, list } from "../net/api";
import { Store } from "../net/store";

/** Records of one page: a page of so many takes a few milliseconds to read, so the page stays fluent meanwhile. */
const PAGE_RECORDS = 2_000;
/** Most names that are kept. Each takes about 100 bytes of the browser's memory. */
const NAMES_MAX = 500_000;

export interface NamesState {
  /** Increased with every change of the names. */
  version: number;
  count: number;
  isLoading: boolean;
  /** Whether there are more sources than the page keeps. */
  isCut: boolean;
  trouble: string;
}

/** The names of all sources, in order. Values are not kept: those that are seen are subscribed to. */
export class Names {
  readonly state = new Store<NamesState>({ version: 0, count: 0, isLoading: false, isCut: false, trouble: "" });
  #sorted: string[] = [];
  #isLoading = false;
  #canAskForNews = true;
  /** Latest timestamp that was seen, in microseconds. */
  #latest = 0;

  get sorted(): readonly string[] {
    return this.#sorted;
  }

  /** Reads the names again: all of them, or those of sources with news. */
  async load(host: () => string, onlyNews: boolean): Promise<void> {
    if (this.#isLoading) {
      return;
    }
    this.#isLoading = true;
    this.state.patch({ isLoading: true, trouble: "" });
    const isNews = onlyNews && this.#canAskForNews && this.#latest > 0;
    try {
      await this.#loadPages(host, isNews ? { updated_since: this.#latest } : {});
    } catch (error) {
      if (isNews && error instanceof Problem && error.code === "bad_request") {
        this.#canAskForNews = false;
      } else {
        this.state.patch({ trouble: error instanceof Error ? error.message : String(error) });
      }
    } finally {
      this.#isLoading = false;
      this.state.patch({ isLoading: false });
    }
  }

  async #loadPages(host: () => string, query: ListQuery): Promise<void> {
    const isWhole = query.updated_since === undefined;
    const found: string[] = [];
    let after: string | null = null;
    do {
      const page = await list(host(), { pattern: "**", limit: PAGE_RECORDS, after, ...query });
      for (const { source, ts } of page.records) {
        found.push(source);
        this.#latest = Math.max(this.#latest, ts);
      }
      after = page.after;
      // The first names are shown while the others come.
      if (isWhole && found.length > this.#sorted.length && found.length < 3 * PAGE_RECORDS) {
        this.#replace([...found], false);
      }
      await nextFrame();
    } while (after !== null && found.length < NAMES_MAX);
    if (isWhole) {
      this.#replace(found, after !== null);
    } else {
      this.add(found);
    }
  }

  /** Adds names that are not there yet. */
  add(names: readonly string[]): void {
    const fresh = names.filter((name) => !this.has(name));
    if (fresh.length > 0) {
      this.#replace([...this.#sorted, ...fresh], this.state.value.isCut);
    }
  }

  has(name: string): boolean {
    return this.#sorted[lowerBound(this.#sorted, name, 0, this.#sorted.length)] === name;
  }

  #replace(names: string[], isCut: boolean): void {
    // Nodes give them in the order of their bytes, which is nearly the order of JavaScript.
    names.sort((a, b) => (a < b ? -1 : Number(a > b)));
    const unique = names.filter((name, at) => name !== names[at - 1]);
    const isSame = unique.length === this.#sorted.length && unique.every((name, at) => name === this.#sorted[at]);
    this.#sorted = unique;
    this.state.patch({ version: this.state.value.version + (isSame ? 0 : 1), count: unique.length, isCut });
  }
}

/** The first place in `from..to` whose name is not below `name`. */
export function lowerBound(sorted: readonly string[], name: string, from: number, to: number): number {
  let [low, high] = [from, to];
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (sorted[middle]! < name) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

function nextFrame(): Promise<void> {
  return new Promise((resolve) => {
    // A page that is not seen gets no frames.
    const timer = setTimeout(resolve, 100);
    requestAnimationFrame(() => {
      clearTimeout(timer);
      setTimeout(resolve);
    });
  });
}
