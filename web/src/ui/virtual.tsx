import type { ComponentChildren, HTMLAttributes } from "preact";
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";

/** Rows that are drawn above and below those that are seen. */
const MARGIN_ROWS = 4;

export interface Range {
  from: number;
  to: number;
}

interface VirtualProps {
  count: number;
  rowHeight: number;
  class?: string;
  /** The row that must be seen; changes of it scroll. */
  shown?: number;
  /** Whether the end is followed while it is seen. */
  isFollowing?: boolean;
  onRange?: (range: Range) => void;
  row: (index: number, top: number) => ComponentChildren;
  attributes?: HTMLAttributes<HTMLDivElement>;
}

/** A list that draws only the rows that are seen, however many there are. */
export function Virtual({ count, rowHeight, shown, isFollowing, onRange, row, attributes, ...rest }: VirtualProps) {
  const box = useRef<HTMLDivElement>(null);
  const [view, setView] = useState({ top: 0, height: 600 });
  const from = Math.max(0, Math.floor(view.top / rowHeight) - MARGIN_ROWS);
  const to = Math.min(count, Math.ceil((view.top + view.height) / rowHeight) + MARGIN_ROWS);

  useLayoutEffect(() => {
    const element = box.current!;
    const measure = (): void => setView({ top: element.scrollTop, height: element.clientHeight });
    const observer = new ResizeObserver(measure);
    observer.observe(element);
    element.addEventListener("scroll", measure, { passive: true });
    measure();
    return () => {
      observer.disconnect();
      element.removeEventListener("scroll", measure);
    };
  }, []);

  useLayoutEffect(() => {
    const element = box.current!;
    if (shown !== undefined && shown >= 0) {
      const top = shown * rowHeight;
      if (top < element.scrollTop) {
        element.scrollTop = top;
      } else if (top + rowHeight > element.scrollTop + element.clientHeight) {
        element.scrollTop = top + rowHeight - element.clientHeight;
      }
    }
  }, [shown, rowHeight]);

  useLayoutEffect(() => {
    if (isFollowing) {
      box.current!.scrollTop = count * rowHeight;
    }
  });

  useEffect(() => onRange?.({ from, to }), [from, to, count, onRange]);

  const rows = [];
  for (let index = from; index < to; index += 1) {
    rows.push(row(index, index * rowHeight));
  }
  return (
    <div ref={box} class={`virtual ${rest.class ?? ""}`} tabIndex={0} {...attributes}>
      <div class="virtual-inner" role="presentation" style={{ height: `${count * rowHeight}px` }}>
        {rows}
      </div>
    </div>
  );
}
