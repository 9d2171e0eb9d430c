/** Browsers, and other programs with a global `WebSocket` and `fetch`. */

import { AnodeError } from "./errors.js";
import type { Platform, Socket, SocketEvents, TlsFiles } from "./platform.js";

/** Makes the platform of a client. */
export async function browserPlatform(tls: TlsFiles): Promise<Platform> {
  if (tls.ca !== undefined || tls.cert !== undefined) {
    throw new AnodeError("bad_request", "ca and cert cannot be used here: the browser decides whom it trusts");
  }
  if (typeof WebSocket === "undefined") {
    throw new AnodeError("bad_request", "there is no WebSocket here; install the package ws");
  }
  return { takesHeaders: false, environmentToken: undefined, open, get };
}

function open(url: string, protocols: string[], _: Record<string, string>, events: SocketEvents): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = new WebSocket(url, protocols);
    let isOpen = false;
    socket.onopen = () => {
      isOpen = true;
      resolve({
        send: (text) => socket.send(text),
        close: () => socket.close(1000),
        abort: () => socket.close(),
      });
    };
    socket.onmessage = (event) => {
      if (typeof event.data === "string") {
        events.message(event.data);
      }
    };
    socket.onclose = (event) => {
      if (isOpen) {
        events.close(event.code, event.reason);
      } else {
        reject(new Error(`the handshake failed (${event.code})`));
      }
    };
  });
}

async function get(
  url: string,
  headers: Record<string, string>,
  timeoutMs: number,
): Promise<{ status: number; body: string }> {
  const answer = await fetch(url, { headers, signal: AbortSignal.timeout(timeoutMs), cache: "no-store" });
  return { status: answer.status, body: await answer.text() };
}
