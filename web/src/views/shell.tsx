import type { FunctionComponent } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { figures, link } from "../app";
import { askForToken, auth, useToken } from "../net/auth";
import { useStore } from "../net/store";
import licences from "../licences.txt?url";
import { Choice } from "../ui/bits";
import { duration } from "../ui/format";
import { Frames } from "../ui/frames";
import { hrefOf, place } from "../ui/router";
import { apply, theme } from "../ui/theme";
import { Cluster } from "./cluster";
import { Extend } from "./extend";
import { Flow } from "./flow";
import { Listen } from "./listen";
import { Login } from "./login";
import { Publish } from "./publish";
import { Sources } from "./sources";

const VIEWS: readonly { view: string; title: string; hint: string; component: FunctionComponent }[] = [
  { view: "cluster", title: "Cluster", hint: "members and rates", component: Cluster },
  { view: "sources", title: "Sources", hint: "tree, values, histories", component: Sources },
  { view: "publish", title: "Publish", hint: "send a record", component: Publish },
  { view: "listen", title: "Subscribe", hint: "frames as they come", component: Listen },
  { view: "flow", title: "Flow", hint: "propagation, refusals", component: Flow },
  { view: "extend", title: "Extend", hint: "pull, rules, archives, hooks", component: Extend },
];

export function Shell() {
  const { view } = useStore(place);
  const { isAsking } = useStore(auth);
  const main = useRef<HTMLElement>(null);
  const isFirst = useRef(true);
  const current = VIEWS.find((one) => one.view === view) ?? VIEWS[0]!;
  const View = current.component;

  useEffect(() => {
    document.title = `${current.title} · aNode`;
    // Who goes on by keyboard or screen reader begins at the new view.
    if (!isFirst.current) {
      main.current?.focus();
    }
    isFirst.current = false;
  }, [current]);
  useShortcuts();

  return (
    <>
      <a class="skip" href="#main" onClick={(event) => (event.preventDefault(), main.current?.focus())}>
        Skip to the content
      </a>
      <header class="bar">
        <a class="brand" href={hrefOf("cluster")} aria-label="aNode: the cluster">
          <Mark />
          aNode
        </a>
        <Connection />
        <div class="bar-end">
          <TokenButton />
          <ThemeSwitch />
        </div>
      </header>
      <nav class="rail" aria-label="Views">
        {VIEWS.map((one, at) => (
          <a key={one.view} href={hrefOf(one.view)} aria-current={one === current ? "page" : undefined}>
            <span class="rail-title">{one.title}</span>
            <span class="rail-hint">{one.hint}</span>
            <kbd aria-hidden="true">{at + 1}</kbd>
          </a>
        ))}
        <div class="rail-foot">
          <Frames />
          <a href={licences}>Licences</a>
        </div>
      </nav>
      <main ref={main} id="main" tabIndex={-1}>
        <Notice />
        <View />
      </main>
      {isAsking && <Login />}
    </>
  );
}

/** The digits choose a view, and `/` the search, while nobody writes. */
function useShortcuts(): void {
  useEffect(() => {
    const handle = (event: KeyboardEvent): void => {
      const target = event.target as HTMLElement;
      if (event.ctrlKey || event.metaKey || event.altKey || target.closest("input, textarea, select, dialog") !== null) {
        return;
      }
      const chosen = VIEWS[Number(event.key) - 1];
      if (chosen !== undefined) {
        location.hash = hrefOf(chosen.view);
      } else if (event.key === "/") {
        event.preventDefault();
        location.hash = hrefOf("sources");
        setTimeout(() => document.querySelector<HTMLInputElement>("#search")?.focus(), 60);
      }
    };
    addEventListener("keydown", handle);
    return () => removeEventListener("keydown", handle);
  }, []);
}

function Mark() {
  return (
    <svg class="mark" viewBox="0 0 32 32" aria-hidden="true">
      <circle class="orbit" cx="16" cy="16" r="10.5" />
      <circle cx="16" cy="16" r="4" />
      <circle cx="25" cy="10.5" r="3" />
      <circle cx="7" cy="10.5" r="3" />
      <circle cx="16" cy="26.5" r="3" />
    </svg>
  );
}

function Connection() {
  const { phase, node, host, trouble } = useStore(link.state);
  const said = {
    open: "connected to",
    connecting: "connecting to",
    searching: "looking for a node, last was",
    refused: "not subscribed at",
  }[phase];
  return (
    <p class={`connection ${phase}`} role="status" data-phase={phase} data-node={node} title={trouble}>
      <i class="lamp" aria-hidden="true" />
      <span class="connection-said">{said}</span> <b>{node === "" ? host : node}</b> {node !== "" && <span class="address">{host}</span>}
    </p>
  );
}

/** Says what happened to the connection, and what can be done. */
function Notice() {
  const { phase, trouble, movedFrom, elsewhere, node } = useStore(link.state);
  const { query } = useStore(place);
  const [isHidden, setHidden] = useState(false);
  const [lostAt, setLostAt] = useState(0);
  const { readings } = useStore(figures.store);
  useEffect(() => setLostAt(phase === "searching" ? Date.now() : 0), [phase]);
  useEffect(() => setHidden(false), [movedFrom, phase]);
  const from = movedFrom === "" ? (query.get("from") ?? "") : movedFrom;

  if (phase === "searching" || phase === "refused") {
    const others = link.hosts.all().filter((member) => member.http !== location.host);
    const age = (Date.now() - (readings.at(-1)?.at ?? Date.now() / 1_000) * 1_000) / 1_000;
    return (
      <div class="notice bad" role="alert" data-lost={lostAt}>
        <p>
          {trouble} {age > 5 && `What is shown is ${duration(age)} old.`}
        </p>
        {phase === "searching" && others.length > 0 && (
          <p>
            {elsewhere === "" ? "Other members are being tried. Their pages: " : "Other members answer, but let only their own pages connect: "}
            {others.slice(0, 6).map((member) => (
              <a key={member.http} href={`${location.protocol}//${member.http}/${location.hash}`}>
                {member.id} <span class="address">{member.http}</span>
              </a>
            ))}
          </p>
        )}
        <button type="button" onClick={() => (phase === "searching" ? link.hurry() : askForToken(""))}>
          {phase === "searching" ? "Try now" : "Give a token"}
        </button>
      </div>
    );
  }
  if (from !== "" && from !== node && !isHidden) {
    return (
      <div class="notice" role="status" data-moved-from={from}>
        <p>
          <b>{from}</b> stopped answering. This page goes on at <b>{node}</b>.
        </p>
        <button type="button" onClick={() => setHidden(true)}>
          Dismiss
        </button>
      </div>
    );
  }
  return null;
}

function TokenButton() {
  const { token } = useStore(auth);
  return token === null ? (
    <button type="button" class="quiet" onClick={() => askForToken("")}>
      Sign in
    </button>
  ) : (
    <button
      type="button"
      class="quiet"
      onClick={() => {
        useToken(null);
        link.restart();
      }}
    >
      Sign out
    </button>
  );
}

function ThemeSwitch() {
  const chosen = useStore(theme);
  return (
    <Choice
      label="Colours"
      options={[
        ["light", "Light"],
        ["system", "Auto"],
        ["dark", "Dark"],
      ]}
      value={chosen}
      onChange={apply}
    />
  );
}
