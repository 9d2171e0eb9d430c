import type { Metrics } from "../net/metrics";

export interface Bucket {
  /** Bounds in seconds. */
  from: number;
  to: number;
  count: number;
}

/** The buckets of a histogram, each with the number of what falls into it alone. */
export function buckets(metrics: Metrics, name: string, before: Metrics | null = null): Bucket[] {
  const cumulated = (of: Metrics | null): Map<number, number> => {
    const samples = of?.get(`${name}_bucket`) ?? [];
    return new Map(samples.map(({ labels, value }) => [labels["le"] === "+Inf" ? Infinity : Number(labels["le"]), value]));
  };
  const earlier = cumulated(before);
  const bounds = [...cumulated(metrics)].sort(([a], [b]) => a - b);
  const found: Bucket[] = [];
  let [from, below] = [0, 0];
  for (const [to, value] of bounds) {
    const up = value - (earlier.get(to) ?? 0);
    found.push({ from, to, count: Math.max(0, up - below) });
    [from, below] = [to, up];
  }
  return found;
}

export function countOf(found: readonly Bucket[]): number {
  return found.reduce((sum, bucket) => sum + bucket.count, 0);
}

/** The value in seconds below which a share of all lies, as far as buckets tell; `null` if there is nothing. */
export function quantile(found: readonly Bucket[], share: number): number | null {
  const all = countOf(found);
  let left = all * share;
  for (const { from, to, count } of found) {
    if (count > 0 && left <= count) {
      return to === Infinity ? from : from + (to - from) * (left / count);
    }
    left -= count;
  }
  return all === 0 ? null : (found.at(-1)?.from ?? null);
}
