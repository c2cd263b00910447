/**
 * npm's `ws`, sending a message that is far too large, for `test_floods`.
 *
 * Usage: node oversize.mjs URL BYTES TIMES. Prints the close code of each connection, as JSON.
 */

import WebSocket from "ws";

const [url, bytes, times] = process.argv.slice(2);
const message = "x".repeat(Number(bytes));

function once() {
  return new Promise((resolve) => {
    const socket = new WebSocket(url, { headers: { Authorization: "Bearer key" }, perMessageDeflate: false });
    socket.once("message", () => socket.send(message));
    socket.on("error", () => {}); // what a reset is reported as; the code says the rest
    socket.once("close", resolve);
  });
}

const codes = [];
for (let time = 0; time < Number(times); time += 1) codes.push(await once());
console.log(JSON.stringify(codes));
