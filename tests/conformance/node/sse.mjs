/**
 * npm's `eventsource-parser`, reading streams that come in pieces, for `test_sse_readers`.
 *
 * Usage: node sse.mjs < LINES. A line is a list of pieces in base64, as JSON; prints what each has, as JSON.
 */

import { EventSourceParserStream } from "eventsource-parser/stream";
import { createInterface } from "node:readline";

async function read(pieces) {
  const bytes = new ReadableStream({
    start(controller) {
      for (const piece of pieces) controller.enqueue(new Uint8Array(Buffer.from(piece, "base64")));
      controller.close();
    },
  });
  const events = bytes.pipeThrough(new TextDecoderStream()).pipeThrough(new EventSourceParserStream());
  const found = [];
  for await (const { event, data, id } of events) found.push([event ?? "message", data, id ?? ""]);
  return found;
}

const all = [];
for await (const line of createInterface({ input: process.stdin })) all.push(await read(JSON.parse(line)));
console.log(JSON.stringify(all));
