/**
 * The clients graphql-ws and graphql-sse, for `test_graphql_node`.
 *
 * Usage: node graphql.mjs SCENARIO ws|sse URL [MESSAGE...]. Prints what was seen, as JSON. KEY is the key.
 */

import { createClient as createSse } from "graphql-sse";
import { createClient as createWs } from "graphql-ws";
import WebSocket from "ws";

const [scenario, way, url, ...messages] = process.argv.slice(2);
const key = process.env.KEY ?? "key";

const SEND = "mutation ($input: SendInput!) { send(input: $input) { sessionId responseId } }";
const CANCEL = "mutation ($id: ID!) { cancel(responseId: $id) { status } }";
const EVENTS = `subscription ($session: ID, $response: ID, $after: String) {
  events(sessionId: $session, responseId: $response, after: $after) {
    type cursor delta resumed
    response { id status text reason error { code } output { id type callId name arguments } }
  }
}`;

let connections = 0;
const on = { connected: () => connections++ };
const retryWait = (retries) => new Promise((resolve) => setTimeout(resolve, Math.min(100 * retries, 1000)));
const openers = {
  ws: () =>
    createWs({
      url: url.replace("http", "ws"),
      webSocketImpl: WebSocket,
      connectionParams: { Authorization: `Bearer ${key}` },
      retryAttempts: 20,
      retryWait,
      on,
    }),
  sse: () =>
    createSse({ url, headers: { authorization: `Bearer ${key}` }, retryAttempts: 20, retry: retryWait, on }),
};

/** Ask for one thing, and return the answer, or what the client throws. */
async function one(client, query, variables) {
  try {
    for await (const result of client.iterate({ query, variables })) return result;
  } catch (errors) {
    return { errors };
  }
}

/** The error's code, of an answer, or of what the client throws: a list of errors, a close, or a response. */
async function code({ errors }) {
  if (Array.isArray(errors)) return errors[0].extensions.code;
  if (errors.response) return [errors.response.status, (await errors.response.json()).errors[0].extensions.code];
  if (errors.reason === undefined) throw errors;
  return [errors.code, errors.reason.split(":")[0]];
}

/**
 * Follow a response to its end, whatever connections do: the client subscribes again by itself, with the
 * variables as they are by then; where it holds the close for final (1011), or is sent away by a node that
 * drains without a close (over SSE), this does, as it is told of it.
 * *each* is called behind each event, with what has been said.
 */
function followed(client, response, each = () => {}) {
  const events = [];
  const variables = { response };
  let isSentAway = false;
  return new Promise((resolve, reject) => {
    const sink = {
      next({ data, errors }) {
        isSentAway = errors?.[0].extensions.code === "server_draining";
        if (isSentAway) return;
        if (errors) return reject(errors);
        const event = data.events;
        events.push(event);
        variables.after = event.cursor ?? variables.after;
        each(events.map(({ delta }) => delta ?? "").join(""));
      },
      error: (reason) => (reason.code === 1011 ? subscribe() : reject(reason)),
      complete: () => (isSentAway ? retryWait(1).then(subscribe) : resolve(events)),
    };
    const subscribe = () => client.subscribe({ query: EVENTS, variables }, sink);
    subscribe();
  });
}

/** Say *input*, and return the events of the answer, or how it was refused. */
async function asked(client, input, each) {
  const sent = await one(client, SEND, { input });
  if (sent.errors) return { refused: await code(sent) };
  const { sessionId, responseId } = sent.data.send;
  return { sessionId, responseId, events: await followed(client, responseId, (said) => each?.(said, responseId)) };
}

const scenarios = {
  /** Sends, and is told of the answer piece by piece; and asks for something else. */
  async answer(client) {
    const { events } = await asked(client, { text: messages[0] });
    const { data } = await one(client, "{ models { id } }");
    return { events, models: data.models.map(({ id }) => id) };
  },

  /** One message after another, in one session. What is refused is passed over. */
  async converse(client) {
    const answers = [];
    let sessionId;
    for (const text of messages) {
      answers.push(await asked(client, { text, sessionId }));
      sessionId = answers.at(-1).sessionId ?? sessionId;
    }
    return { answers, connections };
  },

  /** Stops the first answer in its midst, and asks the second message. */
  async stop(client) {
    let isAsked = false;
    const first = await asked(client, { text: messages[0] }, (said, id) => {
      if (isAsked || !said.endsWith("word3")) return;
      isAsked = true;
      void one(client, CANCEL, { id });
    });
    return { answers: [first, await asked(client, { text: messages[1], sessionId: first.sessionId })] };
  },

  /** Leaves what it follows, which goes on until it is cancelled. */
  async leave(client) {
    const sent = await one(client, SEND, { input: { text: messages[0] } });
    let seen = 0;
    const variables = { session: sent.data.send.sessionId };
    for await (const result of client.iterate({ query: EVENTS, variables })) {
      if (result.data.events.type !== "DELTA") continue;
      seen++;
      break;
    }
    const cancelled = await one(client, CANCEL, { id: sent.data.send.responseId });
    return { seen, cancelled: cancelled.data.cancel.status };
  },

  /** Runs what is called, and has the answer go on. */
  async tool(client) {
    const tools = [{ name: "add", parameters: { type: "object" } }];
    const first = await asked(client, { text: messages[0], tools });
    const { output } = first.events.at(-1).response;
    const items = output
      .filter(({ type }) => type === "function_call")
      .map(({ callId, arguments: given }) => {
        return { type: "function_call_output", callId, output: String(JSON.parse(given).a + 1) };
      });
    return { answers: [first, await asked(client, { items, sessionId: first.sessionId, tools })] };
  },

  /** Approves of a call of one of the server's tools, or doesn't. */
  async approve(client) {
    const first = await asked(client, { text: messages[0] });
    const items = first.events.at(-1).response.output
      .filter(({ type }) => type === "mcp_approval_request")
      .map(({ id }) => ({ type: "mcp_approval_response", approvalRequestId: id, approve: messages[1] === "yes" }));
    return { answers: [first, await asked(client, { items, sessionId: first.sessionId })] };
  },

  /** Is told of a document that makes no sense, and of a message that is refused. */
  async mistakes(client) {
    const told = [await code(await one(client, "{ nothing }")), (await asked(client, { text: messages[0] })).refused];
    return { told, answers: [await asked(client, { text: messages[1] })] };
  },

  /** Is refused with a wrong key, and doesn't try for ever. */
  refused: async (client) => ({ told: await code(await one(client, "{ models { id } }")) }),
};

const client = openers[way]();
const seen = await scenarios[scenario](client);
client.dispose();
console.log(JSON.stringify(seen));
process.exit(0);
