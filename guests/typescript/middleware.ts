// A middleware in TypeScript: a template to begin from. It does what the template in Rust does: temperatures in
// degrees Fahrenheit, {"f": 70.5}, become degrees Celsius; what no thermometer shows is rejected, and what is hot is
// published a second time below alarms/.

type Payload = { tag: "json"; val: string } | { tag: "binary"; val: Uint8Array };
interface DataRecord {
  source: string;
  ts?: bigint;
  payload: Payload;
  ttlMs: bigint;
}
type Verdict =
  | { tag: "pass" }
  | { tag: "replace"; val: DataRecord }
  | { tag: "many"; val: DataRecord[] }
  | { tag: "drop" }
  | { tag: "reject"; val: string };

export function handle(input: DataRecord): Verdict {
  if (input.payload.tag !== "json") {
    return { tag: "pass" };
  }
  const data = JSON.parse(input.payload.val) as { f?: unknown } | null;
  if (typeof data !== "object" || data === null) {
    return { tag: "reject", val: "data is not an object" };
  }
  const { f, ...rest } = data;
  if (typeof f !== "number") {
    return { tag: "pass" };
  }
  const c = Math.round(((f - 32) / 1.8) * 10) / 10;
  if (c < -90 || c >= 1000) {
    return { tag: "reject", val: `${c} °C is no temperature` };
  }
  const record: DataRecord = { ...input, payload: { tag: "json", val: JSON.stringify({ ...rest, c }) } };
  if (c <= 60) {
    return { tag: "replace", val: record };
  }
  return { tag: "many", val: [record, { ...record, source: `alarms/${record.source}` }] };
}
