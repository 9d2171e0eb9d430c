/** Reading over HTTP: the latest record of a source, lists and histories, page by page. */

import type { NodeUrl } from "./address.js";
import type { Shared } from "./dialer.js";
import { AnodeError, type Refusal, refusal, unavailable } from "./errors.js";
import { OPEN_MAX_MS } from "./options.js";
import { type AnodeRecord, type RecordBody, recordOf } from "./records.js";
import { jitter } from "./roster.js";
import { sleep } from "./sleep.js";

/** Records of a page. */
const PAGE = 1_000;
/** The bounds of the wait before a request is sent again, in milliseconds. */
const AGAIN_FIRST_MS = 200;
const AGAIN_MAX_MS = 2_000;

/** Records of a list or history: `for await (const record of pages)`, or `await pages` for all of them at once. */
export class Pages implements AsyncIterable<AnodeRecord>, PromiseLike<AnodeRecord[]> {
  constructor(
    private readonly reads: Reads,
    private readonly path: string,
    private readonly query: Record<string, string>,
  ) {}

  async *[Symbol.asyncIterator](): AsyncGenerator<AnodeRecord, void> {
    let after: string | null = null;
    do {
      const query = new URLSearchParams({ ...this.query, limit: String(PAGE), ...(after !== null && { after }) });
      const page = (await this.reads.fetch(`${this.path}?${query}`)) as { records: RecordBody[]; after: string | null };
      for (const body of page.records) {
        yield recordOf(body, false);
      }
      ({ after } = page);
    } while (after !== null);
  }

  then<A = AnodeRecord[], B = never>(
    resolve?: ((records: AnodeRecord[]) => A | PromiseLike<A>) | null,
    reject?: ((reason: unknown) => B | PromiseLike<B>) | null,
  ): Promise<A | B> {
    return this.all().then(resolve, reject);
  }

  private async all(): Promise<AnodeRecord[]> {
    const records: AnodeRecord[] = [];
    for await (const record of this) {
      records.push(record);
    }
    return records;
  }
}

/** Requests over HTTP, to the node of the client's connection first, and to others if that does not answer. */
export class Reads {
  constructor(private readonly shared: Shared) {}

  /** Returns the latest record of a source; `undefined` if there is none. */
  async get(source: string): Promise<AnodeRecord | undefined> {
    try {
      return recordOf((await this.fetch(`/v1/sources/${name(source)}`)) as RecordBody, false);
    } catch (error) {
      if (error instanceof AnodeError && error.code === "not_found") {
        return undefined;
      }
      throw error;
    }
  }

  list(pattern: string): Pages {
    return new Pages(this, "/v1/sources", { pattern });
  }

  history(source: string, from: number | undefined, to: number | undefined): Pages {
    const query: Record<string, string> = {};
    if (from !== undefined) {
      query["from"] = String(from);
    }
    if (to !== undefined) {
      query["to"] = String(to);
    }
    return new Pages(this, `/v1/sources/${name(source)}/history`, query);
  }

  /** Returns the body of an answer. Temporary failures are tried again, at other nodes, in bounded time. */
  async fetch(path: string): Promise<unknown> {
    const { access, options, closing } = this.shared;
    const deadline = Date.now() + options.readTimeoutMs;
    let nodes: NodeUrl[] = [];
    let hasRenewed = false;
    for (let attempt = 0; ; ) {
      if (nodes.length === 0) {
        nodes = this.nodes();
      }
      const node = nodes.shift() as NodeUrl;
      const token = await access.token();
      const answer = await this.exchange(node, path, token, deadline);
      if (!(answer instanceof AnodeError)) {
        return answer;
      }
      if (answer.code === "unauthorized" && access.renews && !hasRenewed) {
        hasRenewed = true;
        await access.renew(token);
        nodes.unshift(node);
        continue;
      }
      const wait = Math.max(jitter(AGAIN_FIRST_MS, attempt, AGAIN_MAX_MS), answer.retry_after_ms ?? 0);
      if (!answer.temporary || Date.now() + wait >= deadline) {
        throw answer;
      }
      attempt += 1;
      options.report(answer);
      await sleep(wait, closing);
    }
  }

  private nodes(): NodeUrl[] {
    const { current } = this.shared.roster;
    const nodes = this.shared.roster.candidates(current);
    // The current node is the last of them, since it is to be avoided after a loss.
    return current === undefined ? nodes : [...nodes.slice(-1), ...nodes.slice(0, -1)];
  }

  private async exchange(
    node: NodeUrl,
    path: string,
    token: string | undefined,
    deadline: number,
  ): Promise<unknown> {
    const headers: Record<string, string> = { Accept: "application/json" };
    if (token !== undefined) {
      headers["Authorization"] = `Bearer ${token}`;
    }
    try {
      const limit = Math.max(Math.min(deadline - Date.now(), OPEN_MAX_MS), 1);
      const { status, body } = await this.shared.platform.get(node.http(path), headers, limit);
      return status === 200 ? (JSON.parse(body) as unknown) : problem(status, body);
    } catch (error) {
      return unavailable(`no answer from ${node}: ${error instanceof Error ? error.message : String(error)}`);
    }
  }
}

function name(source: string): string {
  try {
    return encodeURIComponent(source);
  } catch {
    throw new AnodeError("bad_source", "half a surrogate pair cannot be sent");
  }
}

function problem(status: number, body: string): AnodeError {
  try {
    const parsed = JSON.parse(body) as Refusal;
    if (typeof parsed.code === "string") {
      return refusal(parsed);
    }
  } catch {
    // It is no problem as nodes send them.
  }
  return new AnodeError("unavailable", `the node answered with status ${status}`, { temporary: status >= 500 });
}
