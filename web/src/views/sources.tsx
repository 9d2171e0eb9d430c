import { useCallback, useEffect, useMemo, useRef, useState } from "preact/hooks";
import { figures, link, names } from "../app";
import { type Row, foldersOf, foundRows, onlyFolders, treeRows } from "../model/tree";
import { useStore } from "../net/store";
import type { AnodeRecord } from "../net/types";
import type { Watch } from "../net/watches";
import { Empty } from "../ui/bits";
import { clock, short, valueOf, whole } from "../ui/format";
import { go, place } from "../ui/router";
import { type Range, Virtual } from "../ui/virtual";
import { Source } from "./source";

/** Milliseconds between two looks for sources that are new. */
const NEWS_MS = 10_000;
/** Milliseconds for which a new value is marked. */
const HOT_MS = 500;

/** Folders that are open, kept while another view is shown. */
let openFolders: ReadonlySet<string> = new Set();
let hasOpened = false;

export function Sources() {
  const { item } = useStore(place);
  return (
    <div class={`view sources ${item === "" ? "" : "has-source"}`}>
      <h1 class="unseen">Sources</h1>
      <Tree chosen={item} />
      {item === "" ? (
        <section class="panel detail">
          <Empty>Choose a source to see its value and its history.</Empty>
          <dl class="keys">
            <dt>
              <kbd>/</kbd>
            </dt>
            <dd>search by a part of the name, or by a pattern such as sensors/*/temp</dd>
            <dt>
              <kbd>↑</kbd> <kbd>↓</kbd>
            </dt>
            <dd>go through the tree</dd>
            <dt>
              <kbd>→</kbd> <kbd>←</kbd>
            </dt>
            <dd>open and close a folder</dd>
            <dt>
              <kbd>Enter</kbd>
            </dt>
            <dd>show the source</dd>
          </dl>
        </section>
      ) : (
        <Source key={item} source={item} />
      )}
    </div>
  );
}

function Tree({ chosen }: { chosen: string }) {
  const { version, count, isLoading, isCut, trouble } = useStore(names.state);
  const { phase } = useStore(link.state);
  const [search, setSearch] = useState("");
  const [open, setOpen] = useState(openFolders);
  const [cursor, setCursor] = useState(-1);
  const rows = useMemo(() => {
    return search.trim() === "" ? treeRows(names.sorted, open) : foundRows(names.sorted, search);
  }, [version, open, search]);
  const [onRange, latest] = useSeen(rows);
  useNews(phase === "open");

  useEffect(() => {
    if (!hasOpened && names.sorted.length > 0 && !isLoading) {
      hasOpened = true;
      change(new Set([...open, ...onlyFolders(names.sorted), ...foldersOf(chosen)]));
    }
  }, [version, isLoading]);

  const change = (folders: ReadonlySet<string>): void => {
    openFolders = folders;
    setOpen(folders);
  };
  const toggle = (row: Row, isOpen = !row.isOpen): void => {
    const folders = new Set(open);
    folders[isOpen ? "add" : "delete"](row.name);
    change(folders);
  };
  const use = (row: Row): void => (row.count > 0 ? toggle(row) : go("sources", row.name));

  const handleKey = (event: KeyboardEvent): void => {
    const row = rows[cursor];
    const to = (index: number): void => setCursor(Math.max(0, Math.min(rows.length - 1, index)));
    const parent = (): number => {
      const found = rows.slice(0, Math.max(cursor, 0)).findLastIndex((other) => row !== undefined && other.level < row.level);
      return found < 0 ? cursor : found;
    };
    const keys: Record<string, () => void> = {
      ArrowDown: () => to(cursor + 1),
      ArrowUp: () => to(cursor - 1),
      PageDown: () => to(cursor + 20),
      PageUp: () => to(cursor - 20),
      Home: () => to(0),
      End: () => to(rows.length - 1),
      ArrowRight: () => row !== undefined && row.count > 0 && (row.isOpen ? to(cursor + 1) : toggle(row, true)),
      ArrowLeft: () => row !== undefined && (row.isOpen ? toggle(row, false) : to(parent())),
      Enter: () => row !== undefined && use(row),
      " ": () => row !== undefined && use(row),
    };
    const action = keys[event.key];
    if (action !== undefined && !event.ctrlKey && !event.metaKey && !event.altKey) {
      event.preventDefault();
      action();
    }
  };

  return (
    <section class="panel tree">
      <header>
        <label class="search">
          <span class="unseen">Search sources</span>
          <input
            id="search"
            type="search"
            placeholder="Part of a name, or a pattern with *"
            value={search}
            spellcheck={false}
            onInput={(event) => {
              setSearch(event.currentTarget.value);
              setCursor(-1);
            }}
          />
        </label>
        <button type="button" class="quiet" disabled={isLoading} onClick={() => void names.load(() => link.state.value.host, false)}>
          Reload
        </button>
      </header>
      <p class="note tree-note" role="status">
        {isLoading ? `${whole(count)} sources, loading…` : search.trim() === "" ? `${whole(count)} sources` : `${whole(rows.length)} of ${whole(count)} sources`}
        {isCut && "; there are more than this page keeps"}
        <span class="watched"> · {link.watches.count} subscribed</span>
      </p>
      {trouble !== "" && <p class="trouble">{trouble}</p>}
      {rows.length === 0 ? (
        <Empty>{isLoading ? "The names are being read." : search === "" ? "There are no sources so far." : "No source has such a name."}</Empty>
      ) : (
        <Virtual
          count={rows.length}
          rowHeight={matchMedia("(max-width: 720px)").matches ? 40 : 27}
          shown={cursor}
          onRange={onRange}
          class="tree-rows"
          attributes={{
            role: "tree",
            "aria-label": "Sources",
            "aria-activedescendant": cursor >= 0 ? `row-${cursor}` : undefined,
            onKeyDown: handleKey,
            onFocus: () => cursor < 0 && setCursor(0),
          }}
          row={(index, top) => {
            const row = rows[index]!;
            return (
              <TreeLine
                key={row.name}
                row={row}
                index={index}
                top={top}
                record={latest(row)}
                isCursor={index === cursor}
                isChosen={row.name === chosen}
                onUse={() => {
                  setCursor(index);
                  use(row);
                }}
              />
            );
          }}
        />
      )}
    </section>
  );
}

interface LineProps {
  row: Row;
  index: number;
  top: number;
  record: Seen | undefined;
  isCursor: boolean;
  isChosen: boolean;
  onUse: () => void;
}

function TreeLine({ row, index, top, record, isCursor, isChosen, onUse }: LineProps) {
  const isFolder = row.count > 0;
  const state = `${isFolder ? "folder" : "leaf"} ${isCursor ? "cursor" : ""} ${record?.record.deleted ? "gone" : ""}`;
  return (
    <div
      id={`row-${index}`}
      role="treeitem"
      aria-level={row.level}
      aria-expanded={isFolder ? row.isOpen : undefined}
      aria-selected={isChosen}
      class={`line ${state}`}
      style={{ transform: `translateY(${top}px)`, paddingLeft: `${row.level * 16 - 6}px` }}
      data-name={row.name}
      onClick={onUse}
    >
      <span class="line-label">
        {isFolder && <i class={row.isOpen ? "twist open" : "twist"} aria-hidden="true" />}
        {row.label}
      </span>
      {isFolder ? (
        <span class="line-count">{short(row.count)}</span>
      ) : (
        <>
          <span class={`line-value ${record !== undefined && record.isHot ? "hot" : ""}`}>{record === undefined ? "" : valueOf(record.record)}</span>
          <span class="line-time">{record === undefined ? "" : clock(record.record.ts).slice(0, 8)}</span>
        </>
      )}
    </div>
  );
}

interface Seen {
  record: AnodeRecord;
  isHot: boolean;
}

/** Subscribes to the sources of the rows that are seen, and draws their values once a frame. */
function useSeen(rows: readonly Row[]): [(range: Range) => void, (row: Row) => Seen | undefined] {
  const [, redraw] = useState(0);
  const watch = useRef<Watch | null>(null);
  const hotUntil = useRef(new Map<string, number>());
  const range = useRef<Range>({ from: 0, to: 0 });

  useEffect(() => {
    let frame = 0;
    const draw = (): void => {
      frame = 0;
      redraw((count) => count + 1);
    };
    const soon = (): void => {
      frame ||= requestAnimationFrame(draw);
    };
    watch.current = link.watches.watch((record) => {
      hotUntil.current.set(record.source, performance.now() + HOT_MS);
      soon();
    });
    // Marks of new values end although nothing comes any more.
    const timer = setInterval(() => {
      const now = performance.now();
      for (const [source, until] of hotUntil.current) {
        if (until < now) {
          hotUntil.current.delete(source);
          soon();
        }
      }
    }, HOT_MS);
    return () => {
      watch.current?.end();
      watch.current = null;
      clearInterval(timer);
      cancelAnimationFrame(frame);
    };
  }, []);

  const subscribe = useCallback(() => {
    const seen = rows.slice(range.current.from, range.current.to).filter((row) => row.count === 0);
    watch.current?.set(seen.map((row) => row.name));
  }, [rows]);
  const onRange = useCallback(
    (now: Range) => {
      range.current = now;
      subscribe();
    },
    [subscribe],
  );
  const latest = (row: Row): Seen | undefined => {
    const record = row.count > 0 ? undefined : watch.current?.get(row.name);
    return record && { record, isHot: (hotUntil.current.get(row.name) ?? 0) > performance.now() };
  };
  return [onRange, latest];
}

/** Loads the names, and looks for new ones when the node holds another number of sources than before. */
function useNews(isOpen: boolean): void {
  const { readings, trouble } = useStore(figures.store);
  const held = readings.at(-1)?.sources ?? -1;
  const known = useRef({ held: -2, at: 0 });
  useEffect(() => {
    const host = (): string => link.state.value.host;
    const look = (): void => {
      const isFirst = names.sorted.length === 0;
      const hasNews = trouble !== "" || (figures.store.value.readings.at(-1)?.sources ?? -1) !== known.current.held;
      if (isFirst || hasNews) {
        known.current = { held: figures.store.value.readings.at(-1)?.sources ?? -1, at: Date.now() };
        void names.load(host, !isFirst);
      }
    };
    if (!isOpen) {
      return undefined;
    }
    look();
    const timer = setInterval(look, NEWS_MS);
    return () => clearInterval(timer);
  }, [isOpen, held === -1]);
}

