import { ask } from "./api";
import { askForToken, auth, subprotocols } from "./auth";
import { Hosts } from "./hosts";
import { Store } from "./store";
import type { AnodeRecord, Greeting, WireError } from "./types";
import { Watches } from "./watches";

/** Milliseconds for a node to greet before another one is tried. */
const GREETING_MS = 5_000;
/** Milliseconds for a node to answer a request that tells why it cannot be connected to. */
const STATUS_MS = 2_500;
/** Longest wait between two rounds over all nodes, in milliseconds. */
const WAIT_MS_MAX = 10_000;
/** Rounds over all nodes after which the page moves to a node that does not let it connect from here. */
const ROUNDS_BEFORE_MOVE = 2;
/** Milliseconds until it is tried again whether a token may subscribe. */
const REFUSED_MS = 30_000;

export type Phase = "connecting" | "open" | "searching" | "refused";

export interface LinkState {
  phase: Phase;
  /** Address of the node that is asked, `host:port`. */
  host: string;
  /** Name of this node, as it greeted. */
  node: string;
  /** What keeps the page from being connected. */
  trouble: string;
  /** The node before this one, which stopped answering; empty if there was none. */
  movedFrom: string;
  /** A node that is there, but lets only its own page connect. */
  elsewhere: string;
}

/** Anything that a node sends on `/subscribe`. */
interface Frame {
  connected?: Greeting;
  id?: number;
  result?: { subscription: number };
  error?: WireError;
  eos?: { subscription: number };
  source?: string;
}

/**
 * The connection of the page to one node of the cluster. If the node ends, the link goes on at another member: first
 * by connecting to it from here, which the member allows if its `--allow-origin` names this page; otherwise by moving
 * the whole page to the member, because every node serves the page.
 */
export class Link {
  readonly state: Store<LinkState>;
  readonly hosts = new Hosts();
  readonly watches = new Watches((frame) => this.#send(frame));
  #socket: WebSocket | null = null;
  #round = 0;
  #timer = 0;

  constructor(private readonly move: (host: string, from: string) => void) {
    this.state = new Store<LinkState>({
      phase: "connecting",
      host: location.host,
      node: "",
      trouble: "",
      movedFrom: "",
      elsewhere: "",
    });
  }

  /** Connects, at first to the node that served the page. */
  start(): void {
    this.#connect(this.state.value.host);
    // A browser may have frozen the page, or the machine may have slept.
    addEventListener("online", () => this.hurry());
    document.addEventListener("visibilitychange", () => document.hidden || this.hurry());
  }

  /** Connects anew, as after a change of the token. */
  restart(): void {
    this.#close();
    this.#round = 0;
    this.#connect(this.state.value.host);
  }

  /** Tries again at once what waits for its turn. */
  hurry(): void {
    if (this.state.value.phase === "searching") {
      this.#connect(this.state.value.host);
    }
  }

  #close(): void {
    clearTimeout(this.#timer);
    const socket = this.#socket;
    this.#socket = null;
    socket?.close();
    this.watches.handleClosed();
  }

  #connect(host: string): void {
    this.#close();
    const scheme = location.protocol === "https:" ? "wss" : "ws";
    let socket: WebSocket;
    try {
      socket = new WebSocket(`${scheme}://${host}/subscribe?batch=true`, subprotocols());
    } catch {
      void this.#failed(host);
      return;
    }
    this.#socket = socket;
    this.#timer = window.setTimeout(() => {
      if (this.#socket === socket) {
        this.#close();
        void this.#failed(host);
      }
    }, GREETING_MS);
    socket.onmessage = (event: MessageEvent<string>) => {
      if (this.#socket === socket) {
        this.#receive(host, event.data);
      }
    };
    socket.onclose = (event) => {
      if (this.#socket === socket) {
        this.#close();
        this.#closed(host, event.code);
      }
    };
  }

  #receive(host: string, text: string): void {
    const frame = JSON.parse(text) as Frame | AnodeRecord[];
    if (Array.isArray(frame)) {
      for (const record of frame) {
        this.watches.handleRecord(record);
      }
    } else if (frame.source !== undefined) {
      this.watches.handleRecord(frame as AnodeRecord);
    } else if (frame.connected !== undefined) {
      this.#greeted(host, frame.connected);
    } else if (frame.id !== undefined) {
      this.watches.handleAnswer(frame.id, frame.result?.subscription ?? null, frame.error ?? null);
    }
  }

  #greeted(host: string, greeting: Greeting): void {
    clearTimeout(this.#timer);
    const before = this.state.value;
    const hasMoved = before.node !== "" && before.node !== greeting.node;
    this.#round = 0;
    const others = (greeting.members ?? []).filter((member) => member.id !== greeting.node);
    this.hosts.add([...others, { id: greeting.node, http: host }]);
    this.state.set({
      phase: "open",
      host,
      node: greeting.node,
      trouble: "",
      movedFrom: hasMoved ? before.node : before.movedFrom,
      elsewhere: "",
    });
    this.watches.handleOpen();
  }

  #closed(host: string, code: number): void {
    const wasOpen = this.state.value.phase === "open";
    if (code === 4001) {
      this.#refused("The node wants a token that is in force.");
      askForToken(auth.value.token === null ? "This node wants a token." : "The token is not in force any more.");
    } else if (code === 4003) {
      this.#refused("The token no longer allows what was subscribed to.");
    } else if (code === 4100 || code === 4101) {
      this.state.patch({ phase: "searching", trouble: "The node has no room for this page at the moment." });
      this.#later(() => this.#connect(host), WAIT_MS_MAX);
    } else if (wasOpen) {
      this.state.patch({ phase: "searching", trouble: `${this.#nameOf(host)} closed the connection.` });
      // The node may only be restarting: it is asked first.
      this.#later(() => this.#connect(host), 100 + Math.random() * 300);
    } else {
      void this.#failed(host);
    }
  }

  #refused(trouble: string): void {
    this.state.patch({ phase: "refused", trouble });
    this.#later(() => this.#connect(this.state.value.host), REFUSED_MS);
  }

  /** A node could not be connected to. Finds out why, and goes on to the next. */
  async #failed(host: string): Promise<void> {
    this.state.patch({ phase: "searching", trouble: `${this.#nameOf(host)} does not answer.` });
    const round = this.#round;
    if (host === location.host) {
      const status = await this.#statusOf(host);
      if (status === 401 || status === 403) {
        this.#refused(status === 401 ? "The node wants a token that is in force." : "This token may not subscribe.");
        if (status === 401) {
          askForToken(auth.value.token === null ? "This node wants a token." : "The token is not in force any more.");
        }
        return;
      }
      if (status === 200) {
        this.state.patch({ trouble: `${this.#nameOf(host)} answers requests, but lets no WebSocket through.` });
      }
    } else if (await isThere(host)) {
      this.state.patch({ elsewhere: host });
    }
    if (this.#socket !== null || this.#round !== round) {
      return;
    }
    const next = this.hosts.after(host);
    if (next !== null) {
      this.#connect(next);
      return;
    }
    this.hosts.beginRound();
    this.#round += 1;
    this.#moveIfNeeded();
    const wait = Math.random() * Math.min(WAIT_MS_MAX, 500 * 2 ** this.#round) + 200;
    this.#later(() => this.#connect(this.hosts.after(null) ?? location.host), wait);
  }

  /** What the node of this page answers to a reader; 0 if it does not answer. */
  async #statusOf(host: string): Promise<number> {
    const late = new Promise<number>((resolve) => setTimeout(resolve, STATUS_MS, 0));
    const asked = ask(host, "/v1/sources?limit=1").then(
      ({ status }) => status,
      () => 0,
    );
    return Promise.race([asked, late]);
  }

  #moveIfNeeded(): void {
    const { elsewhere, node } = this.state.value;
    // With a token, the user decides: at the other node it must be entered again, and nobody should do that without
    // having looked at the address.
    if (elsewhere !== "" && this.#round >= ROUNDS_BEFORE_MOVE && auth.value.token === null) {
      this.move(elsewhere, node);
    }
  }

  #later(then: () => void, ms: number): void {
    clearTimeout(this.#timer);
    this.#timer = window.setTimeout(then, ms);
  }

  #nameOf(host: string): string {
    return this.hosts.nameOf(host) ?? host;
  }

  #send(frame: object): boolean {
    const socket = this.#socket;
    if (socket?.readyState !== WebSocket.OPEN || this.state.value.phase !== "open") {
      return false;
    }
    socket.send(JSON.stringify(frame));
    return true;
  }
}

/** Whether something answers at a host, although this page may not read what. */
async function isThere(host: string): Promise<boolean> {
  try {
    await fetch(`${location.protocol}//${host}/healthz`, {
      mode: "no-cors",
      cache: "no-store",
      credentials: "omit",
      signal: AbortSignal.timeout(2_000),
    });
    return true;
  } catch {
    return false;
  }
}
