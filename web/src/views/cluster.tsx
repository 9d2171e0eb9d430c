import { useState } from "preact/hooks";
import { figures, link } from "../app";
import type { Figures, Reading } from "../model/figures";
import { total } from "../net/metrics";
import { useStore } from "../net/store";
import type { Member } from "../net/types";
import { Empty, Panel, Readout } from "../ui/bits";
import { bytes, duration, short, whole } from "../ui/format";
import { Plot } from "../ui/plot";
import { Radar } from "../ui/radar";
import { Spark } from "../ui/spark";

/** What the list of members shows of each node that lets the page read it. */
const RATES = [
  ["published", "In /s"],
  ["applied", "Applied /s"],
  ["delivered", "Out /s"],
] as const;

const STATES = ["alive", "suspect", "joining", "dead", "left"] as const;

type Rate = "published" | "applied" | "delivered" | "copies" | "gossipBytes";

/** The cluster at a glance, as the connected node sees it. */
export function Cluster() {
  const all = useStore(figures.store);
  const { node } = useStore(link.state);
  if (all.metrics === null) {
    return (
      <div class="view">
        <h1>Cluster</h1>
        <Empty>{all.trouble === "" ? "The figures are being read." : all.trouble}</Empty>
      </div>
    );
  }
  return (
    <div class="view cluster">
      <h1 class="unseen">Cluster</h1>
      {all.trouble !== "" && <p class="trouble">{all.trouble}</p>}
      <Readouts all={all} />
      <div class="pair">
        <Panel title="Members" class="members" aside={<AskOthers />}>
          <Members all={all} self={node} />
        </Panel>
        <Panel title="Round trips" class="round-trips" aside={<span class="note">from {node}, logarithmic</span>}>
          <Radar members={all.members} self={node} />
          <p class="legend">
            {STATES.map((state) => [state, all.members.filter((member) => member.state === state).length] as const)
              .filter(([state, count]) => count > 0 || state === "alive")
              .map(([state, count]) => (
                <span key={state}>
                  {state} <b>{count}</b>
                </span>
              ))}
          </p>
        </Panel>
        <Panel title="Records a second" class="rates" aside={<span class="note">at {node}, the last ten minutes</span>}>
          <Rates readings={all.readings} />
        </Panel>
      </div>
    </div>
  );
}

function Readouts({ all }: { all: Figures }) {
  const { members, metrics, readings } = all;
  const last = readings.at(-1)!;
  const course = (rate: Rate) => readings.map((one) => one[rate]);
  const present = members.filter((member) => member.state !== "left");
  const alive = present.filter((member) => member.state === "alive").length;
  const zones = new Set(present.map((member) => member.zone).filter((zone) => zone !== "")).size;
  const isStoreUp = total(metrics!, "anode_store_up") === 1;
  const offset = total(metrics!, "anode_clock_offset_seconds") ?? 0;
  const fromPeers = Math.max(0, (last.applied ?? 0) - (last.published ?? 0));
  const perRecord = last.copies !== null && fromPeers > 0.5 ? last.copies / fromPeers : null;
  return (
    <div class="readouts">
      <dl>
        <Readout
          label="Members alive"
          value={whole(alive)}
          unit={`of ${present.length}`}
          tone={alive === present.length ? "good" : "bad"}
          note={zones === 0 ? "no zones" : zones === 1 ? "1 zone" : `${zones} zones`}
        />
        <Readout
          label="Shards differing"
          value={whole(last.differing)}
          tone={last.differing === 0 ? "good" : "warn"}
          note={last.differing === 0 ? "maps agree" : "being repaired"}
        />
        <Readout
          label="Store"
          value={isStoreUp ? "up" : "down"}
          tone={isStoreUp ? "good" : "bad"}
          note={`${whole(last.pending)} records wait`}
        />
        <Readout label="Sources" value={short(last.sources)} note={`${bytes(total(metrics!, "anode_map_bytes") ?? 0)} in the map`} />
        <Readout
          label="Clock"
          value={`${offset < 0 ? "−" : "+"}${duration(Math.abs(offset)).split(" ")[0]}`}
          unit={duration(Math.abs(offset)).split(" ")[1] ?? ""}
          tone={Math.abs(offset) > 1 ? "bad" : ""}
          note="off the members' median"
        />
      </dl>
      <dl>
        <Readout label="In from clients" value={short(last.published)} unit="/s" note="records published here">
          <Spark values={course("published")} tone="one" />
        </Readout>
        <Readout label="Applied" value={short(last.applied)} unit="/s" note="from clients and members">
          <Spark values={course("applied")} tone="two" />
        </Readout>
        <Readout label="Out to subscribers" value={short(last.delivered)} unit="/s" note={`${whole(last.connections)} connections`}>
          <Spark values={course("delivered")} tone="three" />
        </Readout>
        <Readout
          label="Copies from members"
          value={short(last.copies)}
          unit="/s"
          note={perRecord === null ? "redundant ones included" : `${perRecord.toFixed(2)} a record`}
        >
          <Spark values={course("copies")} />
        </Readout>
      </dl>
    </div>
  );
}

function AskOthers() {
  const [isOn, setOn] = useState(figures.asksOthers);
  return (
    <label class="check" title="Works where --allow-origin of the other nodes names this page.">
      <input
        type="checkbox"
        checked={isOn}
        onChange={() => {
          figures.asksOthers = !isOn;
          setOn(!isOn);
        }}
      />
      figures of all nodes
    </label>
  );
}

function Members({ all, self }: { all: Figures; self: string }) {
  const sorted = [...all.members].sort((a, b) => a.zone.localeCompare(b.zone) || a.id.localeCompare(b.id, "en", { numeric: true }));
  const hasKeys = sorted.some((member) => member.keys !== undefined);
  const hasRates = all.others.size > 0;
  return (
    <div class="scroll" tabIndex={0} role="region" aria-label="Members">
      <table>
        <thead>
          <tr>
            <th scope="col">Member</th>
            <th scope="col">State</th>
            <th scope="col">Zone</th>
            <th scope="col" class="number">Round trip</th>
            {hasRates && RATES.map(([rate, title]) => (
              <th key={rate} scope="col" class="number">
                {title}
              </th>
            ))}
            <th scope="col">Clients at</th>
            <th scope="col" class="number">Up</th>
            <th scope="col">Version</th>
            {hasKeys && <th scope="col">Key</th>}
          </tr>
        </thead>
        <tbody>
          {sorted.map((member) => (
            <MemberRow
              key={member.id}
              member={member}
              isSelf={member.id === self}
              reading={member.id === self ? all.readings.at(-1) : all.others.get(member.id)}
              hasRates={hasRates}
              hasKeys={hasKeys}
            />
          ))}
        </tbody>
      </table>
    </div>
  );
}

function MemberRow(props: { member: Member; isSelf: boolean; reading: Reading | undefined; hasRates: boolean; hasKeys: boolean }) {
  const { member, isSelf, reading } = props;
  const isUp = member.state === "alive" || member.state === "suspect";
  return (
    <tr class={isSelf ? "self" : ""}>
      <th scope="row">
        {isSelf ? member.id : <a href={`${location.protocol}//${member.http}/`}>{member.id}</a>}
        {isSelf && <span class="note"> this one</span>}
      </th>
      <td>
        <span class={`state ${member.state}`}>{member.state}</span>
      </td>
      <td>{member.zone === "" ? "–" : member.zone}</td>
      <td class="number">{isSelf || member.rtt_us === null ? "–" : duration(member.rtt_us / 1e6)}</td>
      {props.hasRates && RATES.map(([rate]) => (
        <td key={rate} class="number">
          {short(reading?.[rate] ?? null)}
        </td>
      ))}
      <td class="address">{member.http}</td>
      <td class="number">{isUp ? upFor(member.boot) : "–"}</td>
      <td class="address">{member.version}</td>
      {props.hasKeys && <td class="address">{member.keys?.seals ?? "plain"}</td>}
    </tr>
  );
}

/** A boot number is the time of the start in milliseconds, unless the clock was wrong. */
function upFor(boot: number): string {
  const seconds = (Date.now() - boot) / 1_000;
  return boot > 1e12 && seconds >= 0 ? duration(Math.round(seconds)) : "–";
}

function Rates({ readings }: { readings: readonly Reading[] }) {
  const times = readings.map((one) => one.at);
  const lines = [
    { label: "in from clients", colour: "--series-1", values: readings.map((one) => one.published) },
    { label: "applied", colour: "--series-2", values: readings.map((one) => one.applied) },
    { label: "out to subscribers", colour: "--series-3", values: readings.map((one) => one.delivered) },
  ];
  const last = readings.at(-1);
  const told = `Records a second: ${short(last?.published ?? null)} in, ${short(last?.applied ?? null)} applied, ${short(last?.delivered ?? null)} out.`;
  return <Plot times={times} lines={lines} height={190} fromZero describes={told} />;
}
