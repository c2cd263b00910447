/**
 * npm's openai on `ws`, for `test_openai_node`.
 *
 * Usage: node openai.mjs SCENARIO BASE_URL [MESSAGE...]. Prints what was seen, as JSON.
 */

import OpenAI from "openai";
import { OpenAIRealtimeWS } from "openai/realtime/ws";

import { Conversation } from "./conversation.mjs";

const [scenario, baseURL, ...messages] = process.argv.slice(2);
const client = new OpenAI({ apiKey: process.env.KEY ?? "key", baseURL });
const conversation = new Conversation();

/** Open a connection that comes back by itself, and wait for its session. */
async function open(changes = {}) {
  const options = {
    model: "default",
    reconnect: true,
    reconnectInitialDelay: 10,
    reconnectMaxDelay: 10,
    buildRealtimeURL: conversation.address,
    ...changes,
  };
  const realtime = new OpenAIRealtimeWS(options, client);
  conversation.follow(realtime, options.reconnect);
  await conversation.until("session.created");
  return realtime;
}

const scenarios = {
  /** One message after another, by the address that the class makes itself. */
  async converse() {
    await open({ reconnect: false, buildRealtimeURL: undefined });
    for (const message of messages) await conversation.ask(message);
  },

  /** The same, coming back with its place when the connection is lost. */
  async "converse-again"() {
    // It comes back five times at most: not all of them before a balancer knows that a node is gone.
    await open({ reconnectInitialDelay: 200, reconnectMaxDelay: 2000 });
    for (const message of messages) await conversation.ask(message);
  },

  /** Cancels the first answer, and asks the second message. */
  async cancel() {
    await open();
    await conversation.askAndCancel(messages[0], "word3");
    await conversation.ask(messages[1]);
  },

  /** An answer beside the conversation, to a message of its own. */
  async beside() {
    const realtime = await open();
    const content = [{ type: "input_text", text: messages[0] }];
    realtime.sendResponseCreate({
      type: "response.create",
      response: { conversation: "none", input: [{ type: "message", role: "user", content }] },
    });
    await conversation.until("response.done");
  },

  /** Creates, retrieves and deletes an item under its own name, and changes the session. */
  async items() {
    const realtime = await open();
    realtime.send({ type: "session.update", session: { type: "realtime", instructions: "Be brief." } });
    await conversation.until("session.updated");
    conversation.say(messages[0], { id: "mine" });
    await conversation.until("conversation.item.done");
    realtime.send({ type: "conversation.item.retrieve", item_id: "mine" });
    await conversation.until("conversation.item.retrieved");
    realtime.send({ type: "conversation.item.delete", item_id: "mine" });
    await conversation.until("conversation.item.deleted");
  },

  /** Does what can't be done, and goes on. */
  async mistake() {
    const realtime = await open();
    realtime.send({ type: "conversation.item.retrieve", item_id: "gone", event_id: "mistaken" });
    await conversation.until("error");
    await conversation.ask(messages[0]);
  },

  /** Runs the function that is called, and asks for the rest of the answer. */
  async tools() {
    const realtime = await open();
    const tools = [{ type: "function", name: "add", parameters: { type: "object" } }];
    realtime.send({ type: "session.update", session: { type: "realtime", tools } });
    await conversation.until("session.updated");
    const { output } = await conversation.ask(messages[0]);
    for (const call of output.filter(({ type }) => type === "function_call")) {
      const sum = String(JSON.parse(call.arguments).a + 1);
      const item = { type: "function_call_output", call_id: call.call_id, output: sum };
      realtime.send({ type: "conversation.item.create", item });
    }
    realtime.send({ type: "response.create" });
    await conversation.until("response.done");
  },

  /** One message after another, some of which are refused: what is refused isn't asked about. */
  async refused() {
    const realtime = await open();
    for (const message of messages) {
      conversation.say(message);
      const { type } = await conversation.find(({ type }) => /^(error|conversation.item.done)$/.test(type));
      if (type === "error") continue;
      realtime.send({ type: "response.create" });
      await conversation.find(({ type }) => /^(error|response.done)$/.test(type));
    }
  },

  /** Says the second message while there is no connection: it is kept, and sent on the next one. */
  async keep() {
    const realtime = await open({ maxQueueBytes: 10_000 });
    realtime.on("reconnecting", () => conversation.say(messages[1]));
    realtime.on("reconnected", () => realtime.flushPending());
    await conversation.ask(messages[0]);
    await conversation.find(
      ({ type, item }) => type === "conversation.item.done" && item.content[0].text === messages[1],
    );
  },

  /** Is closed for good in mid-answer. */
  async lose() {
    const realtime = await open();
    conversation.say(messages[0]);
    realtime.send({ type: "response.create" });
    await conversation.end();
  },

  /** Isn't let in. */
  async refuse() {
    await open().catch(() => {});
    await conversation.end();
  },
};

await scenarios[scenario]();
if (conversation.closed === null) conversation.realtime.close();
process.stdout.write(JSON.stringify(conversation.report()));
