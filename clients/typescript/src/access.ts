/** The token that the client brings, and where it comes from. */

import { AnodeError } from "./errors.js";

/** A token, or a function that returns one and is called again when a fresh one is needed. */
export type TokenSource = string | (() => string | Promise<string>);

/** The token in force. All connections of a client share it. */
export class Access {
  private current: string | undefined;
  private renewing: Promise<string | undefined> | undefined;

  constructor(private readonly source: TokenSource | undefined) {
    this.current = typeof source === "string" ? source : undefined;
  }

  /** Whether a fresh token can be had. */
  get renews(): boolean {
    return typeof this.source === "function";
  }

  /** Returns the token to bring; `undefined` if there is none. */
  async token(): Promise<string | undefined> {
    return this.current === undefined && this.renews ? this.renew(undefined) : this.current;
  }

  /** Returns a token other than `used`: one that another connection has fetched meanwhile, or a fresh one. */
  async renew(used: string | undefined): Promise<string | undefined> {
    const { source } = this;
    if (typeof source !== "function" || this.current !== used) {
      return this.current;
    }
    this.renewing ??= this.fetch(source).finally(() => {
      this.renewing = undefined;
    });
    return this.renewing;
  }

  private async fetch(source: () => string | Promise<string>): Promise<string> {
    try {
      this.current = await source();
    } catch (error) {
      const reason = `the function that makes tokens failed: ${String(error)}`;
      throw new AnodeError("unauthorized", reason, { temporary: true });
    }
    return this.current;
  }
}
