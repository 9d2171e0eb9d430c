import { useEffect, useRef } from "preact/hooks";
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";
import { useStore } from "../net/store";
import { short } from "./format";
import { colour, colours } from "./theme";

export interface Line {
  label: string;
  /** A colour of the style sheet, such as `--series-1`. */
  colour: string;
  values: (number | null)[];
}

interface PlotProps {
  /** Seconds since the Unix epoch, in ascending order. */
  times: number[];
  lines: Line[];
  height: number;
  /** Whether single points are marked. */
  hasPoints?: boolean;
  /** Whether the value axis begins at 0. */
  fromZero?: boolean;
  /** What the plot shows, for those who do not see it. */
  describes: string;
}

/** A plot of values over time. */
export function Plot({ times, lines, height, hasPoints = false, fromZero = false, describes }: PlotProps) {
  const box = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | null>(null);
  const palette = useStore(colours);
  const shape = JSON.stringify([lines.map((line) => [line.label, line.colour]), height, hasPoints, fromZero]);
  const data = [times, ...lines.map((line) => line.values)] as uPlot.AlignedData;

  useEffect(() => {
    const element = box.current!;
    const [ink, rule] = [colour("--dim"), colour("--rule")];
    const axis: uPlot.Axis = {
      stroke: ink,
      font: '12px "Plex Mono", monospace',
      grid: { stroke: rule, width: 1 },
      ticks: { stroke: rule, width: 1, size: 4 },
    };
    const made = new uPlot(
      {
        width: Math.max(element.clientWidth, 120),
        height,
        legend: { show: false },
        cursor: { points: { size: 7 }, drag: { x: false, y: false } },
        padding: [8, 26, 0, 0],
        scales: {
          y: {
            range: (_, low, high) => {
              const spread = high - low || Math.abs(high) || 1;
              return [fromZero ? 0 : low - spread * 0.1, fromZero ? Math.max(high * 1.12, 1) : high + spread * 0.1];
            },
          },
        },
        axes: [
          { ...axis, space: 90, values: (_, splits, __, ___, step) => splits.map((at) => timeLabel(at, step)) },
          { ...axis, size: 58, space: 34, values: (_, splits) => splits.map((value) => short(value)) },
        ],
        series: [
          {},
          ...lines.map((line) => ({
            label: line.label,
            stroke: colour(line.colour),
            width: 1.75,
            points: { show: hasPoints && times.length < 400, size: 5, fill: colour("--surface"), width: 1.5 },
          })),
        ],
      },
      data,
      element,
    );
    plot.current = made;
    const observer = new ResizeObserver(() => made.setSize({ width: Math.max(element.clientWidth, 120), height }));
    observer.observe(element);
    return () => {
      observer.disconnect();
      made.destroy();
      plot.current = null;
    };
    // The values come by the effect below.
  }, [shape, palette]);

  useEffect(() => plot.current?.setData(data), [data]);

  return (
    <figure class="plot">
      <div ref={box} role="img" aria-label={describes} />
      {lines.length > 1 && (
        <figcaption aria-hidden="true">
          {lines.map((line) => (
            <span key={line.label}>
              <i class="key" style={{ background: `var(${line.colour})` }} />
              {line.label} <b>{short(line.values.at(-1) ?? null)}</b>
            </span>
          ))}
        </figcaption>
      )}
    </figure>
  );
}

function timeLabel(seconds: number, step: number): string {
  const date = new Date(seconds * 1_000);
  const two = (value: number): string => String(value).padStart(2, "0");
  const clock = `${two(date.getHours())}:${two(date.getMinutes())}`;
  if (step >= 86_400) {
    return `${two(date.getMonth() + 1)}-${two(date.getDate())}`;
  }
  return step < 60 ? `${clock}:${two(date.getSeconds())}${step < 1 ? `.${Math.floor(date.getMilliseconds() / 100)}` : ""}` : clock;
}
