/** Opens the connections of one kind, one after the other, at whichever node answers. */

import type { Access } from "./access.js";
import type { NodeUrl } from "./address.js";
import { AnodeError, Lost, type Refusal, RETRY_AFTER_MS_MAX, type Retry, refusal, unavailable } from "./errors.js";
import { type Bring, Link } from "./link.js";
import type { Options } from "./options.js";
import { type Platform, Refused } from "./platform.js";
import { Attempts, type Roster } from "./roster.js";
import { sleep } from "./sleep.js";

/** After so many refused tokens in a row the client gives up. */
const REFUSED_TOKENS_MAX = 3;

/** What all connections of a client share. */
export interface Shared {
  readonly platform: Platform;
  readonly roster: Roster;
  readonly access: Access;
  readonly options: Options;
  /** Is aborted when the client is closed. */
  readonly closing: AbortSignal;
}

/** The maker of the connections to one path. */
export class Dialer {
  /** The failure of the last attempt. */
  failure: AnodeError | undefined;
  private readonly attempts: Attempts;
  private wait = 0;
  /** The token of the last attempt, and how many were refused in a row. */
  private token: string | undefined;
  private refusedTokens = 0;
  private bring: Bring;

  constructor(
    private readonly path: string,
    private readonly shared: Shared,
    private readonly closing: AbortSignal = shared.closing,
  ) {
    this.attempts = new Attempts(shared.roster);
    this.bring = shared.platform.takesHeaders ? "header" : "subprotocol";
  }

  /** Whether there is more than one node to connect to. */
  get hasOthers(): boolean {
    return this.shared.roster.candidates(undefined).length > 1;
  }

  /** Returns a new connection to any node. Rejects with `AnodeError` if it makes no sense to go on trying. */
  async dial(): Promise<Link> {
    for (;;) {
      await sleep(this.wait, this.closing);
      const node = this.attempts.next();
      try {
        const { platform, access, options, roster } = this.shared;
        this.token = await access.token();
        const link = await Link.open(platform, this.path, node, this.bring, this.token, access, options);
        if (this.closing.aborted) {
          link.close();
          throw new AnodeError("closed", "the client was closed");
        }
        roster.handleGreeting(node, link.members);
        return link;
      } catch (error) {
        await this.handleLoss(this.lossOf(node, error), undefined);
      }
    }
  }

  /** Notes why a connection was lost. Rejects with `AnodeError` if it makes no sense to connect again. */
  async handleLoss(lost: Lost, link: Link | undefined): Promise<void> {
    if (link?.hasServed) {
      this.attempts.succeed();
      this.refusedTokens = 0;
    }
    this.failure = lost.error;
    let { retry } = lost;
    if (retry === "never") {
      const { renews } = this.shared.access;
      if (lost.error.code !== "unauthorized" || !renews || this.refusedTokens >= REFUSED_TOKENS_MAX) {
        throw lost.error;
      }
      retry = await this.renew(link === undefined ? this.token : link.token);
    }
    this.wait = Math.max(this.attempts.waitMs(retry), lost.error.retry_after_ms ?? 0);
    this.shared.options.report(lost.error);
  }

  /** Fetches another token after one was refused. A fresh one may be known to some nodes before others. */
  private async renew(used: string | undefined): Promise<Retry> {
    const { access, options } = this.shared;
    try {
      const fresh = await access.renew(used);
      this.refusedTokens += 1;
      return fresh === used ? "back off" : "soon";
    } catch (error) {
      options.report(error as AnodeError);
      return "back off";
    }
  }

  private lossOf(node: NodeUrl, error: unknown): Lost {
    if (error instanceof Lost) {
      return error;
    }
    if (error instanceof AnodeError) {
      return new Lost(error, error.temporary ? "back off" : "never");
    }
    if (error instanceof Refused) {
      return refusedHandshake(node, error);
    }
    if (!this.shared.platform.takesHeaders) {
      // A browser does not tell why. With the token in the first frame the node says whether it is the token.
      this.bring = this.bring === "frame" ? "subprotocol" : "frame";
    }
    return new Lost(unavailable(`${node}: ${error instanceof Error ? error.message : String(error)}`), "soon");
  }
}

function refusedHandshake(node: NodeUrl, refused: Refused): Lost {
  let error: AnodeError;
  try {
    error = refusal(JSON.parse(refused.body) as Refusal);
  } catch {
    error = unavailable(`${node} answered the handshake with ${refused.status}`);
  }
  if ([400, 401, 403].includes(refused.status)) {
    return new Lost(error, "never");
  }
  const after = Number(refused.retryAfter);
  if (error.retry_after_ms === undefined && after > 0) {
    error = error.with({ retry_after_ms: Math.min(after * 1000, RETRY_AFTER_MS_MAX) });
  }
  return new Lost(error, "back off");
}
