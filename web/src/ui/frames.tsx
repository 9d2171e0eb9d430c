import { useEffect, useState } from "preact/hooks";

/** A frame that takes longer than this, in milliseconds, is seen as a hitch. */
const LONG_MS = 50;
/** Milliseconds over which frames are counted. */
const WINDOW_MS = 5_000;

interface FrameCount {
  perSecond: number;
  /** Long frames and the longest one, in milliseconds, since counting began. */
  long: number;
  worst: number;
}

/** Counts the frames that the browser draws, while the page is seen. */
function useFrameCount(): FrameCount | null {
  const [count, setCount] = useState<FrameCount | null>(null);
  useEffect(() => {
    let times: number[] = [];
    let [long, worst, shown, last, frame] = [0, 0, 0, 0, 0];
    const turn = (now: number): void => {
      // A page that was not seen has drawn nothing.
      if (last !== 0 && now - last < 1_000) {
        const took = now - last;
        times.push(now);
        worst = Math.max(worst, took);
        long += took > LONG_MS ? 1 : 0;
      } else {
        times = [now];
      }
      last = now;
      if (now - shown > 1_000) {
        shown = now;
        times = times.filter((time) => now - time <= WINDOW_MS);
        const seconds = (now - (times[0] ?? now)) / 1_000;
        if (seconds > 0.5) {
          setCount({ perSecond: (times.length - 1) / seconds, long, worst });
        }
      }
      frame = requestAnimationFrame(turn);
    };
    frame = requestAnimationFrame(turn);
    return () => cancelAnimationFrame(frame);
  }, []);
  return count;
}

/** Tells how fluently the page is drawn. */
export function Frames() {
  const count = useFrameCount();
  return (
    <span
      class="frames"
      title={`Long frames take more than ${LONG_MS} ms. Frames per second are those of the last ${WINDOW_MS / 1_000} s.`}
      data-fps={count?.perSecond.toFixed(1)}
      data-long={count?.long}
      data-worst={count?.worst.toFixed(0)}
    >
      {count === null ? "– fps" : `${Math.round(count.perSecond)} fps · ${count.long} long · worst ${Math.round(count.worst)} ms`}
    </span>
  );
}
