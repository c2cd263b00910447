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
    run(given: any, context: ToolContext): unknown;
}
export interface ToolContext {
    readonly callId: string;
    /** Aborted when its turn is stopped, and when it takes too long. */
    readonly signal: AbortSignal;
}
/** For tools to throw: the model reads the message. */
export declare class ToolFailed extends Error {
}
/** How a tool is told to the server. */
export declare function described({ name, description, parameters }: Tool): object;
/** Run *calls*, all at once, for up to *timeout* milliseconds. Never fails. */
export declare function runAll(calls: readonly Call[], tools: ReadonlyMap<string, Tool>, signal: AbortSignal, timeout: number): Promise<Output[]>;
