import { useState } from "preact/hooks";
import { link } from "../app";
import { Unreachable, ask } from "../net/api";
import { askForToken, auth } from "../net/auth";
import { useStore } from "../net/store";
import { Choice, Empty, Panel } from "../ui/bits";
import { clock } from "../ui/format";
import { hrefOf, place } from "../ui/router";

type Kind = "json" | "text" | "base64" | "deleted";
type Ack = "accepted" | "stored" | "replicated";

const LEVELS: Readonly<Record<Ack, string>> = {
  accepted: "This node has applied the record, and it is on its way to the store and the other members.",
  stored: "The record survives a power cut of this node.",
  replicated: "Every member that this node sees alive holds the record.",
};
const OUTCOMES: Readonly<Record<string, string>> = {
  applied: "It is the latest record of its source now.",
  duplicate: "The node holds this very record already.",
  stale: "It is older than the record that the node holds, and was not kept.",
};
/** Answers that are kept to be seen. */
const ANSWERS_KEPT = 20;

interface Sent {
  id: number;
  at: number;
  request: string;
  status: number;
  body: string;
  ms: number;
  source: string;
}

/** Draft of the form, kept while another view is shown. */
const draft = { source: "", kind: "json" as Kind, data: "", ts: "", ttl: "", ack: "stored" as Ack };
let answers: Sent[] = [];

export function Publish() {
  const { query } = useStore(place);
  const { node } = useStore(link.state);
  const [form, setForm] = useState({ ...draft, source: query.get("source") ?? draft.source });
  const [trouble, setTrouble] = useState("");
  const [isSending, setSending] = useState(false);
  const [sent, setSent] = useState(answers);

  const change = (fields: Partial<typeof draft>): void => {
    Object.assign(draft, form, fields);
    setForm({ ...draft });
    setTrouble("");
  };
  const submit = async (event: SubmitEvent): Promise<void> => {
    event.preventDefault();
    const body = bodyOf(form);
    if (body.trouble !== "") {
      setTrouble(body.trouble);
      return;
    }
    setSending(true);
    try {
      const init = { method: "POST", body: body.text, headers: { "Content-Type": "application/json" } };
      const { status, text, ms } = await ask(link.state.value.host, `/v1/publish?ack=${form.ack}`, init);
      const one = { id: (answers[0]?.id ?? 0) + 1, at: Date.now() * 1_000, request: body.text, status, body: text, ms, source: form.source };
      answers = [one, ...answers].slice(0, ANSWERS_KEPT);
      setSent(answers);
      if (status === 401) {
        askForToken(auth.value.token === null ? "Publishing needs a token." : "The token is not in force any more.");
      }
    } catch (error) {
      setTrouble(
        error instanceof Unreachable
          ? `${error.message}. It is not known whether the record was applied: publish it again with its ts, which is then a duplicate at worst.`
          : String(error),
      );
    } finally {
      setSending(false);
    }
  };

  return (
    <div class="view publish">
      <h1 class="unseen">Publish</h1>
      <Panel title="Publish a record" aside={<span class="note">at {node}</span>}>
        <form class="form" onSubmit={(event) => void submit(event)}>
          <label>
            Source
            <input
              name="source"
              required
              value={form.source}
              spellcheck={false}
              autocapitalize="none"
              autocomplete="off"
              placeholder="sensors/7/temp"
              onInput={(event) => change({ source: event.currentTarget.value })}
            />
          </label>
          <div class="field">
            <span class="label">Data</span>
            <Choice
              label="Kind of data"
              options={[
                ["json", "JSON"],
                ["text", "Text as bytes"],
                ["base64", "Base64"],
                ["deleted", "Deletion"],
              ]}
              value={form.kind}
              onChange={(kind) => change({ kind })}
            />
            {form.kind !== "deleted" && (
              <textarea
                name="data"
                aria-label={`Data, ${form.kind}`}
                rows={6}
                spellcheck={false}
                value={form.data}
                placeholder={form.kind === "json" ? '{"c": 21.5}' : ""}
                onInput={(event) => change({ data: event.currentTarget.value })}
              />
            )}
          </div>
          <div class="field">
            <span class="label">Answer when it is</span>
            <Choice
              label="Acknowledgement level"
              options={[
                ["accepted", "accepted"],
                ["stored", "stored"],
                ["replicated", "replicated"],
              ]}
              value={form.ack}
              onChange={(ack) => change({ ack })}
            />
            <span class="note">{LEVELS[form.ack]}</span>
          </div>
          <div class="two">
            <label>
              Time to live, ms
              <input name="ttl" inputMode="numeric" value={form.ttl} disabled={form.kind === "deleted"} placeholder="no end" onInput={(event) => change({ ttl: event.currentTarget.value })} />
            </label>
            <label>
              Timestamp, µs
              <input name="ts" inputMode="numeric" value={form.ts} placeholder="set by the node" onInput={(event) => change({ ts: event.currentTarget.value })} />
            </label>
          </div>
          <p class="trouble" role="alert">
            {trouble}
          </p>
          <div class="actions">
            <button type="submit" class="primary" disabled={isSending}>
              {isSending ? "Publishing…" : "Publish"}
            </button>
            <span class="note">POST /v1/publish?ack={form.ack}</span>
          </div>
        </form>
      </Panel>
      <Panel title="Answers" class="answers">
        {sent.length === 0 ? <Empty>What the node answers is shown here.</Empty> : <Answers sent={sent} />}
      </Panel>
    </div>
  );
}

function Answers({ sent }: { sent: Sent[] }) {
  return (
    <ol aria-live="polite">
      {sent.map((one) => {
        const told = parsed(one.body);
        const [outcome, code] = [told["outcome"], told["code"]].map((field) => (typeof field === "string" ? field : ""));
        const said = code !== "" ? String(told["detail"] ?? told["title"] ?? "") : (OUTCOMES[outcome!] ?? "");
        return (
          <li key={one.id} class={one.status < 300 ? "good" : "bad"} data-outcome={outcome} data-code={code}>
            <p class="row">
              <b class="verdict">{code !== "" ? code : outcome}</b>
              <span class="note">
                {one.status} · {one.ms < 10 ? one.ms.toFixed(1) : Math.round(one.ms)} ms · {clock(one.at)}
              </span>
            </p>
            <p>
              {said} {told["level"] !== undefined && `Level: ${String(told["level"])}.`} {told["nodes"] !== undefined && `Held by ${String(told["nodes"])} members.`}{" "}
              {one.status < 300 && <a href={hrefOf("sources", one.source)}>See the source</a>}
            </p>
            <pre class="wire">
              <span class="out">→ {one.request}</span>
              {"\n"}
              <span class="in">← {one.body}</span>
            </pre>
          </li>
        );
      })}
    </ol>
  );
}

function parsed(text: string): Record<string, unknown> {
  try {
    return JSON.parse(text) as Record<string, unknown>;
  } catch {
    return {};
  }
}

/** The body of the request, or what is wrong with the form. JSON is sent as it was written, since data is kept verbatim. */
function bodyOf(form: typeof draft): { text: string; trouble: string } {
  const wrong = (trouble: string): { text: string; trouble: string } => ({ text: "", trouble });
  const fields = [`"source":${JSON.stringify(form.source)}`];
  const { kind, data } = form;
  if (kind === "json") {
    try {
      JSON.parse(data);
    } catch (error) {
      return wrong(`The data is not JSON: ${error instanceof Error ? error.message : String(error)}. Text stands in quotes: "warm"`);
    }
    fields.push(`"data":${data.trim()}`);
  } else if (kind === "deleted") {
    fields.push('"deleted":true');
  } else {
    const bytes = new TextEncoder().encode(data);
    const base64 = kind === "base64" ? data.replaceAll(/\s/g, "") : btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(""));
    fields.push(`"data_b64":${JSON.stringify(base64)}`);
  }
  for (const [name, text, title] of [
    ["ts", form.ts, "The timestamp"],
    ["ttl_ms", kind === "deleted" ? "" : form.ttl, "The time to live"],
  ] as const) {
    if (text.trim() !== "") {
      if (!/^\d{1,16}$/.test(text.trim())) {
        return wrong(`${title} is a whole number.`);
      }
      fields.push(`"${name}":${text.trim()}`);
    }
  }
  return { text: `{${fields.join(",")}}`, trouble: "" };
}
