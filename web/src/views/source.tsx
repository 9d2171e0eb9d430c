import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { link, names } from "../app";
import { numberAt, numberPaths } from "../model/numbers";
import { history } from "../net/api";
import { useStore } from "../net/store";
import type { AnodeRecord } from "../net/types";
import { Choice, Empty, Panel } from "../ui/bits";
import { moment, valueOf, whole } from "../ui/format";
import { Plot } from "../ui/plot";
import { hrefOf } from "../ui/router";

/** Records of the history that are read at a time. */
const PAGE_RECORDS = 500;
/** Most records that are kept to be drawn. */
const KEPT = 5_000;
/** Rows of the table. */
const TABLE_ROWS = 200;

interface Past {
  /** Oldest first, one of each timestamp. */
  records: AnodeRecord[];
  after: string | null;
  trouble: string;
  isLoading: boolean;
}

/** One source: its latest record, and its history with what comes while it is shown. */
export function Source({ source }: { source: string }) {
  const [latest, setLatest] = useState<AnodeRecord | null>(null);
  const [past, setPast] = useState<Past>({ records: [], after: null, trouble: "", isLoading: true });
  const [look, setLook] = useState<"plot" | "table">("plot");
  const [chosen, setChosen] = useState<string | null>(null);
  const { host, phase } = useStore(link.state);
  const fresh = useRef<AnodeRecord[]>([]);

  useEffect(() => {
    let frame = 0;
    const watch = link.watches.watch((record) => {
      fresh.current.push(record);
      frame ||= requestAnimationFrame(() => {
        frame = 0;
        const came = fresh.current.splice(0);
        setLatest(came.at(-1) ?? null);
        setPast((before) => ({ ...before, records: joined(before.records, came) }));
      });
    });
    watch.set([source]);
    return () => {
      watch.end();
      cancelAnimationFrame(frame);
    };
  }, [source]);

  const load = async (after: string | null): Promise<void> => {
    setPast((before) => ({ ...before, isLoading: true, trouble: "" }));
    try {
      const page = await history(link.state.value.host, source, { limit: PAGE_RECORDS, after });
      setPast((before) => ({ ...before, records: joined(before.records, page.records), after: page.after, isLoading: false }));
      names.add([source]);
    } catch (error) {
      const trouble = error instanceof Error ? error.message : String(error);
      setPast((before) => ({ ...before, trouble, isLoading: false }));
    }
  };
  useEffect(() => {
    if (phase === "open" || phase === "refused") {
      void load(null);
    }
  }, [source, host, phase === "open"]);

  const shown = latest ?? past.records.at(-1) ?? null;
  const paths = useMemo(() => numberPaths(shown?.data), [shown]);
  const path = chosen !== null && paths.includes(chosen) ? chosen : (paths[0] ?? null);
  const isPlot = look === "plot" && path !== null;
  return (
    <section class="panel detail" aria-label={`Source ${source}`}>
      <header>
        <h2 class="source-name">{source}</h2>
        <a class="button" href={`${hrefOf("publish")}?source=${encodeURIComponent(source)}`}>
          Publish to it
        </a>
        <a class="button back" href={hrefOf("sources")}>
          Back to the tree
        </a>
      </header>
      {shown === null ? (
        <Empty>{past.isLoading ? "The record is being read." : "There is no record of this source."}</Empty>
      ) : (
        <Latest record={shown} />
      )}
      <Panel
        title="History"
        class="past"
        aside={
          <div class="row">
            {isPlot && paths.length > 1 && (
              <label class="inline">
                Field
                <select value={path} onChange={(event) => setChosen(event.currentTarget.value)}>
                  {paths.map((one) => (
                    <option key={one} value={one}>
                      {one}
                    </option>
                  ))}
                </select>
              </label>
            )}
            <Choice
              label="History as"
              options={[
                ["plot", "Plot"],
                ["table", "Table"],
              ]}
              value={isPlot ? "plot" : "table"}
              onChange={setLook}
            />
          </div>
        }
      >
        {past.trouble !== "" && <p class="trouble">{past.trouble}</p>}
        {isPlot ? <Course records={past.records} path={path} source={source} /> : <Table records={past.records} />}
        <p class="note row">
          {whole(past.records.length)} records
          {past.after !== null && (
            <button type="button" disabled={past.isLoading || past.records.length >= KEPT} onClick={() => void load(past.after)}>
              Load older ones
            </button>
          )}
        </p>
      </Panel>
    </section>
  );
}

/** Both in one, oldest first. What is both in the history and live is there once. */
function joined(before: AnodeRecord[], came: AnodeRecord[]): AnodeRecord[] {
  const last = before.at(-1)?.ts ?? -1;
  if (came.every((record, at) => record.ts > (came[at - 1]?.ts ?? last))) {
    return [...before, ...came].slice(-KEPT);
  }
  const byTime = new Map<number, AnodeRecord>();
  for (const record of [...came, ...before]) {
    byTime.set(record.ts, record);
  }
  return [...byTime.values()].sort((a, b) => a.ts - b.ts).slice(-KEPT);
}

function Latest({ record }: { record: AnodeRecord }) {
  const text = record.deleted ? "deleted" : record.data_b64 !== undefined ? record.data_b64 : JSON.stringify(record.data, null, 2);
  const size = new TextEncoder().encode(record.data_b64 ?? JSON.stringify(record.data) ?? "").length;
  return (
    <div class="latest">
      <pre class={text.length < 24 ? "big" : ""} tabIndex={0} aria-label="Latest value" data-value={valueOf(record)}>
        {text.length > 20_000 ? `${text.slice(0, 20_000)}…` : text}
      </pre>
      <dl class="facts">
        <div>
          <dt>Time</dt>
          <dd>{moment(record.ts)}</dd>
        </div>
        <div>
          <dt>Origin</dt>
          <dd>{record.origin}</dd>
        </div>
        <div>
          <dt>{record.data_b64 === undefined ? "JSON" : "Base64"}</dt>
          <dd>{whole(size)} bytes</dd>
        </div>
        <div>
          <dt>ts</dt>
          <dd>{record.ts}</dd>
        </div>
      </dl>
    </div>
  );
}

function Course({ records, path, source }: { records: AnodeRecord[]; path: string; source: string }) {
  const times: number[] = [];
  const values: (number | null)[] = [];
  for (const record of records) {
    times.push(record.ts / 1e6);
    // A deletion is a gap.
    values.push(record.deleted ? null : numberAt(record.data, path));
  }
  const label = path === "" ? source : path;
  const known = values.filter((value): value is number => value !== null);
  const told = `${label}: ${known.length} values from ${Math.min(...known)} to ${Math.max(...known)}, the last is ${known.at(-1)}.`;
  return <Plot times={times} lines={[{ label, colour: "--series-1", values }]} height={300} hasPoints describes={told} />;
}

function Table({ records }: { records: AnodeRecord[] }) {
  const newest = records.slice(-TABLE_ROWS).reverse();
  return (
    <div class="scroll history-table" tabIndex={0} role="region" aria-label="History">
      <table>
        <thead>
          <tr>
            <th scope="col">Time</th>
            <th scope="col">Value</th>
            <th scope="col">Origin</th>
          </tr>
        </thead>
        <tbody>
          {newest.map((record) => (
            <tr key={record.ts}>
              <td class="address">{moment(record.ts)}</td>
              <td class={`value ${record.deleted ? "gone" : ""}`}>{valueOf(record)}</td>
              <td>{record.origin}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}
