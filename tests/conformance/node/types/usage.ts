/** The client's types, as a program in TypeScript meets them. Compiled by `test_own_client_core`, and never run. */

import WebSocket from "ws";

import type { Client, Piece, State, Tool } from "../../../../server/page/client/lib/index.js";
import { AnswerFailed, connect, Restarted, ToolFailed, ClientError } from "../../../../server/page/client/lib/index.js";

const weather: Tool = {
  name: "weather",
  parameters: { type: "object", properties: { city: { type: "string" } } },
  async run({ city }: { city: string }, { signal }) {
    if (signal.aborted) throw new ToolFailed("It is over.");
    return { weather: `Rain in ${city}.` };
  },
};

export async function talk(kept: State | null): Promise<string> {
  const chat: Client = connect({
    url: new URL("https://example.org"),
    token: () => Promise.resolve("ek_key"),
    state: kept,
    session: { instructions: "Be brief." },
    tools: [weather],
    WebSocket,
  });
  chat.on("status", (status) => {
    if (status.phase === "waiting") console.log(status.until, status.reason);
    // @ts-expect-error: only who waits has a time
    console.log(status.until);
  });
  const off = chat.on("state", ({ session, unsent }) => console.log(session?.length, unsent.length));
  off();
  const turn = chat.send([{ type: "input_text", text: "Hello" }], { note: { text: "Hello" } });
  let said = "";
  try {
    for await (const piece of turn) said = joined(said, piece);
    const { text, status, approvals } = await turn.result();
    const [request] = approvals;
    if (request !== undefined) await chat.decide(request.id, true, "as agreed")?.result();
    return status === "completed" ? text : said;
  } catch (error) {
    if (error instanceof AnswerFailed) return error.text;
    if (error instanceof ClientError) return `${error.code} ${error.retryAfter ?? 0}`;
    throw error;
  } finally {
    chat.close();
  }
}

function joined(said: string, piece: Piece): string {
  return piece instanceof Restarted ? piece.text : said + piece;
}

// @ts-expect-error: a server has to be somewhere
connect({ key: "ek_key" });
