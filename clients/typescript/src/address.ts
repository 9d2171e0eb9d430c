/** Addresses of nodes: `ws://HOST:PORT` or `http://HOST:PORT`, with TLS `wss://` or `https://`. */

import { AnodeError } from "./errors.js";

const DEFAULT_PORT = 7070;

/** The address of a node for clients. */
export class NodeUrl {
  private constructor(
    /** The host and port, as in a URL. */
    readonly authority: string,
    readonly tls: boolean,
    /** The beginning of all paths, for a node behind a proxy; usually empty. */
    readonly prefix: string,
  ) {}

  /** Parses a URL. Without a scheme it is `ws://`. */
  static parse(url: string): NodeUrl {
    const error = new AnodeError(
      "bad_url",
      `${JSON.stringify(url)} cannot be used; allowed: ws://HOST:PORT, wss://HOST:PORT, http, https`,
    );
    const [, scheme, rest] = /^(?:(ws|wss|http|https):\/\/)?([^\s]+)$/.exec(url) ?? [];
    let parts: URL;
    try {
      // A scheme without a port of its own, so that ports 80 and 443 are not left out.
      parts = new URL(`anode://${rest ?? ""}`);
    } catch {
      throw error;
    }
    if (!rest || rest.includes("://") || !parts.hostname || parts.search || parts.hash || parts.username) {
      throw error;
    }
    const port = parts.port || String(DEFAULT_PORT);
    const tls = scheme === "wss" || scheme === "https";
    return new NodeUrl(`${parts.hostname}:${port}`, tls, parts.pathname.replace(/\/+$/, ""));
  }

  /** Returns the address of another member, which is spoken to in the same way; `undefined` if it is none. */
  member(http: string): NodeUrl | undefined {
    try {
      return new NodeUrl(NodeUrl.parse(http).authority, this.tls, "");
    } catch {
      return undefined;
    }
  }

  websocket(path: string): string {
    return `${this.tls ? "wss" : "ws"}://${this.authority}${this.prefix}${path}`;
  }

  http(path: string): string {
    return `${this.tls ? "https" : "http"}://${this.authority}${this.prefix}${path}`;
  }

  /** The URL by which nodes are compared and told. */
  toString(): string {
    return this.websocket("");
  }
}
