/** A record as subscribers and readers get it. Exactly one of `data`, `data_b64` and `deleted` is there. */
export interface AnodeRecord {
  source: string;
  /** Microseconds since the Unix epoch. */
  ts: number;
  origin: string;
  data?: unknown;
  data_b64?: string;
  deleted?: true;
}

export interface RecordPage {
  records: AnodeRecord[];
  after: string | null;
}

export interface Member {
  id: string;
  state: "joining" | "alive" | "suspect" | "dead" | "left";
  /** Address for clients. */
  http: string;
  gossip: string;
  zone: string;
  incarnation: number;
  /** Number of the life; the time of the start in milliseconds, if the clock was right. */
  boot: number;
  version: string;
  rtt_us: number | null;
  keys?: { seals: string | null; opens: string[]; phase: string };
}

export interface GreetedMember {
  id: string;
  http: string;
}

/** The first frame of a connection. */
export interface Greeting {
  node: string;
  session: string;
  max_record_bytes: number;
  max_frame_bytes: number;
  members?: GreetedMember[];
}

export interface WireError {
  code: string;
  message: string;
  temporary?: boolean;
  applied?: boolean;
  ts?: number;
}

export interface PublishResult {
  ts: number;
  outcome: "applied" | "duplicate" | "stale";
  level: string;
  nodes?: number;
  current_ts?: number;
}
