/** The one error that the client throws, and the loss of a connection, which it handles by itself. */

/** What is known of an error beside its code and message. */
export interface ErrorFacts {
  temporary?: boolean;
  applied?: boolean | undefined;
  ts?: number | undefined;
  nodes?: number | undefined;
  retry_after_ms?: number | undefined;
}

/**
 * A request that failed, or a subscription or client that cannot go on.
 *
 * `code` is one of the error codes of docs/protocol.md, or one of the client's own: `unavailable` (no node could be
 * reached in time), `timeout` (no answer in time), `unanswered` (the connection was lost, and the record may not be sent
 * again), `closed` (the client or subscription was closed), `bad_url`, `protocol` (the other side does not speak as a node
 * does).
 */
export class AnodeError extends Error {
  override readonly name = "AnodeError";
  readonly code: string;
  /** The reason, for people, without the code. */
  readonly reason: string;
  /** Whether the same request may succeed later. */
  readonly temporary: boolean;
  /** Whether the node applied the record all the same; `undefined` if the client cannot know. */
  readonly applied: boolean | undefined;
  /** The timestamp of the record, with which it can be published again. */
  readonly ts: number | undefined;
  /** How many members hold the record, if the level `replicated` was not reached. */
  readonly nodes: number | undefined;
  /** The time after which the node wants to be asked again, in milliseconds. */
  readonly retry_after_ms: number | undefined;

  constructor(code: string, reason: string, facts: ErrorFacts = {}) {
    super(`${code}: ${reason}`);
    this.code = code;
    this.reason = reason;
    this.temporary = facts.temporary ?? false;
    this.applied = "applied" in facts ? facts.applied : false;
    this.ts = facts.ts;
    this.nodes = facts.nodes;
    this.retry_after_ms = facts.retry_after_ms;
  }

  /** Returns the same error with other facts. */
  with(facts: ErrorFacts): AnodeError {
    const { temporary, applied, ts, nodes, retry_after_ms } = this;
    return new AnodeError(this.code, this.reason, { temporary, applied, ts, nodes, retry_after_ms, ...facts });
  }
}

/** The longest wait that a node may ask for, in milliseconds. Longer ones are cut to it. */
export const RETRY_AFTER_MS_MAX = 600_000;

/** An error as a node sends it, in a frame or as a problem over HTTP. */
export interface Refusal {
  code?: string;
  message?: string;
  detail?: string;
  temporary?: boolean;
  applied?: boolean;
  ts?: number;
  nodes?: number;
  retry_after_ms?: number;
}

/** Returns the error that a node has sent. */
export function refusal(body: Refusal): AnodeError {
  return new AnodeError(body.code ?? "protocol", body.message ?? body.detail ?? "the node gave no reason", {
    temporary: body.temporary === true,
    applied: body.applied === true,
    ts: body.ts,
    nodes: body.nodes,
    retry_after_ms: body.retry_after_ms === undefined ? undefined : Math.min(body.retry_after_ms, RETRY_AFTER_MS_MAX),
  });
}

/** Returns the error about a node that cannot be reached. */
export function unavailable(reason: string): AnodeError {
  return new AnodeError("unavailable", reason, { temporary: true });
}

/** When to connect again after a connection was lost or refused. */
export type Retry = "never" | "back off" | "soon" | "now";

/** A connection that was lost or could not be opened. */
export class Lost extends Error {
  constructor(
    readonly error: AnodeError,
    readonly retry: Retry,
  ) {
    super(error.message);
  }
}

/** Returns the loss for a close code. `last` is the error that the node sent before it closed. */
export function closed(code: number, reason: string, last: AnodeError | undefined): Lost {
  // The codes 1002 to 1009 say that the client broke the protocol. It would do so again.
  if ((code >= 4000 && code < 4100) || [1002, 1003, 1007, 1009].includes(code)) {
    const names: Record<number, string> = { 4001: "unauthorized", 4003: "forbidden", 1009: "too_large" };
    const message = reason || `the node closed the connection with ${code}`;
    return new Lost(last ?? new AnodeError(names[code] ?? "protocol", message), "never");
  }
  const error = unavailable(`the connection was closed with ${code} ${reason}`.trimEnd());
  if (code >= 4100 && code < 4200) {
    return new Lost(error, "back off");
  }
  return new Lost(error, code >= 4200 && code < 4300 ? "now" : "soon");
}
