/** The client as browsers have it, on a `WebSocket` without header fields, pings, and reasons of failures. */

import assert from "node:assert/strict";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { test } from "node:test";
import { WebSocket as Ws, WebSocketServer } from "ws";

import { AnodeError, connect } from "../src/browser.js";

/** A WebSocket of `ws` with nothing but what browsers have. */
class BrowserSocket {
  onopen: (() => void) | null = null;
  onmessage: ((event: { data: unknown }) => void) | null = null;
  onclose: ((event: { code: number; reason: string }) => void) | null = null;
  private readonly socket: Ws;

  constructor(url: string, protocols: string[]) {
    this.socket = new Ws(url, protocols);
    this.socket.on("open", () => this.onopen?.());
    this.socket.on("message", (data) => this.onmessage?.({ data: String(data) }));
    this.socket.on("close", (code, reason) => this.onclose?.({ code, reason: String(reason) }));
    this.socket.on("error", () => undefined);
  }

  send(text: string): void {
    this.socket.send(text);
  }

  close(code?: number): void {
    this.socket.close(code);
  }
}

Object.assign(globalThis, { WebSocket: BrowserSocket });

const greeting = { connected: { node: "n", session: "s", ping_ms: 25_000, members: [], max_frame_bytes: 1_000_000 } };

/** Starts a node that knows one token, and returns its URL and how tokens came. */
async function start(): Promise<{ url: string; came: string[]; stop: () => void }> {
  const came: string[] = [];
  const server = createServer();
  const sockets = new WebSocketServer({ noServer: true, handleProtocols: () => "anode.v1.json" });
  server.on("upgrade", (request, socket, head) => {
    const protocol = request.headers["sec-websocket-protocol"] ?? "";
    const token = /anode\.token\.(\S+)/.exec(protocol)?.[1];
    came.push(token === undefined ? "none" : Buffer.from(token, "base64url").toString());
    if (token !== undefined && came.at(-1) !== "right") {
      socket.end("HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n");
      return;
    }
    sockets.handleUpgrade(request, socket, head, (ws) => {
      ws.send(JSON.stringify(greeting));
      ws.on("message", (text) => {
        const frame = JSON.parse(String(text)) as { id: unknown; auth?: { token: string }; ts: number };
        if (frame.auth === undefined) {
          ws.send(JSON.stringify({ id: frame.id, result: { ts: frame.ts, outcome: "applied", level: "accepted" } }));
          return;
        }
        came.push(`frame ${frame.auth.token}`);
        if (frame.auth.token === "right") {
          ws.send(JSON.stringify({ id: frame.id, result: { name: "x", expires: null } }));
        } else {
          ws.send(JSON.stringify({ id: frame.id, error: { code: "unauthorized", message: "unknown token" } }));
          ws.close(4001);
        }
      });
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const stop = (): void => {
    sockets.clients.forEach((client) => client.terminate());
    server.close();
  };
  return { url: `ws://127.0.0.1:${(server.address() as AddressInfo).port}`, came, stop };
}

test("a token comes as a subprotocol", async () => {
  const { url, came, stop } = await start();
  const client = await connect([url], { token: "right" });
  assert.equal((await client.publish("a", 1)).outcome, "applied");
  assert.deepEqual(came, ["right"]);
  await client.close();
  stop();
});

test("a handshake that fails is tried with the token in the first frame, which says why", async () => {
  const { url, came, stop } = await start();
  const client = await connect([url], { token: "wrong" });
  const refused = (error: unknown): boolean => error instanceof AnodeError && error.code === "unauthorized";
  await assert.rejects(client.publish("a", 1), refused);
  assert.deepEqual(came, ["wrong", "none", "frame wrong"]);
  await client.close();
  stop();
});

test("files are refused", async () => {
  await assert.rejects(connect(["ws://127.0.0.1:1"], { ca: "x" }), /ca and cert cannot be used/);
});
