/**
 * Functions that the agent may call and this client runs.
 *
 * What goes wrong in one is told to the model, never to whoever waits for the answer: the model can say so, or
 * try again. Of an exception it is told the kind alone, for its text may be nobody else's business;
 * `ToolFailed` is for what the model should read.
 */

import type { Call } from "./answers.js";
import type { Output } from "./effects.js";

export interface Tool {
  /** 1 to 64 letters, digits, `_` and `-`. */
  readonly name: string;
  /** When to call it, and what it returns. */
  readonly description?: string;
  /** A JSON Schema of its arguments. */
  readonly parameters?: Readonly<Record<string, unknown>>;
  /**
   * Run it. What it returns is sent as it is, if that is a string, else as JSON. It is called once for each call;
   * where the program was restarted meanwhile, once more.
   */
  // What the model writes may be anything: the schema is no more than asked for.
  run(given: any, context: ToolContext): unknown;
}

export interface ToolContext {
  readonly callId: string;
  /** Aborted when its turn is stopped, and when it takes too long. */
  readonly signal: AbortSignal;
}

/** For tools to throw: the model reads the message. */
export class ToolFailed extends Error {}

/** Bytes of what a tool returns: a frame has a bound. */
const MOST = 48_000;

/** How a tool is told to the server. */
export function described({ name, description, parameters }: Tool): object {
  const said = description === undefined ? {} : { description };
  return { type: "function", name, ...said, parameters: parameters ?? { type: "object", properties: {} } };
}

/** Run *calls*, all at once, for up to *timeout* milliseconds. Never fails. */
export function runAll(
  calls: readonly Call[],
  tools: ReadonlyMap<string, Tool>,
  signal: AbortSignal,
  timeout: number,
): Promise<Output[]> {
  const one = async (call: Call): Promise<Output> => {
    return { call_id: call.call_id, output: await run(call, tools.get(call.name), signal, timeout) };
  };
  return Promise.all(calls.map(one));
}

async function run(call: Call, tool: Tool | undefined, stopped: AbortSignal, timeout: number): Promise<string> {
  const given = parsed(call.arguments);
  if (tool === undefined) return failure("There is no such function.");
  if (given === null) return failure("The arguments must be a JSON object.");
  const over = new AbortController();
  const { signal } = over;
  const stop = () => over.abort();
  stopped.addEventListener("abort", stop);
  const ended = new Promise<never>((_, reject) => {
    signal.addEventListener("abort", () => reject(new ToolFailed("The function took too long.")));
  });
  const timer = setTimeout(stop, timeout);
  try {
    // In a function, so that one that throws at once fails no otherwise than one that rejects.
    const running = (async () => tool.run(given, { callId: call.call_id, signal }))();
    return written(await Promise.race([running, ended]));
  } catch (error) {
    if (error instanceof ToolFailed) return failure(error.message);
    return failure(`The function failed: ${error instanceof Error ? error.name : typeof error}.`);
  } finally {
    clearTimeout(timer);
    stopped.removeEventListener("abort", stop);
  }
}

function parsed(written: string): object | null {
  try {
    const given: unknown = JSON.parse(written);
    return typeof given === "object" && !Array.isArray(given) ? given : null;
  } catch {
    return null;
  }
}

function written(returned: unknown): string {
  const output = typeof returned === "string" ? returned : (JSON.stringify(returned) ?? "");
  const isTooLong = new TextEncoder().encode(output).length > MOST;
  return isTooLong ? failure("What the function returned is too long.") : output;
}

function failure(error: string): string {
  return JSON.stringify({ error });
}
