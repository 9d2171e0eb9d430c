/** Publishing: every record is sent until it is answered, at most within its time, always with the same timestamp. */

import type { Dialer } from "./dialer.js";
import { AnodeError, Lost, refusal } from "./errors.js";
import type { Link, Message } from "./link.js";
import type { Options } from "./options.js";
import type { Ack } from "./records.js";
import { jitter } from "./roster.js";
import type { Stamps } from "./stamps.js";
import { Window } from "./window.js";

/** Refusals that are about the node and not about the record, so that another node may take it. */
const OF_THE_NODE = ["clock_skew", "overloaded", "store_unavailable"];
/** After so many of them for one record, the client goes to another node. */
const REFUSALS_MAX = 4;
/** The bounds of the wait before a record is sent again that was refused for a while, in milliseconds. */
const AGAIN_FIRST_MS = 200;
const AGAIN_MAX_MS = 5_000;

/** A record on its way. */
interface Outgoing {
  readonly id: number;
  readonly source: string;
  /** The fields of the frame but for id, source and ts. */
  readonly fields: string;
  /** The timestamp; `undefined` if the node stamps the record. */
  ts: number | undefined;
  /** Whether the timestamp was chosen by this client and not by the user. */
  readonly isStampedHere: boolean;
  readonly deadline: number;
  resolve(ack: Ack): void;
  reject(error: AnodeError): void;
  /** Whether it was sent on the connection that is open now. */
  isSent: boolean;
  /** Whether it was applied; `undefined` if an answer was lost. */
  applied: boolean | undefined;
  refusals: number;
  refused: AnodeError | undefined;
  waits: boolean;
}

/** The records on their way, and the connection that they take. */
export class Publisher {
  /** Resolves when the first connection is open; rejects when there will be none. */
  readonly begun: Promise<void>;
  private begin!: () => void;
  private failBegin!: (error: AnodeError) => void;
  private link: Link | undefined;
  private over: AnodeError | undefined;
  private nextId = 1;
  private readonly outgoing = new Map<number, Outgoing>();
  private readonly window: Window;
  private readonly encoder = new TextEncoder();

  constructor(
    private readonly dialer: Dialer,
    private readonly stamps: Stamps,
    options: Options,
  ) {
    this.window = new Window(options.maxOutstanding, options.maxOutstandingBytes);
    this.begun = new Promise((resolve, reject) => {
      this.begin = resolve;
      this.failBegin = reject;
    });
    // The client may be used for reading alone.
    this.begun.catch(() => undefined);
  }

  /** Connects, again and again, until it makes no sense any more. */
  async run(): Promise<void> {
    try {
      for (;;) {
        const link = await this.dialer.dial();
        this.link = link;
        link.awaits = () => [...this.outgoing.values()].some((outgoing) => outgoing.isSent);
        this.begin();
        try {
          const running = link.run((_, message) => this.handleFrame(message));
          for (const outgoing of this.outgoing.values()) {
            if (!outgoing.waits) {
              this.send(outgoing);
            }
          }
          await running;
        } catch (error) {
          this.link = undefined;
          this.handleLostAnswers();
          link.close();
          if (!(error instanceof Lost)) {
            throw error;
          }
          await this.dialer.handleLoss(error, link);
        }
      }
    } catch (error) {
      const reason = error instanceof AnodeError ? error : new AnodeError("protocol", `the client failed: ${String(error)}`);
      this.fail(reason);
    }
  }

  /** Sends a record until it is answered. */
  async publish(source: string, fields: string, ts: number | undefined, timeoutMs: number): Promise<Ack> {
    this.check(ts);
    const deadline = Date.now() + timeoutMs;
    const size = source.length + fields.length;
    if (!(await this.window.enter(size, timeoutMs))) {
      const reason = "as many records as may be outstanding had no answer in time";
      throw new AnodeError("timeout", reason, { temporary: true, ts });
    }
    let id = 0;
    let timer: ReturnType<typeof setTimeout> | undefined;
    try {
      this.check(ts);
      const stamp = ts ?? this.stamps.next(source);
      return await new Promise<Ack>((resolve, reject) => {
        id = this.nextId;
        this.nextId += 1;
        const outgoing: Outgoing = {
          id,
          source,
          fields,
          ts: stamp,
          isStampedHere: ts === undefined,
          deadline,
          resolve,
          reject,
          isSent: false,
          applied: false,
          refusals: 0,
          refused: undefined,
          waits: false,
        };
        timer = setTimeout(() => reject(this.overdue(outgoing)), deadline - Date.now());
        this.outgoing.set(id, outgoing);
        this.send(outgoing);
      });
    } finally {
      clearTimeout(timer);
      this.outgoing.delete(id);
      this.window.leave(size);
    }
  }

  /** Ends the connection. What is unanswered fails with this error. */
  close(error: AnodeError): void {
    this.fail(error);
    this.link?.close();
  }

  private check(ts: number | undefined): void {
    if (this.over !== undefined) {
      throw this.over.with({ ts });
    }
  }

  private overdue(outgoing: Outgoing): AnodeError {
    const lost = outgoing.isSent && outgoing.applied === false ? undefined : outgoing.applied;
    const { ts, refused } = outgoing;
    if (refused !== undefined) {
      return refused.with({ ts, applied: refused.applied || lost });
    }
    const why = this.link === undefined && this.dialer.failure ? `; ${this.dialer.failure.message}` : "";
    return new AnodeError("timeout", `no answer in time${why}`, { temporary: true, ts, applied: lost });
  }

  private send(outgoing: Outgoing): void {
    outgoing.waits = false;
    if (this.link === undefined || outgoing.isSent || !this.outgoing.has(outgoing.id)) {
      return;
    }
    const ts = outgoing.ts === undefined ? "" : `"ts":${JSON.stringify(outgoing.ts)},`;
    const frame = `{"id":${outgoing.id},"source":${JSON.stringify(outgoing.source)},${ts}${outgoing.fields}}`;
    const most = this.link.maxFrameBytes;
    // A character takes at most three bytes.
    if (most !== undefined && frame.length * 3 > most) {
      const bytes = this.encoder.encode(frame).length;
      if (bytes > most) {
        const reason = `the frame has ${bytes} bytes; the node takes at most ${most}`;
        this.reject(outgoing, new AnodeError("too_large", reason));
        return;
      }
    }
    outgoing.isSent = true;
    this.link.send(frame);
  }

  private reject(outgoing: Outgoing, error: AnodeError): void {
    const applied = error.applied === false ? outgoing.applied : error.applied;
    outgoing.reject(error.with({ ts: error.ts ?? outgoing.ts, applied }));
  }

  private fail(error: AnodeError): void {
    this.over ??= error;
    this.failBegin(error);
    this.handleLostAnswers();
    for (const outgoing of this.outgoing.values()) {
      this.reject(outgoing, error);
    }
  }

  /** Decides what becomes of the records that were sent on the connection that is lost. */
  private handleLostAnswers(): void {
    for (const outgoing of this.outgoing.values()) {
      if (!outgoing.isSent) {
        continue;
      }
      outgoing.isSent = false;
      outgoing.applied = outgoing.applied === true ? true : undefined;
      if (outgoing.ts === undefined) {
        const reason = "the connection was lost before the answer, and the record has no timestamp";
        this.reject(outgoing, new AnodeError("unanswered", reason, { temporary: true, applied: undefined }));
      }
    }
  }

  private handleFrame(message: Message): void {
    for (const answer of Array.isArray(message) ? (message as Message[]) : [message]) {
      this.handleAnswer(answer);
    }
  }

  private handleAnswer(message: Message): void {
    const outgoing = typeof message.id === "number" ? this.outgoing.get(message.id) : undefined;
    if (outgoing === undefined) {
      // The program has given up waiting for this answer.
      return;
    }
    outgoing.isSent = false;
    if (message.error !== undefined) {
      this.handleRefusal(outgoing, refusal(message.error));
      return;
    }
    const ack = message["result"] as Ack | undefined;
    if (typeof ack?.ts !== "number") {
      this.reject(outgoing, new AnodeError("protocol", "the node sent an answer without a result", { applied: undefined }));
      return;
    }
    if (outgoing.ts === undefined) {
      this.stamps.handleNodeClock(ack.ts);
    }
    const isCertain = outgoing.isStampedHere && outgoing.applied === false;
    if (ack.outcome === "stale" && isCertain && ack.current_ts !== undefined) {
      // The clock of this machine is behind. A record without a timestamp of the user wins over what is there.
      this.stamps.learn(outgoing.source, ack.current_ts);
      try {
        outgoing.ts = this.stamps.next(outgoing.source);
      } catch (error) {
        this.reject(outgoing, error as AnodeError);
        return;
      }
      this.send(outgoing);
      return;
    }
    if (!outgoing.isStampedHere) {
      this.stamps.learn(outgoing.source, ack.ts);
    }
    outgoing.resolve(ack);
  }

  private handleRefusal(outgoing: Outgoing, error: AnodeError): void {
    const isCertain = outgoing.isStampedHere && outgoing.applied === false;
    if (error.code === "future_timestamp" && isCertain && outgoing.ts !== undefined) {
      // The clock of this machine is ahead. The node stamps this record, and tells its clock so.
      outgoing.ts = undefined;
      this.send(outgoing);
      return;
    }
    if (error.applied === true) {
      outgoing.applied = true;
    }
    if (!error.temporary) {
      this.reject(outgoing, error);
      return;
    }
    outgoing.refused = error;
    const wait = Math.max(jitter(AGAIN_FIRST_MS, outgoing.refusals, AGAIN_MAX_MS), error.retry_after_ms ?? 0);
    outgoing.refusals += 1;
    if (Date.now() + wait >= outgoing.deadline) {
      this.reject(outgoing, error);
      return;
    }
    outgoing.waits = true;
    setTimeout(() => this.send(outgoing), wait);
    const isOfTheNode = OF_THE_NODE.includes(error.code);
    if (isOfTheNode && outgoing.refusals % REFUSALS_MAX === 0 && this.dialer.hasOthers) {
      throw new Lost(error, "soon");
    }
  }
}
