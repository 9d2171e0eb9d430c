import { subprotocols } from "./auth";
import { Store } from "./store";

/** Most frames that are kept; older ones are dropped. */
const FRAMES_KEPT = 5_000;
/** Most characters of a frame that are kept. */
const CHARACTERS_KEPT = 4_000;

export interface TestFrame {
  /** Number of the frame since the connection was opened. */
  number: number;
  at: number;
  kind: "sent" | "record" | "batch" | "eos" | "resume" | "answer" | "error" | "greeting" | "state";
  text: string;
  bytes: number;
}

export interface TestState {
  isOpen: boolean;
  frames: number;
  records: number;
  bytes: number;
  /** Frames of the last second. */
  perSecond: number;
  token: string;
}

const NOTHING: TestState = { isOpen: false, frames: 0, records: 0, bytes: 0, perSecond: 0, token: "" };

export interface TestOptions {
  sources: string[];
  mode: string;
  snapshot: boolean;
  batch: boolean;
  resume: string;
  /** An expression that says which records are wanted; empty for all. */
  filter: string;
}

/** A connection to `/subscribe` of which every frame is kept to be looked at. */
export class Tester {
  readonly state = new Store<TestState>(NOTHING);
  /** The frames that are kept, oldest first. */
  frames: TestFrame[] = [];
  #socket: WebSocket | null = null;
  #count = { ...NOTHING };
  #recent: number[] = [];
  #frame = 0;

  start(host: string, options: TestOptions): void {
    this.stop();
    this.frames = [];
    this.#count = { ...NOTHING, isOpen: true };
    const query = new URLSearchParams({ mode: options.mode, batch: String(options.batch) });
    const socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${host}/subscribe?${query}`, subprotocols());
    this.#socket = socket;
    this.#keep("state", `WebSocket ${socket.url}`);
    socket.onopen = () => {
      const { sources, snapshot, resume, filter } = options;
      const asked = { sources, snapshot, ...(resume === "" ? {} : { resume }), ...(filter === "" ? {} : { filter }) };
      const request = JSON.stringify({ id: 1, subscribe: asked });
      socket.send(request);
      this.#keep("sent", request);
    };
    socket.onmessage = (event: MessageEvent<string>) => this.#received(event.data);
    socket.onclose = ({ code, reason }) => {
      if (this.#socket === socket) {
        this.#socket = null;
        this.#count.isOpen = false;
        this.#keep("state", code === 1006 ? "the connection was refused or lost (1006)" : `closed: ${code} ${reason}`);
      }
    };
  }

  stop(): void {
    const socket = this.#socket;
    this.#socket = null;
    if (socket !== null) {
      socket.close(1000);
      this.#count.isOpen = false;
      this.#keep("state", "closed by this page");
    }
  }

  clear(): void {
    this.frames = [];
    this.#soon();
  }

  #received(text: string): void {
    const kind = kindOf(text);
    if (kind === "record") {
      this.#count.records += 1;
    } else if (kind === "batch") {
      this.#count.records += (JSON.parse(text) as unknown[]).length;
    } else if (kind === "eos" || kind === "resume") {
      const told = JSON.parse(text) as { eos?: { resume: string }; resume?: string };
      this.#count.token = told.eos?.resume ?? told.resume ?? this.#count.token;
    }
    this.#keep(kind, text);
  }

  #keep(kind: TestFrame["kind"], text: string): void {
    this.#count.frames += 1;
    this.#count.bytes += kind === "state" ? 0 : text.length;
    const kept = text.length > CHARACTERS_KEPT ? `${text.slice(0, CHARACTERS_KEPT)}…` : text;
    this.frames.push({ number: this.#count.frames, at: Date.now(), kind, text: kept, bytes: text.length });
    if (this.frames.length > FRAMES_KEPT * 1.2) {
      this.frames = this.frames.slice(-FRAMES_KEPT);
    }
    this.#recent.push(performance.now());
    this.#soon();
  }

  /** Tells who watches about all that came, once a frame. */
  #soon(): void {
    this.#frame ||= requestAnimationFrame(() => {
      this.#frame = 0;
      const now = performance.now();
      this.#recent = this.#recent.filter((at) => now - at <= 1_000);
      this.state.set({ ...this.#count, perSecond: this.#recent.length });
    });
  }
}

function kindOf(text: string): TestFrame["kind"] {
  for (const [beginning, kind] of [
    ['{"source"', "record"],
    ["[", "batch"],
    ['{"eos"', "eos"],
    ['{"resume"', "resume"],
    ['{"connected"', "greeting"],
  ] as const) {
    if (text.startsWith(beginning)) {
      return kind;
    }
  }
  return text.includes('"error":') ? "error" : "answer";
}
