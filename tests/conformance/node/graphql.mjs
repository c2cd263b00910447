/**
 * The clients graphql-ws and graphql-sse, for `test_graphql_node`.
 *
 * Usage: node graphql.mjs SCENARIO URL [MESSAGE...]. Prints what was seen, as JSON. KEY is the key.
 */

import { createClient as createSse } from "graphql-sse";
import { createClient as createWs } from "graphql-ws";
import WebSocket from "ws";

const [scenario, url, ...messages] = process.argv.slice(2);
const key = process.env.KEY ?? "key";

const SEND = "mutation ($input: SendInput!) { send(input: $input) { sessionId responseId } }";
const EVENTS = `subscription ($session: ID, $response: ID, $after: String) {
  events(sessionId: $session, responseId: $response, after: $after) {
    type cursor delta resumed response { id status text }
  }
}`;

const overSocket = (options = {}) =>
  createWs({
    url: url.replace("http", "ws"),
    webSocketImpl: WebSocket,
    connectionParams: { Authorization: `Bearer ${key}` },
    retryWait: () => Promise.resolve(),
    ...options,
  });
const overEvents = (options = {}) =>
  createSse({ url, headers: { authorization: `Bearer ${key}` }, retryAttempts: 0, ...options });

async function collected(client, query, variables) {
  const results = [];
  for await (const result of client.iterate({ query, variables })) results.push(result);
  return results;
}

async function one(client, query, variables) {
  const [result] = await collected(client, query, variables);
  return result;
}

async function answered(client) {
  const sent = await one(client, SEND, { input: { text: messages[0] } });
  const events = await collected(client, EVENTS, { response: sent.data.send.responseId });
  const models = await one(client, "{ models { id } }");
  client.dispose();
  return { events: events.map((each) => each.data.events), models: models.data.models.map((each) => each.id) };
}

const scenarios = {
  /** Sends, and is told of the answer piece by piece. */
  ws: () => answered(overSocket()),
  sse: () => answered(overEvents()),

  /** Is cut off in mid-answer, and goes on behind the last cursor by itself. */
  async "go-on"() {
    const client = overSocket();
    const sent = await one(client, SEND, { input: { text: messages[0] } });
    const events = [];
    const variables = { response: sent.data.send.responseId }; // read anew whenever it subscribes again
    let connections = 0;
    client.on("connected", () => connections++);
    await new Promise((resolve, reject) => {
      client.subscribe(
        { query: EVENTS, variables },
        {
          next(result) {
            const event = result.data.events;
            events.push(event);
            variables.after = event.cursor ?? variables.after;
          },
          error: reject,
          complete: resolve,
        },
      );
    });
    client.dispose();
    return { events, connections };
  },

  /** Leaves what it follows, which goes on. */
  async leave() {
    const client = overSocket();
    const sent = await one(client, SEND, { input: { text: messages[0] } });
    let seen = 0;
    for await (const result of client.iterate({ query: EVENTS, variables: { session: sent.data.send.sessionId } })) {
      if (result.data.events.type === "DELTA") {
        seen++;
        break;
      };
    }
    const cancel = "mutation ($id: ID!) { cancel(responseId: $id) { status } }";
    const cancelled = await one(client, cancel, { id: sent.data.send.responseId });
    client.dispose();
    return { seen, cancelled: cancelled.data.cancel.status };
  },

  /** Is told of mistakes, over both. */
  async mistakes() {
    const told = [];
    for (const client of [overSocket(), overEvents()]) {
      for (const [query, variables] of [["{ nothing }"], [SEND, { input: { text: messages[0] } }]]) {
        try {
          const { errors } = await one(client, query, variables);
          told.push(errors[0].extensions.code);
        } catch (errors) {
          told.push(errors[0].extensions.code);
        }
      }
      client.dispose();
    }
    return { told };
  },

  /** Is refused with a wrong key, over both, and doesn't try for ever. */
  async refused() {
    const told = [];
    try {
      await one(overSocket(), "{ models { id } }");
    } catch (event) {
      told.push([event.code, event.reason.split(":")[0]]);
    }
    try {
      await one(overEvents(), "{ models { id } }");
    } catch (error) {
      told.push([error.response.status, (await error.response.json()).errors[0].extensions.code]);
    }
    return { told };
  },
};

console.log(JSON.stringify(await scenarios[scenario]()));
process.exit(0);
