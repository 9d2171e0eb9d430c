// The same relay on node's `ws`: what any publisher sends goes, as it is, to all subscribers.
//
// NODE_PATH=…/node_modules node ws.cjs PORT
const { WebSocketServer } = require("ws");

const subscribers = new Set();
const server = new WebSocketServer({
  host: "127.0.0.1",
  port: Number(process.argv[2]),
  perMessageDeflate: false,
  handleProtocols: () => "anode.v1.json",
});

server.on("connection", (socket) => {
  socket.send('{"connected":{}}');
  socket.on("close", () => subscribers.delete(socket));
  socket.on("error", () => {});
  socket.on("message", (data) => {
    const message = data.toString();
    if (message.startsWith('{"id":0,"subscribe"')) {
      subscribers.add(socket);
      socket.send('{"eos":{}}');
    } else {
      for (const subscriber of subscribers) subscriber.send(message);
    }
  });
});
