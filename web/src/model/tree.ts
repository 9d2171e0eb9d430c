import { lowerBound } from "./names";

/** A line of the tree: a source, or a folder with all names that begin with `name`. */
export interface Row {
  name: string;
  /** The part of the name that is shown. */
  label: string;
  level: number;
  /** Number of sources beneath a folder; 0 for a source. */
  count: number;
  isOpen: boolean;
}

/** Greater than every name with the same beginning. */
const LAST = "\uffff";

/**
 * The lines of a tree of sorted names, with the content of the folders that are open. A closed folder costs two
 * searches, however much is in it.
 */
export function treeRows(sorted: readonly string[], open: ReadonlySet<string>): Row[] {
  const rows: Row[] = [];
  const walk = (prefix: string, from: number, to: number, level: number): void => {
    let at = from;
    while (at < to) {
      const name = sorted[at]!;
      const end = name.indexOf("/", prefix.length);
      if (end < 0) {
        rows.push({ name, label: name.slice(prefix.length), level, count: 0, isOpen: false });
        at += 1;
        continue;
      }
      const folder = name.slice(0, end + 1);
      const next = lowerBound(sorted, folder + LAST, at, to);
      const isOpen = open.has(folder);
      rows.push({ name: folder, label: folder.slice(prefix.length), level, count: next - at, isOpen });
      if (isOpen) {
        walk(folder, at, next, level + 1);
      }
      at = next;
    }
  };
  walk("", 0, sorted.length, 1);
  return rows;
}

/** The folders that are open at the beginning: those that have no choice beside them. */
export function onlyFolders(sorted: readonly string[]): string[] {
  const found: string[] = [];
  let prefix = "";
  for (;;) {
    const first = sorted[0];
    const end = first?.indexOf("/", prefix.length) ?? -1;
    const folder = end < 0 ? "" : first!.slice(0, end + 1);
    if (folder === "" || !sorted.at(-1)!.startsWith(folder)) {
      return found;
    }
    found.push(folder);
    prefix = folder;
  }
}

/** The folders in which a source lies. */
export function foldersOf(source: string): string[] {
  const segments = source.split("/");
  return segments.slice(0, -1).map((_, at) => `${segments.slice(0, at + 1).join("/")}/`);
}

/** The sources that a search finds: by a part of their names, or by a pattern if it has a `*`. */
export function foundRows(sorted: readonly string[], search: string): Row[] {
  const text = search.trim();
  const matches = text.includes("*") ? matcher(text) : partOf(text);
  const rows: Row[] = [];
  for (const name of sorted) {
    if (matches(name)) {
      rows.push({ name, label: name, level: 1, count: 0, isOpen: false });
    }
  }
  return rows;
}

function partOf(text: string): (name: string) => boolean {
  const isPlain = text === text.toLowerCase();
  return (name) => (isPlain ? name.toLowerCase() : name).includes(text);
}

/** `*` stands for one segment, and `**` at the end for one or more. */
function matcher(pattern: string): (name: string) => boolean {
  const segments = pattern.split("/");
  const isDeep = segments.at(-1) === "**";
  return (name) => {
    const parts = name.split("/");
    const fits = isDeep ? parts.length >= segments.length : parts.length === segments.length;
    return fits && segments.every((segment, at) => segment === "*" || (isDeep && at === segments.length - 1) || segment === parts[at]);
  };
}
