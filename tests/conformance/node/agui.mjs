/**
 * npm's @ag-ui/client, for `test_agui`: its agent for HTTP, and what an application would keep.
 *
 * Usage: node agui.mjs SCENARIO BASE_URL [MESSAGE...]. Prints what was seen, as JSON.
 */

import { AbstractAgent, HttpAgent } from "@ag-ui/client";
import { Observable } from "rxjs";
import WebSocket from "ws";

const [scenario, base, ...messages] = process.argv.slice(2);
const key = process.env.KEY ?? "alice";
const named = process.env.THREAD ?? "thread-1";
const headers = { authorization: `Bearer ${key}` };
const seen = { messages: [], errors: [], events: [], outcomes: [], told: [], warnings: [], closes: [] };

// What isn't of the protocol is cut out of events with a warning, and a strict reader would refuse it.
console.warn = (...words) => seen.warnings.push(words.map(String).join(" "));
console.error = () => {}; // errors are noted where they are caught

// The client also throws what it has told, where nobody can catch it. A browser goes on.
process.on("unhandledRejection", () => {});
process.on("uncaughtException", () => {});

const extension = process.env.EXTENSION ? JSON.parse(process.env.EXTENSION) : undefined;
const tools = process.env.TOOLS ? JSON.parse(process.env.TOOLS) : [];
let asked = 0;

/**
 * An agent with a connection of its own for each run: it goes on behind the last event wherever it is cut
 * off, as whoever writes a transport for the client has it do.
 */
class SocketAgent extends AbstractAgent {
  run(input) {
    return new Observable((subscriber) => {
      let offset = null;
      const connect = () => {
        const query = new URLSearchParams({ threadId: input.threadId, runId: input.runId });
        if (offset !== null) query.set("offset", offset);
        const socket = new WebSocket(`${base.replace("http", "ws")}/v1/agui/ws?${query}`, { headers });
        socket.on("open", () => offset === null && socket.send(JSON.stringify(input)));
        socket.on("error", () => {}); // it is closed then
        socket.on("close", (code) => {
          if (subscriber.closed) return;
          seen.closes.push(code);
          setTimeout(connect, 50);
        });
        socket.on("message", (data) => {
          const { id, chunk } = JSON.parse(data);
          if (chunk === undefined) return;
          offset = id;
          subscriber.next(chunk);
          if (!/^RUN_(FINISHED|ERROR)$/.test(chunk.type)) return;
          subscriber.complete();
          socket.close();
        });
      };
      connect();
    });
  }
}

function open(options = {}, Agent = HttpAgent) {
  const agent = new Agent({ url: `${base}/v1/agui${process.env.QUERY ?? ""}`, headers, threadId: named, ...options });
  agent.subscribe({
    onEvent: ({ event }) => {
      seen.events.push(event.type);
      if (event.metadata?.unbroken) seen.told.push(event.metadata.unbroken);
    },
    onRunFinishedEvent: ({ event }) => {
      seen.outcomes.push(event.outcome?.type);
    },
    onRunErrorEvent: ({ event }) => {
      seen.errors.push(event.code ?? event.message);
    },
  });
  return agent;
}

const agent = open();

/** Say *text*, and run. What becomes of the run is noted. */
async function ask(text, { agent: by = agent, ...options } = {}) {
  if (text !== undefined) by.addMessage({ id: `m${++asked}`, role: "user", content: text });
  try {
    return await by.runAgent({ tools, forwardedProps: extension && { unbroken: extension }, ...options });
  } catch (error) {
    if (!seen.errors.includes(error.payload?.error?.code)) {
      seen.errors.push(error.payload?.error?.code ?? error.name);
    }
  }
}

/** Wait until so much of an answer is shown, of a run that begins behind this. */
const shows = (what, by = agent) =>
  new Promise((resolve) =>
    by.subscribe({
      onTextMessageContentEvent: ({ event, textMessageBuffer }) => {
        if (`${textMessageBuffer}${event.delta}`.includes(what)) resolve();
      },
    }),
  );

/** Return what a thread says of itself. */
const thread = async () => (await fetch(`${base}/v1/agui/${named}`, { headers })).json();

const scenarios = {
  /** One message after another. */
  async converse() {
    for (const message of messages) await ask(message);
  },

  /** Asks the first message of a model that isn't there, and the second as it should. */
  async mistake() {
    await ask(messages[0], { forwardedProps: { unbroken: { model: "nobody" } } });
    await ask(messages[1]);
  },

  /** Stops the first answer, and asks the last message. */
  async stop() {
    const shown = shows(messages[1]);
    const running = ask(messages[0]);
    await shown;
    await fetch(`${base}/v1/agui/${named}/stop`, { method: "POST", headers });
    await running;
    await ask(messages[2]);
  },

  /** Leaves in mid-answer: nothing stops. Then comes back to the same run. */
  async leave() {
    const shown = shows(messages[1]);
    const running = ask(messages[0], { runId: "run-1" });
    await shown;
    await agent.detachActiveRun();
    await running;
    const again = open({ initialMessages: agent.messages.filter(({ role }) => role === "user") });
    await ask(undefined, { agent: again, runId: "run-1" });
    seen.messages = again.messages;
  },

  /** One message after another, over WebSockets. */
  async socket() {
    const by = open({}, SocketAgent);
    for (const message of messages) await ask(message, { agent: by });
    seen.messages = by.messages;
  },

  /** One message after another; a run whose connection is lost is sent again, under its name. */
  async persist() {
    for (const [number, text] of messages.entries()) {
      agent.addMessage({ id: `m${number}`, role: "user", content: text });
      const before = [...agent.messages];
      for (let lost = true; lost; ) {
        lost = false;
        agent.setMessages(before);
        await agent.runAgent({ runId: `run-${number}` }).catch(async (error) => {
          lost = true;
          seen.errors.push(error.message);
          await new Promise((resolve) => setTimeout(resolve, 100));
        });
      }
    }
  },

  /** Another page of the same thread, opened in mid-answer. */
  async reload() {
    const shown = shows(messages[1]);
    const running = ask(messages[0], { runId: "run-1" });
    await shown;
    const { messages: known, activeRun } = await thread();
    const other = open({ url: process.env.OTHER ? `${process.env.OTHER}/v1/agui` : `${base}/v1/agui`, initialMessages: known });
    await Promise.all([running, ask(undefined, { agent: other, runId: activeRun.runId })]);
    seen.messages = [agent.messages, other.messages];
  },

  /** Runs what is called, and goes on. */
  async tool() {
    await ask(messages[0]);
    for (const { toolCalls } of agent.messages.filter((message) => message.toolCalls)) {
      for (const call of toolCalls) {
        const content = String(JSON.parse(call.function.arguments).a + 1);
        agent.addMessage({ id: `result-${call.id}`, role: "tool", toolCallId: call.id, content });
      }
    }
    await ask();
  },

  /** Answers the server's question whether a tool may be called. */
  async approve() {
    await ask(messages[0]);
    const resume = agent.pendingInterrupts.map(({ id }) => ({
      interruptId: id,
      status: "resolved",
      payload: { approved: messages[1] === "yes" },
    }));
    await ask(undefined, { resume });
  },

  /** Has the answer be made again: a run of the same messages, under another name. */
  async regenerate() {
    await ask(messages[0]);
    agent.setMessages(agent.messages.filter(({ role }) => role === "user"));
    await ask();
    seen.messages = (await thread()).messages;
  },
};

await scenarios[scenario]();
if (!seen.messages.length) seen.messages = agent.messages;
console.log(JSON.stringify(seen));
process.exit();
