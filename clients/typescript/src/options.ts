/** The settings of a client, and its fixed bounds. */

import type { TokenSource } from "./access.js";
import type { ErrorHook } from "./platform.js";

/** How long opening one connection may take, greeting included, in milliseconds. */
export const OPEN_MAX_MS = 5_000;
/** After this time a connection counts as one that served, so that waits begin small again, in milliseconds. */
export const SERVED_MS = 5_000;
/** How long a node may be silent if its greeting names no other time, in milliseconds. */
export const PING_MS_DEFAULT = 25_000;
/** The longest silence that a greeting may name, in milliseconds. Longer ones are cut to it. */
export const PING_MS_MAX = 3_600_000;
/** The longest time limit, in milliseconds: timers of JavaScript count 31 bits. */
export const LIMIT_MAX_MS = 2 ** 31 - 1;
/** Records that a subscription reads ahead of the program; then the node is not read from. */
export const READ_AHEAD_RECORDS = 1_024;
/** Characters of records that a subscription reads ahead of the program. */
export const READ_AHEAD_CHARACTERS = 1024 * 1024;
/** In browsers, which cannot stop reading: the bound of `mode: "all"`, beyond which the connection is closed. */
export const UNPAUSED_CHARACTERS_MAX = 16 * 1024 * 1024;

/** The settings of a client, as the user gives them. */
export interface ConnectOptions {
  /** A token, or a function (it may be async) that returns one and is called again when a fresh one is needed. */
  token?: TokenSource;
  /** The path of a file with the token, which is read again when a fresh one is needed. Not in browsers. */
  token_file?: string;
  /** A file in PEM, or its text, with the authorities to trust in place of the system's. Not in browsers. */
  ca?: string;
  /** A certificate of the client and its key, in PEM: files, or their texts. Not in browsers. */
  cert?: string;
  key?: string;
  /** Is called when a subscription that has no such function of its own could not be resumed. */
  on_reset?: () => void | Promise<void>;
  /** Is called with every failure that the client handles by itself. */
  on_error?: ErrorHook;
  /** How long the first connection may take, in milliseconds. Default: 10 s. */
  timeout_ms?: number;
  /** How long a publish may take with all its attempts, in milliseconds. Default: 30 s. */
  publish_timeout_ms?: number;
  /** How long a read may take with all its attempts, in milliseconds. Default: 10 s. */
  read_timeout_ms?: number;
  /** How many publishes may be unanswered at a time; further ones wait. Default: 1,024. */
  max_outstanding?: number;
  /** How many characters unanswered publishes may have together; further ones wait. Default: 4 Mi. */
  max_outstanding_bytes?: number;
}

/** The settings that all parts of a client share. */
export interface Options {
  readonly publishTimeoutMs: number;
  readonly readTimeoutMs: number;
  readonly maxOutstanding: number;
  readonly maxOutstandingBytes: number;
  /** Tells the user of a failure that the client handles by itself. */
  readonly report: ErrorHook;
}
