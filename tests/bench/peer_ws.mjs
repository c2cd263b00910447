// A peer: npm ws, which sends the recorded events, encoding each one. It keeps no session.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const require = createRequire(new URL("../conformance/node/package.json", import.meta.url));
const { WebSocketServer } = require("ws");

const recorded = JSON.parse(readFileSync(process.env.BENCH_FRAMES, "utf8"));
const [opening, itemDone, done] = [recorded.opening, recorded.item_done, recorded.done].map((text) => JSON.parse(text));
const deltas = recorded.deltas.map((text) => JSON.parse(text));
const turn = () => new Promise((resolve) => setImmediate(resolve));

const server = new WebSocketServer({ host: "127.0.0.1", port: Number(process.argv[2]), perMessageDeflate: false, backlog: 2048 });
server.on("connection", (socket) => {
  let count = 0;
  socket.send(JSON.stringify(opening));
  socket.on("message", async (data) => {
    const event = JSON.parse(data);
    if (event.type === "conversation.item.create") {
      count = Number(event.item.content[0].text.split(" ")[2]);
      socket.send(JSON.stringify(itemDone));
      return;
    }
    for (const delta of deltas.slice(0, count)) {
      socket.send(JSON.stringify(delta));
      await turn();
    }
    socket.send(JSON.stringify(done));
  });
});
