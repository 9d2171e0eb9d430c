/** How deep numbers are looked for in a value. */
const DEPTH_MAX = 3;
/** Most numbers of a value that can be chosen to be drawn. */
const PATHS_MAX = 40;

/** The places of numbers in a value: `""` for a number by itself, `a.b` for one within objects. */
export function numberPaths(value: unknown): string[] {
  const found: string[] = [];
  const walk = (part: unknown, path: string, depth: number): void => {
    if (found.length >= PATHS_MAX) {
      return;
    }
    if (typeof part === "number" || typeof part === "boolean") {
      found.push(path);
    } else if (typeof part === "object" && part !== null && depth < DEPTH_MAX) {
      for (const [name, inner] of Object.entries(part)) {
        walk(inner, path === "" ? name : `${path}.${name}`, depth + 1);
      }
    }
  };
  walk(value, "", 0);
  return found;
}

/** The number at a place of a value; `null` if there is none. */
export function numberAt(value: unknown, path: string): number | null {
  let part: unknown = value;
  for (const name of path === "" ? [] : path.split(".")) {
    part = typeof part === "object" && part !== null ? (part as Record<string, unknown>)[name] : undefined;
  }
  return typeof part === "number" ? part : typeof part === "boolean" ? Number(part) : null;
}
