import { ask, problemOf, read } from "./api";

/** The kinds of things that users add, in the order in which they are shown. */
export const KINDS = ["pull", "middleware", "archive", "hook"] as const;
export type ExtensionKind = (typeof KINDS)[number];

/** Something that users added, as a node lists it. */
export interface Extension {
  name: string;
  /** Timestamp of the definition, in microseconds since the Unix epoch. */
  ts: number;
  definition: unknown;
  /** The member that runs it; `null` if none can, or if all members do. */
  runner: string | null;
  /** Why members cannot run it, by their names. */
  cannot: Record<string, string>;
  state: (Record<string, unknown> & { error?: string | null }) | null;
}

/** All definitions of a kind. */
export async function extensions(host: string, kind: ExtensionKind): Promise<Extension[]> {
  return (JSON.parse(await read(host, `/v1/${kind}`)) as Record<string, Extension[]>)[kind] ?? [];
}

/** Puts a definition that is written in TOML. */
export async function putExtension(host: string, kind: ExtensionKind, name: string, toml: string): Promise<void> {
  await change(host, kind, name, { method: "PUT", body: toml, headers: { "Content-Type": "application/toml" } });
}

/** Takes a definition away. */
export async function removeExtension(host: string, kind: ExtensionKind, name: string): Promise<void> {
  await change(host, kind, name, { method: "DELETE" });
}

async function change(host: string, kind: ExtensionKind, name: string, init: RequestInit): Promise<void> {
  const answer = await ask(host, `/v1/${kind}/${encodeURIComponent(name)}`, init);
  if (answer.status !== 200) {
    throw problemOf(answer);
  }
}
