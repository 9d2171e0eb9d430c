import { useEffect, useState } from "preact/hooks";
import { link } from "../app";
import { Problem } from "../net/api";
import { askForToken, auth } from "../net/auth";
import { type Extension, type ExtensionKind, KINDS, extensions, putExtension, removeExtension } from "../net/extend";
import { useStore } from "../net/store";
import { Choice, Empty, Panel } from "../ui/bits";
import { hrefOf } from "../ui/router";

/** Milliseconds between two looks at what there is. */
const LOOK_MS = 2_000;

const SAID: Readonly<Record<ExtensionKind, { title: string; what: string; example: string }>> = {
  pull: {
    title: "Pull sources",
    what: "Other places from which the cluster fetches. One member does so for each, and another one when that member dies.",
    example: 'kind = "http"\nevery = "5s"\nurl = "https://api.example/weather"\nrecords = [ { source = "weather/{/city}", pointer = "/current" } ]\n',
  },
  middleware: {
    title: "Middlewares",
    what: "Rules for records on their way in, at every member.",
    example: 'on = "sensors/*/temp"\ncel = "data < -273.15 ? reject(\'colder than possible\') : data"\n',
  },
  archive: {
    title: "Archives",
    what: "Copies of records outside the cluster.",
    example: 'kind = "s3"\nendpoint = "https://s3.example"\nbucket = "backup"\nevery = "1h"\npattern = "**"\nkeep = 24\n',
  },
  hook: {
    title: "Webhooks",
    what: "Addresses that are sent records as they come.",
    example: 'on = "alarms/**"\nurl = "https://chat.example/hook"\n',
  },
};

interface Found {
  byKind: Partial<Record<ExtensionKind, Extension[]>>;
  trouble: string;
}

/** What users added to the cluster, and a form to add more. */
export function Extend() {
  const { host, phase } = useStore(link.state);
  const { token } = useStore(auth);
  const [found, setFound] = useState<Found>({ byKind: {}, trouble: "" });
  const [turn, setTurn] = useState(0);
  useEffect(() => {
    let isOver = false;
    const look = async (): Promise<void> => {
      const next: Found = { byKind: {}, trouble: "" };
      for (const kind of KINDS) {
        try {
          next.byKind[kind] = await extensions(host, kind);
        } catch (error) {
          next.trouble = error instanceof Error ? error.message : String(error);
          break;
        }
      }
      if (!isOver) {
        setFound((before) => (next.trouble === "" ? next : { ...before, trouble: next.trouble }));
      }
    };
    void look();
    const timer = setInterval(() => void look(), LOOK_MS);
    return () => {
      isOver = true;
      clearInterval(timer);
    };
  }, [host, phase, token, turn]);

  return (
    <div class="view extend">
      <h1 class="unseen">Extend</h1>
      {found.trouble !== "" && (
        <p class="trouble" role="alert">
          {found.trouble}
        </p>
      )}
      {KINDS.map((kind) => (
        <Panel key={kind} title={SAID[kind].title} aside={<span class="note">{SAID[kind].what}</span>}>
          <Definitions kind={kind} all={found.byKind[kind]} onChange={() => setTurn((turn) => turn + 1)} />
        </Panel>
      ))}
      <Adding onChange={() => setTurn((turn) => turn + 1)} />
    </div>
  );
}

function Definitions({ kind, all, onChange }: { kind: ExtensionKind; all: Extension[] | undefined; onChange: () => void }) {
  const { host } = useStore(link.state);
  const [trouble, setTrouble] = useState("");
  if (all === undefined) {
    return <Empty>The definitions are being read.</Empty>;
  }
  if (all.length === 0) {
    return <Empty>There are none.</Empty>;
  }
  const remove = (name: string): void => {
    removeExtension(host, kind, name).then(
      () => (setTrouble(""), onChange()),
      (error: unknown) => setTrouble(explained(error)),
    );
  };
  return (
    <div class="scroll" tabIndex={0} role="group" aria-label={SAID[kind].title}>
      <table>
        <thead>
          <tr>
            <th scope="col">Name</th>
            <th scope="col">Runs at</th>
            <th scope="col">State</th>
            <th scope="col">Definition</th>
            <th scope="col">
              <span class="unseen">Actions</span>
            </th>
          </tr>
        </thead>
        <tbody>
          {all.map((one) => (
            <tr key={one.name} data-extension={`${kind}/${one.name}`} data-runner={one.runner ?? ""}>
              <th scope="row">
                <a href={hrefOf("sources", `$${kind}/${one.name}`)}>{one.name}</a>
              </th>
              <td>{one.runner ?? (kind === "middleware" ? "all members" : "none")}</td>
              <td class="why">
                {one.state?.error != null && <span class="trouble">{one.state.error} </span>}
                {one.runner === null && Object.entries(one.cannot).map(([member, reason]) => `${member}: ${reason} `)}
                <code>{facts(one)}</code>
              </td>
              <td>
                <details>
                  <summary>Show</summary>
                  <pre>{JSON.stringify(one.definition, null, 2)}</pre>
                </details>
              </td>
              <td>
                <button type="button" aria-label={`Remove ${kind} ${one.name}`} onClick={() => remove(one.name)}>
                  Remove
                </button>
              </td>
            </tr>
          ))}
        </tbody>
      </table>
      {trouble !== "" && (
        <p class="trouble" role="alert">
          {trouble}
        </p>
      )}
    </div>
  );
}

/** The fields of a state that are numbers or short texts, but for those that are shown elsewhere. */
function facts(one: Extension): string {
  const shown = Object.entries(one.state ?? {}).filter(
    ([field, value]) => !["runner", "since", "error"].includes(field) && value !== null && typeof value !== "object",
  );
  return shown.map(([field, value]) => `${field}=${String(value).slice(0, 60)}`).join(" ");
}

function explained(error: unknown): string {
  if (error instanceof Problem && error.status === 401) {
    askForToken("This needs the token of an admin.");
  }
  return error instanceof Error ? error.message : String(error);
}

/** Draft of the form, kept while another view is shown. */
const draft = { kind: "pull" as ExtensionKind, name: "", toml: SAID.pull.example };

function Adding({ onChange }: { onChange: () => void }) {
  const { host } = useStore(link.state);
  const [form, setForm] = useState({ ...draft });
  const [told, setTold] = useState({ text: "", isBad: false });
  const change = (fields: Partial<typeof draft>): void => {
    Object.assign(draft, form, fields);
    setForm({ ...draft });
    setTold({ text: "", isBad: false });
  };
  const choose = (kind: ExtensionKind): void => {
    const isUntouched = KINDS.some((other) => SAID[other].example === form.toml);
    change({ kind, toml: isUntouched ? SAID[kind].example : form.toml });
  };
  const submit = async (event: SubmitEvent): Promise<void> => {
    event.preventDefault();
    try {
      await putExtension(host, form.kind, form.name, form.toml);
      setTold({ text: `${form.kind} ${form.name} is stored.`, isBad: false });
      onChange();
    } catch (error) {
      setTold({ text: explained(error), isBad: true });
    }
  };
  return (
    <Panel title="Add or replace" aside={<span class="note">needs the rights of an admin</span>}>
      <form class="form" onSubmit={(event) => void submit(event)}>
        <Choice label="Kind" options={KINDS.map((kind) => [kind, SAID[kind].title] as const)} value={form.kind} onChange={choose} />
        <label>
          Name
          <input
            name="extension"
            required
            pattern="[A-Za-z0-9._\-]{1,63}"
            value={form.name}
            spellcheck={false}
            autocapitalize="none"
            autocomplete="off"
            onInput={(event) => change({ name: event.currentTarget.value })}
          />
        </label>
        <label>
          Definition (TOML)
          <textarea
            name="definition"
            rows={8}
            spellcheck={false}
            value={form.toml}
            onInput={(event) => change({ toml: event.currentTarget.value })}
          />
        </label>
        <div class="actions">
          <button type="submit" class="primary">
            Put
          </button>
          <p class={told.isBad ? "trouble" : "note"} role="status">
            {told.text}
          </p>
        </div>
      </form>
    </Panel>
  );
}
