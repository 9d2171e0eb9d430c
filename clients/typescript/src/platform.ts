/** What differs between browsers and Node: sockets, requests, files. */

import type { AnodeError } from "./errors.js";

/** The files that TLS needs, as paths or as PEM texts. */
export interface TlsFiles {
  ca?: string | undefined;
  cert?: string | undefined;
  key?: string | undefined;
}

/** A WebSocket whose handshake is done. */
export interface Socket {
  send(text: string): void;
  close(): void;
  /** Ends the connection without waiting for the other side. */
  abort(): void;
  /** Sends a ping, whose answer is told to `heard`; absent in browsers, which answer pings but send none. */
  ping?(): void;
  /** Stops reading, so that the node notices that this program is slow; absent in browsers. */
  pause?(): void;
  resume?(): void;
}

/** What a socket tells. `message` may be called before `open` of the platform has returned. */
export interface SocketEvents {
  message(text: string): void;
  /** A frame that carries no message, such as a ping. */
  heard(): void;
  close(code: number, reason: string): void;
}

/** A handshake that was answered with a status. */
export class Refused extends Error {
  constructor(
    readonly status: number,
    readonly body: string,
    readonly retryAfter: string | undefined,
  ) {
    super(`the handshake was answered with ${status}`);
  }
}

/** A browser or Node. */
export interface Platform {
  /** Whether the handshake takes header fields, and tells why it was refused. */
  readonly takesHeaders: boolean;
  /** The token of the environment. */
  readonly environmentToken: string | undefined;
  /** Opens a WebSocket. Rejects with `Refused` if the node has answered with a status. */
  open(url: string, protocols: string[], headers: Record<string, string>, events: SocketEvents): Promise<Socket>;
  /** Sends a GET request. */
  get(url: string, headers: Record<string, string>, timeoutMs: number): Promise<{ status: number; body: string }>;
}

/** Makes the platform of a client. Throws `AnodeError` if the files cannot be used. */
export type PlatformMaker = (tls: TlsFiles) => Promise<Platform>;

/** A function that is told of failures. */
export type ErrorHook = (error: AnodeError) => void;
