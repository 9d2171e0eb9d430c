/** One WebSocket to one node: greeting, tokens, and whether the node is still there. */

import type { Access } from "./access.js";
import type { NodeUrl } from "./address.js";
import { AnodeError, type Refusal, closed, Lost, refusal, unavailable } from "./errors.js";
import { OPEN_MAX_MS, type Options, PING_MS_DEFAULT, PING_MS_MAX, SERVED_MS } from "./options.js";
import type { Platform, Socket } from "./platform.js";
import { base64url } from "./records.js";

/** The id of frames that bring a token. Publishes have numbers as ids. */
const AUTH_ID = "auth";
/** A token is renewed when a fifth of its life is left, or a minute if that is less. */
const RENEW_PART = 0.2;
const RENEW_BEFORE_MS = 60_000;
/** The shortest and the longest time before a token is renewed; timers of JavaScript count 31 bits. */
const RENEW_WAIT_MIN_MS = 1_000;
const RENEW_WAIT_MAX_MS = 86_400_000;

/** A message of a node. */
export interface Message {
  [field: string]: unknown;
  id?: unknown;
  error?: Refusal;
}

interface Greeting {
  ping_ms?: number;
  max_frame_bytes?: number;
  members?: { http: string }[];
}

/** Takes the messages of a link. What it throws ends the link. */
export type Handler = (text: string, message: Message) => void;

/** Brings a token by header field, by subprotocol, or in the first frame. */
export type Bring = "header" | "subprotocol" | "frame";

/** An open connection. `run` takes what comes until it is over. */
export class Link {
  members: string[] = [];
  maxFrameBytes: number | undefined;
  /** Tells whether the owner waits for something from the node. */
  awaits: () => boolean = () => true;
  private socket!: Socket;
  private handler: Handler | undefined;
  private readonly early: string[] = [];
  private refused: AnodeError | undefined;
  private readonly opened = Date.now();
  private heard = Date.now();
  private pingMs = PING_MS_DEFAULT;
  private isPaused = false;
  private isOver = false;
  private timers: ReturnType<typeof setTimeout>[] = [];
  private end!: (error: Error) => void;
  /** Is rejected when the connection is over. */
  private readonly over: Promise<never>;

  private constructor(
    private readonly node: NodeUrl,
    /** The token that the node knows. */
    public token: string | undefined,
    private readonly access: Access,
    private readonly options: Options,
  ) {
    this.over = new Promise((_, reject) => {
      this.end = (error) => {
        this.stop();
        reject(error);
      };
    });
    // Whoever runs the link is told; the connection may also end before or after that.
    this.over.catch(() => undefined);
  }

  /** Opens a connection, and waits for the greeting. */
  static async open(
    platform: Platform,
    path: string,
    node: NodeUrl,
    bring: Bring,
    token: string | undefined,
    access: Access,
    options: Options,
  ): Promise<Link> {
    const link = new Link(node, token, access, options);
    const headers = token !== undefined && bring === "header" ? { Authorization: `Bearer ${token}` } : {};
    const protocols = ["anode.v1.json"];
    if (token !== undefined && bring === "subprotocol") {
      protocols.push(`anode.token.${base64url(token)}`);
    }
    let isLate = false;
    const opening = platform.open(node.websocket(path), protocols, headers, {
      message: (text) => link.handleText(text),
      heard: () => {
        link.heard = Date.now();
      },
      close: (code, reason) => link.end(closed(code, reason, link.refused)),
    });
    const late = setTimeout(() => {
      isLate = true;
      link.end(new Lost(unavailable(`${node}: no greeting within ${OPEN_MAX_MS / 1000} s`), "soon"));
    }, OPEN_MAX_MS);
    opening.then(
      (socket) => isLate && socket.abort(),
      () => undefined,
    );
    try {
      link.socket = await Promise.race([opening, link.over]);
      await Promise.race([link.greeting(bring), link.over]);
      return link;
    } catch (error) {
      link.close();
      throw error;
    } finally {
      clearTimeout(late);
    }
  }

  /** Whether the connection has lived for a while. */
  get hasServed(): boolean {
    return Date.now() - this.opened >= SERVED_MS;
  }

  /** Whether reading can be stopped while the program is slow. */
  get pauses(): boolean {
    return this.socket.pause !== undefined;
  }

  /** Hands all messages to the handler. Rejects with `Lost` when the connection is lost, or with what it throws. */
  async run(handler: Handler): Promise<never> {
    this.handler = handler;
    for (const text of this.early.splice(0)) {
      this.handleText(text);
    }
    return this.over;
  }

  send(text: string): void {
    if (!this.isOver) {
      this.socket.send(text);
    }
  }

  /** Stops reading, as far as the platform can. */
  pause(): void {
    if (!this.isPaused && this.socket.pause !== undefined) {
      this.isPaused = true;
      this.socket.pause();
    }
  }

  resume(): void {
    if (this.isPaused) {
      this.isPaused = false;
      this.heard = Date.now();
      this.socket.resume?.();
    }
  }

  /** Ends the connection for this reason. */
  lose(lost: Lost): void {
    this.end(lost);
    this.socket.close();
  }

  /** Closes the connection in good order. */
  close(): void {
    this.stop();
    // The handshake may not be done.
    this.resume();
    this.socket?.close();
  }

  private stop(): void {
    this.isOver = true;
    this.timers.forEach(clearTimeout);
    this.timers = [];
  }

  private async greeting(bring: Bring): Promise<void> {
    const message = await new Promise<Message>((resolve) => {
      this.handler = (_, first) => {
        this.handler = undefined;
        resolve(first);
      };
      const text = this.early.shift();
      if (text !== undefined) {
        this.handleText(text);
      }
    });
    const greeting = message["connected"] as Greeting | undefined;
    if (greeting === undefined) {
      throw new Lost(new AnodeError("protocol", `${this.node} does not greet as a node does`), "back off");
    }
    this.members = (greeting.members ?? []).map((member) => member.http);
    this.pingMs = Math.min(Math.max(greeting.ping_ms ?? PING_MS_DEFAULT, 1), PING_MS_MAX);
    this.maxFrameBytes = greeting.max_frame_bytes;
    this.timers.push(setInterval(() => this.watch(), this.pingMs / 4));
    if (this.access.renews || bring === "frame") {
      // The answer tells when the token ends.
      this.bringToken();
    }
  }

  private handleText(text: string): void {
    this.heard = Date.now();
    if (this.isOver) {
      return;
    }
    if (this.handler === undefined) {
      this.early.push(text);
      return;
    }
    try {
      let message: Message;
      try {
        message = JSON.parse(text) as Message;
      } catch {
        throw new Lost(new AnodeError("protocol", `${this.node} sent a frame that is not JSON`), "back off");
      }
      if (message.id === AUTH_ID) {
        this.handleAuth(message);
      } else if (message.error !== undefined && message.id === undefined) {
        // The reason of the close that follows, or of nothing that this client waits for.
        this.refused = refusal(message.error);
        this.options.report(this.refused);
      } else {
        this.handler(text, message);
      }
    } catch (error) {
      this.end(error as Error);
      this.socket.close();
    }
  }

  /** Sends pings while nothing comes, and ends the connection if nothing comes for the time of the greeting. */
  private watch(): void {
    const hasPing = this.socket.ping !== undefined;
    if (this.isPaused || (!hasPing && !this.awaits())) {
      this.heard = Date.now();
    }
    const silence = Date.now() - this.heard;
    if (silence > this.pingMs) {
      this.end(new Lost(unavailable(`${this.node} was silent for ${this.pingMs} ms`), "now"));
      this.socket.abort();
    } else if (silence > this.pingMs / 2 || this.isPaused) {
      this.socket.ping?.();
    }
  }

  private bringToken(): void {
    if (this.token !== undefined) {
      this.send(JSON.stringify({ id: AUTH_ID, auth: { token: this.token } }));
    }
  }

  private handleAuth(message: Message): void {
    if (message.error !== undefined) {
      this.refused = refusal(message.error);
      return;
    }
    const { expires } = message["result"] as { expires: number | null };
    if (expires !== null && this.access.renews) {
      const left = expires * 1000 - Date.now();
      this.renewIn(left - Math.min(RENEW_BEFORE_MS, left * RENEW_PART));
    }
  }

  private renewIn(waitMs: number): void {
    const wait = Math.min(Math.max(waitMs, RENEW_WAIT_MIN_MS), RENEW_WAIT_MAX_MS);
    this.timers.push(setTimeout(() => void this.renew(), wait));
  }

  private async renew(): Promise<void> {
    try {
      this.token = await this.access.renew(this.token);
      this.bringToken();
    } catch (error) {
      if (!this.isOver) {
        this.options.report(error as AnodeError);
        this.renewIn(RENEW_WAIT_MIN_MS);
      }
    }
  }
}
