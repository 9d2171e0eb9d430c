// A relay over uWebSockets, which is what Bun's server is made of: what any publisher sends goes, as it
// is, to all subscribers. It greets as aNode does, so that the same load generator can drive it.
//
// Run by Bun: bun uwebsockets.js PORT
const port = Number(process.argv[2]);

Bun.serve({
  port,
  hostname: "127.0.0.1",
  fetch(request, server) {
    if (server.upgrade(request, { headers: { "Sec-WebSocket-Protocol": "anode.v1.json" } })) return;
    return new Response("a WebSocket is wanted", { status: 400 });
  },
  websocket: {
    perMessageDeflate: false,
    // Nothing is dropped: what may wait for a subscriber is bounded by the load.
    backpressureLimit: 1 << 30,
    open(socket) {
      socket.send('{"connected":{}}');
    },
    message(socket, message) {
      if (message.startsWith('{"id":0,"subscribe"')) {
        socket.subscribe("all");
        socket.send('{"eos":{}}');
      } else {
        // A publisher subscribes to nothing, so its own publish reaches all who do.
        socket.publish("all", message);
      }
    },
  },
});
