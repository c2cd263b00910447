/**
 * npm's openai on Responses and Chat Completions, for `test_responses_node`.
 *
 * Usage: node responses.mjs SCENARIO BASE_URL [MESSAGE...]. Prints what was seen, as JSON.
 */

import OpenAI from "openai";
import { ResponsesWS } from "openai/resources/responses/ws";

const [scenario, baseURL, ...messages] = process.argv.slice(2);
const client = new OpenAI({ apiKey: process.env.KEY ?? "key", baseURL, maxRetries: 0 });
const model = "default";

async function collected(stream) {
  const events = [];
  for await (const event of stream) events.push(event);
  return events;
}

const refusal = (error) => [error.constructor.name, error.status, error.code];

const scenarios = {
  /** Streams an answer, raw and by the helper, which throws at what it doesn't know. */
  async stream() {
    const events = await collected(await client.responses.create({ model, input: messages[0], stream: true }));
    const final = await client.responses.stream({ model, input: messages[0] }).finalResponse();
    return { events, text: final.output_text };
  },

  /** Goes on behind an event, raw and by the helper. */
  async "go-on"() {
    const events = await collected(await client.responses.create({ model, input: messages[0], stream: true }));
    const [id, after] = [events[0].response.id, 4];
    const rest = await collected(await client.responses.retrieve(id, { stream: true, starting_after: after }));
    const helped = await collected(client.responses.stream({ response_id: id, starting_after: after }));
    return { events, rest, helped: helped.map((event) => event.sequence_number) };
  },

  /** Follows an answer that is made again, raw and by the helper, to where it is. */
  async again() {
    const response_id = messages[0];
    const [events, helped] = await Promise.all([
      client.responses.retrieve(response_id, { stream: true }).then(collected),
      collected(client.responses.stream({ response_id })),
    ]);
    const { superseded_by } = events.at(-1).response.unbroken;
    const answer = await client.responses.stream({ response_id: superseded_by }).finalResponse();
    return { events, helped, answer: answer.output_text };
  },

  /** Asks in the background, cancels, and goes on from what was answered before. */
  async cancel() {
    const first = await client.responses.create({ model, input: messages[0] });
    const second = await client.responses.create({ model, input: messages[1], background: true });
    const cancelled = await client.responses.cancel(second.id);
    const third = await client.responses.create({
      model,
      input: messages[0],
      previous_response_id: first.id,
    });
    return { statuses: [first.status, second.status, cancelled.status, third.status] };
  },

  /** Is told of mistakes as of OpenAI. */
  async mistakes() {
    const told = [];
    for (const wanted of [{ model: "other", input: "x" }, { model }, { model, input: messages[0] }]) {
      try {
        await client.responses.create(wanted);
      } catch (error) {
        told.push(refusal(error));
      }
    }
    return { told };
  },

  /** Runs the function that is called, and asks for the rest of the answer, which is streamed. */
  async tools() {
    const tools = [{ type: "function", name: "add", parameters: { type: "object" }, strict: false }];
    const first = await client.responses.create({ model, input: messages[0], tools });
    const input = first.output
      .filter(({ type }) => type === "function_call")
      .map(({ call_id, arguments: given }) => {
        return { type: "function_call_output", call_id, output: String(JSON.parse(given).a + 1) };
      });
    const asked = { model, input, tools, previous_response_id: first.id };
    const second = await client.responses.stream(asked).finalResponse();
    return { said: [first.output_text, second.output_text] };
  },

  /** Asks for one answer more than may be asked for, of both. */
  async spend() {
    const content = messages[0];
    const asks = [
      () => client.responses.create({ model, input: content }),
      () => client.chat.completions.create({ model, messages: [{ role: "user", content }] }),
    ];
    await asks[0]();
    return { told: await Promise.all(asks.map((ask) => ask().catch(refusal))) };
  },

  /** Is told what is refused by Chat Completions. */
  async attack() {
    const said = [{ role: "user", content: messages[0] }];
    return { told: await client.chat.completions.create({ model, messages: said }).catch(refusal) };
  },

  /** Two lanes over one connection, which comes back by itself and has said on what was cut off. */
  async lanes() {
    const places = new Map(); // of each lane: the response, and the last event seen of it
    const events = [];
    let left = 2;
    await new Promise((resolve, reject) => {
      const socket = new ResponsesWS(client, {
        reconnect: {
          initialDelay: 10,
          maxDelay: 10,
          onReconnecting: () => ({
            parameters: { continue: [...places].map(([lane, [id, number]]) => `${id}:${number}:${lane}`).join() },
          }),
        },
      });
      socket.on("event", (event) => {
        events.push(event);
        const id = event.response?.id ?? places.get(event.stream_id)?.[0];
        places.set(event.stream_id, [id, event.sequence_number]);
        if (event.type === "response.completed" && --left === 0) {
          socket.close();
          resolve();
        }
      });
      socket.on("error", reject);
      for (const [number, lane] of ["a", "b"].entries()) {
        socket.send({ type: "response.create", model, input: messages[number], stream_id: lane });
      }
    });
    return { events };
  },

  /** Has a conversation be summed up, and goes on from there. */
  async compact() {
    const first = await client.responses.create({ model, input: messages[0] });
    const window = await client.responses.compact({ model, previous_response_id: first.id });
    const second = await client.responses.create({
      model,
      input: [...window.output, { role: "user", content: messages[1] }],
    });
    const items = await client.responses.inputItems.list(second.id, { order: "asc" });
    return { window, text: second.output_text, read: items.data.map((item) => [item.role, item.content[0].text]) };
  },

  /** Chat Completions: a stream with its usage, and a function that is called and answered. */
  async chat() {
    const chunks = await collected(
      await client.chat.completions.create({
        model,
        messages: [{ role: "user", content: messages[0] }],
        stream: true,
        stream_options: { include_usage: true },
      }),
    );
    const tools = [{ type: "function", function: { name: "add", parameters: { type: "object" } } }];
    const said = [{ role: "user", content: messages[1] }];
    const first = await client.chat.completions.create({ model, messages: said, tools });
    const [call] = first.choices[0].message.tool_calls;
    said.push(first.choices[0].message, { role: "tool", tool_call_id: call.id, content: "2" });
    const second = await client.chat.completions.create({ model, messages: said, tools });
    const listed = await collected(client.models.list());
    return {
      text: chunks.map((chunk) => chunk.choices[0]?.delta.content ?? "").join(""),
      usage: chunks.at(-1).usage,
      answer: second.choices[0].message.content,
      models: listed.map((each) => each.id),
    };
  },
};

console.log(JSON.stringify(await scenarios[scenario]()));
