/** One figure of a node. */
export interface Sample {
  labels: Readonly<Record<string, string>>;
  value: number;
}

/** The figures of a node by their names. */
export type Metrics = ReadonlyMap<string, readonly Sample[]>;

const LINE = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)/;
const LABEL = /(\w+)="((?:[^"\\]|\\.)*)"/g;

/** Reads the text format of Prometheus. */
export function parseMetrics(text: string): Metrics {
  const metrics = new Map<string, Sample[]>();
  for (const line of text.split("\n")) {
    const parts = line.startsWith("#") ? null : LINE.exec(line);
    if (parts === null) {
      continue;
    }
    const labels: Record<string, string> = {};
    for (const [, name, value] of (parts[2] ?? "").matchAll(LABEL)) {
      labels[name!] = value!.replace(/\\(.)/g, (_, escaped: string) => (escaped === "n" ? "\n" : escaped));
    }
    const name = parts[1]!;
    const sample = { labels, value: parts[3] === "+Inf" ? Infinity : Number(parts[3]) };
    const samples = metrics.get(name);
    if (samples === undefined) {
      metrics.set(name, [sample]);
    } else {
      samples.push(sample);
    }
  }
  return metrics;
}

/** The sum of the figures of a name whose labels have these values; `null` if there is none. */
export function total(metrics: Metrics, name: string, labels: Record<string, string> = {}): number | null {
  const samples = (metrics.get(name) ?? []).filter((sample) =>
    Object.entries(labels).every(([label, value]) => sample.labels[label] === value),
  );
  return samples.length === 0 ? null : samples.reduce((sum, sample) => sum + sample.value, 0);
}
