/** The client for Node. */

import { type Client, connectOn } from "./client.js";
import { AnodeError } from "./errors.js";
import type { ConnectOptions } from "./options.js";
import { nodePlatform } from "./platform_node.js";

export * from "./exports.js";

/**
 * Connects to a node, and returns the client when the node has greeted.
 *
 * `urls` are nodes to begin with, in order of preference: `ws://HOST:PORT`, with TLS `wss://`. Without `token` and
 * `token_file`, the environment's `ANODE_TOKEN` is used.
 */
export function connect(urls: string | Iterable<string>, options: ConnectOptions = {}): Promise<Client> {
  return connectOn(nodePlatform, readToken, urls, options);
}

async function readToken(path: string): Promise<string> {
  const { readFile } = await import("node:fs/promises");
  try {
    return (await readFile(path, "utf8")).trim();
  } catch (error) {
    throw new AnodeError("unauthorized", `token_file cannot be read: ${String(error)}`);
  }
}
