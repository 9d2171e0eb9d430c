import type { Member } from "../net/types";
import { duration } from "./format";

/** Size of the picture, in its own units. */
const SIZE = 420;
const CENTRE = SIZE / 2;
/** Room for the names of zones on either side. */
const SIDE = 36;
/** Distance of the innermost and the outermost place of a member from the centre. */
const [NEAR, FAR] = [56, 168];
/** Members up to which names are written. */
const NAMED_MAX = 24;

/** Members beyond this distance have their names on the inner side, where there is room. */
const NAME_INSIDE = 120;

interface Dot {
  member: Member;
  x: number;
  y: number;
  angle: number;
}

/** The distance that stands for a round trip: each ten times as much is a step further out. */
function radius(rtt_us: number | null): number {
  const step = Math.log10(Math.max(rtt_us ?? 100_000, 50) / 50) / Math.log10(100_000 / 50);
  return NEAR + (FAR - NEAR) * Math.min(1, step);
}

/** The members around this node. Those of a zone are neighbours; the distance is the round trip. */
export function Radar({ members, self }: { members: Member[]; self: string }) {
  const others = members
    .filter((member) => member.id !== self && member.state !== "left")
    .sort((a, b) => a.zone.localeCompare(b.zone) || a.id.localeCompare(b.id, "en", { numeric: true }));
  const dots: Dot[] = others.map((member, at) => {
    const angle = -Math.PI / 2 + ((at + 0.5) / others.length) * 2 * Math.PI;
    const far = radius(member.rtt_us);
    return { member, angle, x: CENTRE + far * Math.cos(angle), y: CENTRE + far * Math.sin(angle) };
  });
  const own = members.find((member) => member.id === self);
  const alive = others.filter((member) => member.state === "alive").length;
  return (
    <svg class="radar" viewBox={`${-SIDE} 0 ${SIZE + 2 * SIDE} ${SIZE}`} role="img" aria-label={`${self} and ${others.length} other members, ${alive} of them alive. The table lists them.`}>
      {[100, 1_000, 10_000, 100_000].map((rtt) => (
        <g key={rtt} class="ring">
          <circle cx={CENTRE} cy={CENTRE} r={radius(rtt)} />
          <text x={CENTRE} y={CENTRE - radius(rtt) - 3}>
            {duration(rtt / 1e6)}
          </text>
        </g>
      ))}
      {zones(dots).map((zone) => (
        <g key={zone.name} class="zone">
          <path d={arc(zone.from, zone.to, FAR + 17)} />
          <ZoneName name={zone.name} angle={(zone.from + zone.to) / 2} />
        </g>
      ))}
      {dots.map(({ member, x, y }) => (
        <line key={`to ${member.id}`} class={`spoke ${member.state}`} x1={CENTRE} y1={CENTRE} x2={x} y2={y} />
      ))}
      {dots.map(({ member, x, y }) => (
        <g key={member.id} class={`dot ${member.state}`}>
          <circle cx={x} cy={y} r={others.length > NAMED_MAX ? 4 : 7} />
          {others.length <= NAMED_MAX && (
            <text x={x} y={y + ((y > CENTRE) === (radius(member.rtt_us) < NAME_INSIDE) ? 21 : -13)}>
              {member.id}
            </text>
          )}
        </g>
      ))}
      <g class={`dot self ${own?.state ?? ""}`}>
        <circle cx={CENTRE} cy={CENTRE} r="11" />
        <text x={CENTRE} y={CENTRE + 27}>
          {self}
        </text>
      </g>
    </svg>
  );
}

function ZoneName({ name, angle }: { name: string; angle: number }) {
  const [x, y] = [Math.cos(angle), Math.sin(angle)];
  const side = Math.abs(x) < 0.3 ? "middle" : x > 0 ? "start" : "end";
  return (
    <text class={side} x={CENTRE + (FAR + 24) * x} y={CENTRE + (FAR + 26) * y}>
      {name}
    </text>
  );
}

/** The arcs of the zones that have a name. */
function zones(dots: Dot[]): { name: string; from: number; to: number }[] {
  const found = new Map<string, { name: string; from: number; to: number }>();
  const half = Math.PI / Math.max(dots.length, 1) - 0.05;
  for (const { member, angle } of dots) {
    if (member.zone !== "") {
      const zone = found.get(member.zone) ?? { name: member.zone, from: angle - half, to: angle };
      found.set(member.zone, { ...zone, to: angle + half });
    }
  }
  return [...found.values()];
}

function arc(from: number, to: number, far: number): string {
  const at = (angle: number): string => `${(CENTRE + far * Math.cos(angle)).toFixed(1)} ${(CENTRE + far * Math.sin(angle)).toFixed(1)}`;
  return `M ${at(from)} A ${far} ${far} 0 ${to - from > Math.PI ? 1 : 0} 1 ${at(to)}`;
}
