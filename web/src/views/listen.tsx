import { useState } from "preact/hooks";
import { link } from "../app";
import { useStore } from "../net/store";
import { type TestFrame, Tester } from "../net/tester";
import { Choice, Empty, Panel } from "../ui/bits";
import { bytes, clock, short, whole } from "../ui/format";
import { Virtual } from "../ui/virtual";

/** The tester goes on while another view is shown. */
const tester = new Tester();
const draft = { patterns: "**", mode: "latest", snapshot: true, batch: false, resumes: false, filter: "" };

/** Tries a subscription, and shows every frame of it. */
export function Listen() {
  const { node } = useStore(link.state);
  const state = useStore(tester.state);
  const [form, setForm] = useState({ ...draft });
  const [isHeld, setHeld] = useState<readonly TestFrame[] | null>(null);
  const [chosen, setChosen] = useState<TestFrame | null>(null);
  const frames = isHeld ?? tester.frames;

  const change = (fields: Partial<typeof draft>): void => {
    Object.assign(draft, form, fields);
    setForm({ ...draft });
  };
  const begin = (event: SubmitEvent): void => {
    event.preventDefault();
    setHeld(null);
    setChosen(null);
    tester.start(link.state.value.host, {
      sources: form.patterns.split("\n").map((line) => line.trim()).filter((line) => line !== ""),
      mode: form.mode,
      snapshot: form.snapshot,
      batch: form.batch,
      resume: form.resumes ? state.token : "",
      filter: form.filter.trim(),
    });
  };

  return (
    <div class="view listen">
      <h1 class="unseen">Subscribe</h1>
      <Panel title="Try a subscription" aside={<span class="note">at {node}</span>}>
        <form class="form" onSubmit={begin}>
          <label>
            Patterns, one a line
            <textarea name="patterns" rows={3} spellcheck={false} value={form.patterns} onInput={(event) => change({ patterns: event.currentTarget.value })} />
          </label>
          <label>
            Filter, an expression of CEL
            <input name="filter" spellcheck={false} placeholder="data.c > 20.0" value={form.filter} onInput={(event) => change({ filter: event.currentTarget.value })} />
          </label>
          <div class="field">
            <span class="label">Mode</span>
            <Choice
              label="Mode"
              options={[
                ["latest", "latest: newest of each source"],
                ["all", "all: every record"],
              ]}
              value={form.mode}
              onChange={(mode) => change({ mode })}
            />
          </div>
          <div class="checks">
            {(
              [
                ["snapshot", "with a snapshot"],
                ["batch", "several records in a frame"],
                ["resumes", "resume from the last token"],
              ] as const
            ).map(([name, text]) => (
              <label key={name} class="check">
                <input
                  type="checkbox"
                  checked={form[name]}
                  disabled={name === "resumes" && state.token === ""}
                  onChange={(event) => change({ [name]: event.currentTarget.checked })}
                />
                {text}
              </label>
            ))}
          </div>
          <div class="actions">
            <button type="submit" class="primary">
              {state.isOpen ? "Begin anew" : "Subscribe"}
            </button>
            <button type="button" disabled={!state.isOpen} onClick={() => tester.stop()}>
              Stop
            </button>
          </div>
        </form>
      </Panel>
      <Panel
        title="Frames"
        class="frames-panel"
        aside={
          <div class="row">
            <span class="note" data-frames={state.frames} data-records={state.records}>
              {whole(state.frames)} frames · {whole(state.records)} records · {bytes(state.bytes)} · {short(state.isOpen ? state.perSecond : 0)} /s
            </span>
            <button type="button" aria-pressed={isHeld !== null} onClick={() => setHeld(isHeld === null ? [...tester.frames] : null)}>
              {isHeld === null ? "Hold" : "Go on"}
            </button>
            <button
              type="button"
              onClick={() => {
                setHeld(null);
                tester.clear();
              }}
            >
              Clear
            </button>
          </div>
        }
      >
        {frames.length === 0 ? (
          <Empty>Frames are shown as they come, in both directions.</Empty>
        ) : (
          <Virtual
            class="frame-rows"
            count={frames.length}
            rowHeight={24}
            isFollowing={isHeld === null && state.isOpen}
            attributes={{ role: "region", "aria-label": "Frames" }}
            row={(index, top) => {
              const frame = frames[index]!;
              return (
                <div
                  key={frame.number}
                  class={`frame ${frame.kind}`}
                  style={{ transform: `translateY(${top}px)` }}
                  onClick={() => {
                    setHeld([...frames]);
                    setChosen(frame);
                  }}
                >
                  <span class="frame-time">{clock(frame.at * 1_000)}</span>
                  <span class="frame-kind">{frame.kind}</span>
                  <span class="frame-text">{frame.text}</span>
                </div>
              );
            }}
          />
        )}
        {chosen !== null && <Whole frame={chosen} onClose={() => setChosen(null)} />}
      </Panel>
    </div>
  );
}

function Whole({ frame, onClose }: { frame: TestFrame; onClose: () => void }) {
  let text = frame.text;
  try {
    text = JSON.stringify(JSON.parse(frame.text), null, 2);
  } catch {
    // It is not JSON, or too long to be kept whole.
  }
  return (
    <div class="whole">
      <p class="row">
        <b>Frame {whole(frame.number)}</b> <span class="note">{whole(frame.bytes)} characters</span>
        <button type="button" onClick={onClose}>
          Close
        </button>
      </p>
      <pre tabIndex={0} aria-label={`Frame ${frame.number}`}>
        {text}
      </pre>
    </div>
  );
}
