/**
 * This project's own client on Node.js, for `test_own_client`.
 *
 * Usage: node own.mjs SCENARIO URL [MESSAGE...]. Prints what was seen, as JSON. The WebSocket is npm's `ws`, or
 * Node.js's own where NATIVE is set.
 */

import WebSocket from "ws";

import { AnswerFailed, connect, Restarted } from "../../../server/page/client/lib/index.js";

const [scenario, url, ...messages] = process.argv.slice(2);
const { KEY: key = "key", NATIVE: native } = process.env;
const seen = { turns: [], statuses: [], resets: [], errors: [], events: [], calls: [], tokens: 0, state: null };

function open(options = {}) {
  const given = native === undefined ? { WebSocket } : {};
  const who = options.token === undefined && options.ticket === undefined ? { key } : {};
  const client = connect({ url, ...given, ...who, ...options });
  client.on("status", (status) => seen.statuses.push({ ...status, at: Date.now() }));
  client.on("reset", ({ reason }) => seen.resets.push(reason));
  client.on("error", ({ code }) => seen.errors.push(code));
  client.on("event", (event) => seen.events.push(event));
  return client;
}

/** Read *turn* to its end, and note all of it. *each* is called with what it has said, behind each piece. */
async function read(turn, each = () => {}) {
  const noted = { pieces: [], restarts: 0, text: "", status: null, reason: null, code: null };
  seen.turns.push(noted);
  try {
    for await (const piece of turn) {
      if (piece instanceof Restarted) {
        noted.restarts += 1;
        noted.pieces = [piece.text];
      } else {
        noted.pieces.push(piece);
      }
      await each(noted.pieces.join(""));
    }
    const { text, status, reason } = await turn.result();
    Object.assign(noted, { text, status, reason });
    return turn.result();
  } catch (error) {
    Object.assign(noted, { code: error.code, status: error instanceof AnswerFailed ? "failed" : "refused" });
    noted.text = error.text ?? "";
    return null;
  }
}

/** Wait for a status of this *phase*. */
function until(client, phase) {
  return new Promise((resolve) => {
    if (client.status.phase === phase) resolve(client.status);
    const off = client.on("status", (status) => {
      if (status.phase !== phase) return;
      off();
      resolve(status);
    });
  });
}

/** The first time that *said* holds as many words. */
function once(words, act) {
  let isDone = false;
  return async (said) => {
    if (isDone || said.split(" ").length <= words) return;
    isDone = true;
    await act();
  };
}

const scenarios = {
  /** One message after another. */
  async converse() {
    const client = open();
    for (const message of messages) await read(client.send(message));
    return client;
  },

  /** All messages at once, before there is a connection. */
  async queue() {
    const client = open();
    await Promise.all(messages.map((message) => client.send(message)).map((turn) => read(turn)));
    return client;
  },

  /** Stops the first answer in its midst, and the second message before it is sent; the third is answered. */
  async cancel() {
    const client = open();
    const [first, second, third] = messages.map((message) => client.send(message));
    second.stop();
    await Promise.all([read(first, once(3, () => first.stop())), read(second), read(third)]);
    return client;
  },

  /** Stops an answer, without a connection: it is told as soon as there is one. */
  async "stop-offline"() {
    const client = open();
    client.on("status", ({ phase }) => phase === "waiting" && client.stop());
    for (const message of messages) await read(client.send(message));
    return client;
  },

  /** Asks for a function that is run here. */
  async tools() {
    const run = ({ city }, { callId }) => {
      seen.calls.push(callId);
      return { weather: `Rain in ${city}.` };
    };
    const parameters = { type: "object", properties: { city: { type: "string" } } };
    const broken = { name: "broken", run: () => Promise.reject(new TypeError("a secret")) };
    const client = open({ tools: [{ name: "weather", parameters, run }, broken] });
    for (const message of messages) await read(client.send(message));
    return client;
  },

  /** Stops while its function runs. */
  async "stop-tool"() {
    let stopped;
    const run = (_, { signal }) => {
      seen.calls.push("begun");
      signal.addEventListener("abort", () => seen.calls.push("aborted"));
      stopped = turn.stop();
      return new Promise(() => {});
    };
    const client = open({ tools: [{ name: "weather", run }] });
    const turn = client.send(messages[0]);
    await read(turn);
    await read(client.send(messages[1]));
    return client;
  },

  /** Approves of the call that the first answer asks for. */
  async approve() {
    const client = open();
    const { approvals } = await read(client.send(messages[0]));
    seen.calls = approvals.map(({ name }) => name);
    await read(client.decide(approvals[0].id, true));
    return client;
  },

  /** Shows an image that isn't there, and goes on. */
  async mistake() {
    const client = open();
    await read(client.send([{ type: "input_image", file_id: "file_nobody" }]));
    await read(client.send(messages[0]));
    return client;
  },

  /** Is gone in mid-answer; another client goes on with what it has left. */
  async hand() {
    const client = open();
    const turn = client.send(messages[0]);
    const queued = client.send(messages[1]);
    await new Promise((resolve) => {
      void read(turn, once(3, resolve));
      void read(queued);
    });
    const state = JSON.parse(JSON.stringify(client.state));
    client.close();
    const other = open({ state });
    await Promise.all(other.turns.map((each) => read(each)));
    return other;
  },

  /** Connects, and says how it was refused. */
  async refuse() {
    const client = open();
    await until(client, "stopped");
    return client;
  },

  /** Says something, and is closed for good. */
  async lose() {
    const client = open();
    void read(client.send(messages[0]));
    await until(client, "stopped");
    return client;
  },

  /** Is refused for the moment. */
  async wait() {
    const client = open();
    await until(client, "waiting");
    return client;
  },

  /** Fetches a short-lived key, or a ticket, for each session, as a page would of its backend. */
  async tokens() {
    const path = `${url}/v1/realtime/${process.env.KIND}`;
    const token = async () => {
      seen.tokens += 1;
      const answer = await fetch(path, { method: "POST", headers: { authorization: `Bearer ${key}` } });
      return (await answer.json()).value;
    };
    const client = open({ token });
    await read(client.send(messages[0]));
    client.reconnect();
    await until(client, "connected");
    await read(client.send(messages[1]));
    client.begin();
    await read(client.send(messages[2]));
    return client;
  },

  /** A server that says something larger than may be isn't tried for ever; nothing is said behind the close. */
  async close() {
    const client = open();
    const turn = client.send(messages[0]);
    await new Promise((resolve) => void read(turn, once(2, resolve)));
    client.close();
    await turn.result().catch(({ code }) => seen.errors.push(code));
    try {
      client.send("more");
    } catch ({ code }) {
      seen.errors.push(code);
    }
    return client;
  },
};

const client = await scenarios[scenario]();
seen.state = client.state;
client.close();
console.log(JSON.stringify(seen));
