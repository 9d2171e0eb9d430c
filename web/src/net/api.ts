import { askForToken, auth, authorization } from "./auth";
import type { Member, RecordPage, WireError } from "./types";

/** Milliseconds after which a request that was not answered counts as failed. */
const PATIENCE_MS = 8_000;

/** An error that a node has answered (RFC 9457). */
export class Problem extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    message: string,
    readonly body: string,
  ) {
    super(message);
  }
}

/** A node did not answer. */
export class Unreachable extends Error {}

export interface Answer {
  status: number;
  text: string;
  ms: number;
}

/** Sends a request to the node at `host`, and returns its answer, whatever it is. */
export async function ask(host: string, path: string, init: RequestInit = {}, token = auth.value.token): Promise<Answer> {
  const begun = performance.now();
  try {
    const response = await fetch(`${location.protocol}//${host}${path}`, {
      ...init,
      headers: { ...init.headers, ...authorization(token) },
      cache: "no-store",
      credentials: "omit",
      signal: AbortSignal.timeout(PATIENCE_MS),
    });
    const text = await response.text();
    return { status: response.status, text, ms: performance.now() - begun };
  } catch (error) {
    throw new Unreachable(`${host} does not answer (${error instanceof Error ? error.message : String(error)})`);
  }
}

/** The error that an answer carries. */
export function problemOf(answer: Answer): Problem {
  let told: Partial<WireError> & { detail?: string; title?: string } = {};
  try {
    told = JSON.parse(answer.text) as typeof told;
  } catch {
    // An answer of something that is no node.
  }
  const message = told.detail ?? told.message ?? told.title ?? `status ${answer.status}`;
  return new Problem(answer.status, told.code ?? "unknown", message, answer.text);
}

/** Reads a path as text. A token that is needed and missing, or no longer in force, is asked for. */
export async function read(host: string, path: string): Promise<string> {
  const answer = await ask(host, path);
  if (answer.status === 200) {
    return answer.text;
  }
  const problem = problemOf(answer);
  if (problem.status === 401) {
    askForToken(auth.value.token === null ? "This node wants a token." : "The token is not in force any more.");
  }
  throw problem;
}

export async function members(host: string): Promise<Member[]> {
  return (JSON.parse(await read(host, "/v1/members")) as { members: Member[] }).members;
}

export interface ListQuery {
  pattern?: string;
  limit?: number;
  after?: string | null;
  updated_since?: number;
}

export function queryOf(fields: object): string {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(fields)) {
    if (value !== undefined && value !== null && value !== "") {
      query.set(name, String(value));
    }
  }
  const text = query.toString();
  return text === "" ? "" : `?${text}`;
}

export async function list(host: string, query: ListQuery): Promise<RecordPage> {
  return JSON.parse(await read(host, `/v1/sources${queryOf(query)}`)) as RecordPage;
}

/** The path of a source. Each segment is encoded, so a segment `history` at the end is part of the name. */
export function pathOf(source: string): string {
  const segments = source.split("/").map(encodeURIComponent);
  const last = segments.pop() ?? "";
  const head = segments.length === 0 ? "" : `${segments.join("/")}%2F`;
  return `/v1/sources/${head}${last}`;
}

export async function history(host: string, source: string, query: { limit: number; after?: string | null }): Promise<RecordPage> {
  return JSON.parse(await read(host, `${pathOf(source)}/history${queryOf(query)}`)) as RecordPage;
}
