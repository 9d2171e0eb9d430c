/** Width and height of a sparkline, in its own units. */
const [WIDTH, HEIGHT] = [120, 26];

/** A small line that shows the course of a figure. Who does not see it has the figure beside it. */
export function Spark({ values, tone = "" }: { values: (number | null)[]; tone?: string }) {
  const known = values.slice(-90).filter((value): value is number => value !== null);
  if (known.length < 2) {
    return <svg class="spark" viewBox={`0 0 ${WIDTH} ${HEIGHT}`} aria-hidden="true" />;
  }
  const high = Math.max(...known, 1e-9);
  const low = Math.min(...known, 0);
  const x = (at: number): string => ((at / (known.length - 1)) * WIDTH).toFixed(1);
  const y = (value: number): string => (HEIGHT - 2 - ((value - low) / (high - low || 1)) * (HEIGHT - 4)).toFixed(1);
  const line = known.map((value, at) => `${x(at)},${y(value)}`).join(" ");
  return (
    <svg class={`spark ${tone}`} viewBox={`0 0 ${WIDTH} ${HEIGHT}`} preserveAspectRatio="none" aria-hidden="true">
      <polygon points={`0,${HEIGHT} ${line} ${WIDTH},${HEIGHT}`} />
      <polyline points={line} />
    </svg>
  );
}
