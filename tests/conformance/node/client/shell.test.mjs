/** The shell around the client's core, over a WebSocket that a test holds the other end of. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { connect, Restarted, ToolFailed } from "../../../../server/page/client/lib/index.js";

/** The sockets that were opened, as a class for one test alone. */
function sockets() {
  const opened = [];
  class WebSocket {
    sent = [];
    isClosed = false;

    constructor(url, protocols, options) {
      Object.assign(this, { url, protocols, options });
      opened.push(this);
    }

    send(text) {
      this.sent.push(JSON.parse(text));
    }

    close() {
      this.isClosed = true;
    }

    /** Say something to the client. */
    say(event) {
      this.onmessage?.({ data: JSON.stringify({ event_id: "e1", ...event }) });
    }

    welcome() {
      this.say({ type: "session.created", session: { id: "s", model: "m", unbroken: { resume: "token" } } });
      return this;
    }
  }
  return { WebSocket, opened };
}

/** Everything that is due now. */
const settled = () => new Promise((resolve) => setImmediate(resolve));

async function opened(options = {}) {
  const { WebSocket, opened } = sockets();
  const client = connect({ url: "http://server.example", key: "key", WebSocket, ...options });
  await settled();
  return { client, opened, socket: opened[0]?.welcome() };
}

/** Begin the answer to what was said last. */
function answer(socket, id = "r") {
  const { response } = socket.sent.findLast(({ type }) => type === "response.create");
  const begun = { id, status: "in_progress", output: [], conversation_id: "c", metadata: response.metadata };
  socket.say({ type: "response.created", response: begun });
  return {
    say: (delta) => socket.say({ type: "response.output_text.delta", response_id: id, item_id: `i_${id}`, delta }),
    end: (text, more = {}) =>
      socket.say({
        type: "response.done",
        response: {
          ...begun,
          status: "completed",
          output: [{ id: `i_${id}`, type: "message", content: [{ type: "output_text", text }] }],
          ...more,
        },
      }),
  };
}

test("it knocks at the door, with the key as a header where a class is given", async () => {
  const { client, socket } = await opened({ model: "large" });
  client.close();

  assert.equal(socket.url, "ws://server.example/v1/realtime?model=large");
  assert.deepEqual(socket.protocols, ["realtime"]);
  assert.equal(socket.options.headers.Authorization, "Bearer key");
});

test("a ticket goes into the address alone", async () => {
  const { client, socket } = await opened({ key: undefined, ticket: "tk_1" });
  client.close();

  assert.equal(socket.url, "ws://server.example/v1/realtime?ticket=tk_1");
  assert.deepEqual(socket.options.headers, {});
});

test("who closes before anything has happened makes no connection", async () => {
  const { WebSocket, opened } = sockets();
  const client = connect({ url: "http://server.example", key: "key", WebSocket });
  client.close();
  await settled();

  assert.equal(opened.length, 0);
});

test("a key that comes too late is not used", async () => {
  const { WebSocket, opened } = sockets();
  let give;
  const token = () => new Promise((resolve) => (give = resolve));
  const client = connect({ url: "http://server.example", token, WebSocket });
  await settled();
  client.close();
  give("key");
  await settled();

  assert.equal(opened.length, 0);
});

test("a key that can't be had is waited for", async () => {
  const { WebSocket } = sockets();
  const client = connect({ url: "http://server.example", token: () => Promise.reject(new Error("No backend.")), WebSocket });
  await settled();
  const { phase, reason } = client.status;
  client.close();

  assert.deepEqual([phase, reason], ["waiting", "No backend."]);
});

test("who reads slowly gets larger pieces, and all of them", async () => {
  const { client, socket } = await opened();
  const turn = client.send("hi");
  const { say, end } = answer(socket);
  for (let word = 0; word < 1_000; word += 1) say(`${word} `);
  const pieces = turn[Symbol.asyncIterator]();
  const first = (await pieces.next()).value;
  say("more");
  end(`${first}more`);

  assert.equal(first.split(" ").length, 1_001);
  assert.deepEqual([(await pieces.next()).value, (await pieces.next()).done], ["more", true]);
  assert.equal((await turn.result()).text, `${first}more`);
  client.close();
});

test("each who reads a turn reads all of it", async () => {
  const { client, socket } = await opened();
  const turn = client.send("hi");
  const read = async () => {
    let text = "";
    for await (const piece of turn) text += piece;
    return text;
  };
  const early = read();
  const { say, end } = answer(socket);
  say("One ");
  await settled();
  say("two");
  end("One two");

  assert.deepEqual(await Promise.all([early, read()]), ["One two", "One two"]);
  client.close();
});

test("an answer that is begun anew says so", async () => {
  const { client, socket } = await opened();
  const turn = client.send("hi");
  const pieces = turn[Symbol.asyncIterator]();
  const { say, end } = answer(socket);
  say("One");
  assert.equal((await pieces.next()).value, "One");
  end("One", { status: "failed", unbroken: { status: "interrupted" } });
  const second = answer(socket, "r2");
  second.say("Two");
  const { value } = await pieces.next();
  second.end("Two");

  assert.ok(value instanceof Restarted);
  assert.equal(`${value}`, "\nTwo");
  assert.equal((await turn.result()).text, "Two");
  client.close();
});

test("who is told of a message may take it back at once", async () => {
  const { client, socket } = await opened();
  void client.send("first");
  const off = client.on("entry", ({ entry, stage }) => stage === "queued" && client.withdraw(entry.id));
  const turn = client.send("second");
  off();

  assert.equal((await turn.result()).status, "cancelled");
  assert.equal(socket.sent.filter(({ type }) => type === "conversation.item.create").length, 1);
  client.close();
});

test("a listener that fails fails alone", async () => {
  const { client, socket } = await opened();
  const failures = [];
  const heard = [];
  client.on("event", () => {
    throw new Error("mine");
  });
  client.on("event", ({ type }) => heard.push(type));
  const report = globalThis.queueMicrotask;
  globalThis.queueMicrotask = (task) => failures.push(task);
  socket.say({ type: "anything" });
  globalThis.queueMicrotask = report;

  assert.deepEqual(heard, ["anything"]);
  assert.equal(failures.length, 1);
  assert.throws(failures[0], { message: "mine" });
  client.close();
});

test("the state is told before anything is sent that depends on it", async () => {
  const { client, socket } = await opened();
  const sent = [];
  client.on("state", ({ unsent }) => sent.push([unsent.length, socket.sent.length]));
  void client.send("hi");

  assert.deepEqual(sent[0], [1, 0]);
  client.close();
});

test("what isn't JSON ends the connection", async () => {
  const { client, socket } = await opened();
  socket.onmessage({ data: "{" });

  assert.deepEqual([client.status.phase, client.status.code, socket.isClosed], ["stopped", "invalid_frame", true]);
  client.close();
});

test("what functions throw is told to the model, and no more than it should read", async () => {
  const tools = [
    { name: "secret", run: () => Promise.reject(new RangeError("a secret")) },
    { name: "told", run: () => { throw new ToolFailed("Ask again."); } },
    { name: "slow", run: () => new Promise(() => {}) },
    { name: "large", run: () => "x".repeat(50_000) },
    { name: "nothing", run: () => {} },
  ];
  const { client, socket } = await opened({ tools, toolTimeout: 1 });
  const turn = client.send("hi");
  const call = { type: "function_call", status: "completed", arguments: "{}" };
  const calls = tools.map(({ name }) => ({ ...call, id: `i_${name}`, call_id: name, name }));
  answer(socket).end("", { output: calls });
  while (!socket.sent.some(({ item }) => item?.type === "function_call_output")) await settled();
  const outputs = socket.sent.filter(({ item }) => item?.type === "function_call_output").map(({ item }) => item.output);

  assert.deepEqual(outputs, [
    '{"error":"The function failed: RangeError."}',
    '{"error":"Ask again."}',
    '{"error":"The function took too long."}',
    '{"error":"What the function returned is too long."}',
    "",
  ]);
  assert.equal(turn.isOver, false);
  client.close();
  await assert.rejects(turn.result(), { code: "closed" });
});
