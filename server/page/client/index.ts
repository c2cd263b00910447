/** A client for Unbroken. See `docs/typescript-client.md`. */

export type { Call, Result } from "./answers.js";
export type { Stage } from "./delivery.js";
export type { Client, ClientEvents, ConnectOptions, RetryOptions, SendOptions } from "./client.js";
export { connect, randomId } from "./client.js";
export type { Activity, State } from "./effects.js";
export type { Continuity, Status } from "./link.js";
export type { Entry, EntryKind } from "./outbox.js";
export type { WebSocketClass, WebSocketOptions } from "./socket.js";
export type { Tool, ToolContext } from "./tool.js";
export { ToolFailed } from "./tool.js";
export type { Piece, Turn } from "./turn.js";
export { AnswerFailed, Restarted, ClientError } from "./turn.js";
export type * from "./wire.js";
