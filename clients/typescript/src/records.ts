/** What is published and read. */

import { AnodeError } from "./errors.js";

/** The greatest timestamp there is. */
export const TS_MAX = 2 ** 53 - 1;

/** One value of one source. */
export interface AnodeRecord {
  readonly source: string;
  /** Microseconds since the Unix epoch. */
  readonly ts: number;
  /** The name of the node that accepted the record; empty where the source is `gone`. */
  readonly origin: string;
  /** The value of the JSON, or a `Uint8Array` if bytes were published; `undefined` for a deletion, or where the source is `gone`. */
  // eslint-disable-next-line @typescript-eslint/no-explicit-any
  readonly data: any;
  readonly deleted: boolean;
  /** Whether the filter is not true any longer of the source, of which a record was delivered before. */
  readonly gone: boolean;
  /** Whether the record belongs to the state at the beginning of the subscription, and is no news. */
  readonly snapshot: boolean;
}

/** The answer to a publish. */
export interface Ack {
  /** The timestamp of the record. */
  readonly ts: number;
  readonly outcome: "applied" | "duplicate" | "stale" | "dropped";
  /** The acknowledgement level that was reached. */
  readonly level: Level;
  /** For `stale`: the timestamp of the newer record. */
  readonly current_ts?: number;
  /** For the level `replicated`: how many members hold the record. */
  readonly nodes?: number;
}

/** What a publish waits for. */
export type Level = "accepted" | "stored" | "replicated";

/** A record as a node sends it. */
export interface RecordBody {
  source: string;
  ts: number;
  origin?: string;
  data?: unknown;
  data_b64?: string;
  deleted?: boolean;
  gone?: boolean;
}

/** Returns the record that a node has sent. */
export function recordOf(body: RecordBody, snapshot: boolean): AnodeRecord {
  const { source, ts, deleted = false, gone = false } = body;
  const origin = gone ? "" : body.origin;
  if (typeof source !== "string" || typeof ts !== "number" || typeof origin !== "string") {
    throw new AnodeError("protocol", "the node sent a record without source, ts or origin");
  }
  const data = body.data_b64 === undefined ? body.data : decode(body.data_b64);
  return { source, ts, origin, data, deleted, gone, snapshot };
}

/** Returns the field of a frame that carries the data. */
export function payloadOf(data: unknown): string {
  if (data instanceof Uint8Array || data instanceof ArrayBuffer) {
    return `"data_b64":"${encode(data instanceof ArrayBuffer ? new Uint8Array(data) : data)}"`;
  }
  let text: string | undefined;
  try {
    text = JSON.stringify(data);
  } catch (error) {
    throw new AnodeError("bad_json", `data cannot be written as JSON: ${String(error)}`);
  }
  if (text === undefined) {
    throw new AnodeError("bad_json", `data cannot be written as JSON: it is ${typeof data}`);
  }
  return `"data":${text}`;
}

/** Bytes that are turned into characters in one call, whose arguments are limited. */
const PART = 0x8000;

function encode(bytes: Uint8Array): string {
  let text = "";
  for (let at = 0; at < bytes.length; at += PART) {
    text += String.fromCharCode(...bytes.subarray(at, at + PART));
  }
  return btoa(text);
}

function decode(text: string): Uint8Array {
  let raw: string;
  try {
    raw = atob(text);
  } catch (error) {
    throw new AnodeError("protocol", `the node sent bytes that cannot be read: ${String(error)}`);
  }
  return Uint8Array.from(raw, (character) => character.charCodeAt(0));
}

/** Returns base64url without padding of a text, as tokens need it in a subprotocol. */
export function base64url(text: string): string {
  return encode(new TextEncoder().encode(text)).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}
