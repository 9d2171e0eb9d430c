/** Node, with the package `ws`. Without it, the global `WebSocket` of newer versions is used. */

import { readFile } from "node:fs/promises";
import http from "node:http";
import https from "node:https";
import type { WebSocket as WsSocket } from "ws";

import { AnodeError } from "./errors.js";
import type { Platform, Socket, SocketEvents, TlsFiles } from "./platform.js";
import { Refused } from "./platform.js";
import { browserPlatform } from "./platform_browser.js";

/** The largest frame that is taken from a node; nodes send much smaller ones. */
const MESSAGE_BYTES_MAX = 64 * 1024 * 1024;
/** The largest answer to a handshake that is read. */
const REFUSAL_BYTES_MAX = 65_536;

type WsClass = typeof WsSocket;

/** Makes the platform of a client. */
export async function nodePlatform(tls: TlsFiles): Promise<Platform> {
  const environmentToken = process.env["ANODE_TOKEN"] || undefined;
  let Ws: WsClass;
  try {
    Ws = (await import("ws")).WebSocket;
  } catch {
    return { ...(await browserPlatform(tls)), environmentToken };
  }
  const [ca, cert, key] = await Promise.all([tls.ca, tls.cert, tls.key].map(pem));
  const secrets = { ...(ca && { ca }), ...(cert && { cert }), ...(key && { key }) };
  return {
    takesHeaders: true,
    environmentToken,
    open: (url, protocols, headers, events) =>
      open(new Ws(url, protocols, { ...secrets, headers, perMessageDeflate: false, maxPayload: MESSAGE_BYTES_MAX }), events),
    get: (url, headers, timeoutMs) => get(url, headers, timeoutMs, secrets),
  };
}

/** Returns a text in PEM, which may be given as the path of a file. */
async function pem(text: string | undefined): Promise<string | undefined> {
  if (text === undefined || text.includes("-----BEGIN")) {
    return text;
  }
  try {
    return await readFile(text, "utf8");
  } catch (error) {
    throw new AnodeError("bad_request", `ca, cert or key cannot be used: ${String(error)}`);
  }
}

function open(socket: WsSocket, events: SocketEvents): Promise<Socket> {
  return new Promise((resolve, reject) => {
    let isOpen = false;
    let failure: Error | undefined;
    socket.on("open", () => {
      isOpen = true;
      resolve({
        send: (text) => socket.send(text),
        close: () => socket.close(1000),
        abort: () => socket.terminate(),
        ping: () => socket.readyState === socket.OPEN && socket.ping(),
        pause: () => socket.pause(),
        resume: () => socket.resume(),
      });
    });
    socket.on("message", (data, isBinary) => {
      if (!isBinary) {
        events.message(String(data));
      }
    });
    socket.on("ping", () => events.heard());
    socket.on("pong", () => events.heard());
    socket.on("unexpected-response", (request, answer) => {
      let body = "";
      answer.setEncoding("utf8");
      answer.on("data", (part: string) => {
        body += body.length < REFUSAL_BYTES_MAX ? part : "";
      });
      answer.on("end", () => {
        reject(new Refused(answer.statusCode ?? 0, body, answer.headers["retry-after"]));
        request.destroy();
      });
      answer.on("error", reject);
    });
    socket.on("error", (error) => {
      failure = error;
      reject(error);
    });
    socket.on("close", (code, reason) => {
      if (isOpen) {
        events.close(code, String(reason) || (failure?.message ?? ""));
      } else {
        reject(failure ?? new Error(`the handshake failed (${code})`));
      }
    });
  });
}

function get(
  url: string,
  headers: Record<string, string>,
  timeoutMs: number,
  secrets: TlsFiles,
): Promise<{ status: number; body: string }> {
  return new Promise((resolve, reject) => {
    const options = { headers, agent: false, signal: AbortSignal.timeout(timeoutMs) } as const;
    const handle = (answer: http.IncomingMessage): void => {
      let body = "";
      answer.setEncoding("utf8");
      answer.on("data", (part: string) => {
        body += part;
      });
      answer.on("end", () => resolve({ status: answer.statusCode ?? 0, body }));
      answer.on("error", reject);
    };
    const request = url.startsWith("https:")
      ? https.get(url, { ...options, ...(secrets as https.RequestOptions) }, handle)
      : http.get(url, options, handle);
    request.on("error", reject);
  });
}
