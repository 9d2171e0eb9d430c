/** The client for browsers. */

import { type Client, connectOn } from "./client.js";
import { AnodeError } from "./errors.js";
import type { ConnectOptions } from "./options.js";
import { browserPlatform } from "./platform_browser.js";

export * from "./exports.js";

/**
 * Connects to a node, and returns the client when the node has greeted.
 *
 * `urls` are nodes to begin with, in order of preference: `ws://HOST:PORT`, with TLS `wss://`.
 */
export function connect(urls: string | Iterable<string>, options: ConnectOptions = {}): Promise<Client> {
  return connectOn(browserPlatform, readToken, urls, options);
}

function readToken(): Promise<string> {
  throw new AnodeError("bad_request", "token_file cannot be used in a browser");
}
