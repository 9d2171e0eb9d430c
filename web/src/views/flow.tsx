import { useState } from "preact/hooks";
import { figures, link } from "../app";
import { type Bucket, buckets, countOf, quantile } from "../model/histogram";
import { refusals } from "../model/refusals";
import type { Metrics } from "../net/metrics";
import { useStore } from "../net/store";
import { Choice, Empty, Panel } from "../ui/bits";
import { bound, duration, short, whole } from "../ui/format";

const NAME = "anode_propagation_seconds";

/** How long records take, and what was refused. */
export function Flow() {
  const { metrics, first, since, trouble } = useStore(figures.store);
  const { node } = useStore(link.state);
  const [span, setSpan] = useState<"page" | "node">("page");
  if (metrics === null) {
    return (
      <div class="view">
        <h1>Flow</h1>
        <Empty>{trouble === "" ? "The figures are being read." : trouble}</Empty>
      </div>
    );
  }
  const found = buckets(metrics, NAME, span === "page" ? first : null);
  return (
    <div class="view flow">
      <h1 class="unseen">Flow</h1>
      <Panel
        title="Propagation"
        aside={
          <Choice
            label="Records"
            options={[
              ["page", "since this page looks"],
              ["node", "since the node's start"],
            ]}
            value={span}
            onChange={setSpan}
          />
        }
      >
        <p class="note">
          Time from the acceptance of a record at its origin until {node} has applied it, by the clocks of the two nodes
          {span === "page" && `, in the last ${duration(Math.max(1, Math.round(Date.now() / 1_000 - since)))}`}.
        </p>
        {countOf(found) === 0 ? <Empty>No record has come from another member in this time.</Empty> : <Distribution found={found} />}
      </Panel>
      <Refused metrics={metrics} first={first} />
    </div>
  );
}

function Distribution({ found }: { found: Bucket[] }) {
  const all = countOf(found);
  const used = found.filter((bucket) => bucket.count > 0);
  const from = Math.max(0, found.indexOf(used[0]!) - 1);
  const shown = found.slice(from, found.indexOf(used.at(-1)!) + 2);
  const most = Math.max(...shown.map((bucket) => bucket.count));
  return (
    <>
      <dl class="quantiles">
        {[0.5, 0.9, 0.99, 0.999].map((share) => (
          <div key={share}>
            <dt>{share === 0.5 ? "median" : `${share * 100} %`}</dt>
            <dd>{duration(quantile(found, share))}</dd>
          </div>
        ))}
        <div>
          <dt>records</dt>
          <dd>{short(all)}</dd>
        </div>
      </dl>
      <table class="bars">
        <caption class="unseen">Records by the time that they took</caption>
        <thead class="unseen">
          <tr>
            <th scope="col">Up to</th>
            <th scope="col">Share</th>
            <th scope="col">Records</th>
          </tr>
        </thead>
        <tbody>
          {shown.map((bucket) => (
            <tr key={bucket.to}>
              <th scope="row">{bucket.to === Infinity ? `> ${bound(bucket.from)}` : `≤ ${bound(bucket.to)}`}</th>
              <td>
                <span class="share-bar" style={{ width: `${(bucket.count / most) * 100}%` }} />
                <span class="share">{bucket.count === 0 ? "" : `${((bucket.count / all) * 100).toFixed(1)} %`}</span>
              </td>
              <td class="number">{whole(bucket.count)}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </>
  );
}

function Refused({ metrics, first }: { metrics: Metrics; first: Metrics | null }) {
  const found = refusals(metrics, first);
  return (
    <Panel title="Refused, cut and left out" aside={<span class="note">what happened since this page looks comes first</span>}>
      {found.length === 0 ? (
        <Empty>This node has refused nothing since its start.</Empty>
      ) : (
        <div class="scroll" tabIndex={0} role="region" aria-label="What was refused">
          <table class="refused">
            <thead>
              <tr>
                <th scope="col">What</th>
                <th scope="col">Why</th>
                <th scope="col" class="number">New</th>
                <th scope="col" class="number">In all</th>
                <th scope="col">Counted in</th>
              </tr>
            </thead>
            <tbody>
              {found.map((one) => (
                <tr key={one.key} class={one.fresh > 0 ? "fresh" : ""}>
                  <th scope="row">{one.what}</th>
                  <td>
                    {one.cause !== "" && <code>{one.cause}</code>} <span class="why">{one.why}</span>
                  </td>
                  <td class="number">{one.fresh === 0 ? "–" : `+${whole(one.fresh)}`}</td>
                  <td class="number">{whole(one.total)}</td>
                  <td class="address">{one.key.split(" ")[0]}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
    </Panel>
  );
}
