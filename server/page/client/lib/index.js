/** A client for Unbroken. See `docs/typescript-client.md`. */
export { connect, randomId } from "./client.js";
export { ToolFailed } from "./tool.js";
export { AnswerFailed, Restarted, ClientError } from "./turn.js";
