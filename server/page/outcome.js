/** How answers end, in words for people. */

/**
 * @typedef {"completed" | "cancelled" | "incomplete" | "failed"} Status
 * @typedef {{status: Status, text: string, canRetry: boolean}} Outcome `text` may be empty: there is nothing to add.
 */

/** @type {Record<string, string>} */
const REASONS = {
  max_output_tokens: "Cut short: the answer reached the longest that is allowed.",
  content_filter: "Cut short by the content filter.",
};

/** @type {Outcome} */
export const LOST = {
  status: "failed",
  text: "The server lost the conversation before the answer was complete.",
  canRetry: true,
};

/** @param {any} response As `response.done` has it. @returns {Outcome} */
export function outcomeOf({ status, status_details: details, output, unbroken }) {
  switch (status) {
    case "completed":
      // Tools alone are no answer: something was to be said with what they gave.
      return output.some((/** @type {any} */ item) => item.type !== "mcp_call")
        ? { status, text: "", canRetry: false }
        : { status, text: "The answer is empty.", canRetry: true };
    case "cancelled":
      return unbroken?.reason === "superseded"
        ? { status, text: "Stopped: a newer message took its place.", canRetry: false }
        : { status, text: "Stopped.", canRetry: true };
    case "incomplete":
      return { status, text: REASONS[details?.reason] ?? `Incomplete: ${details?.reason}.`, canRetry: false };
    default:
      return {
        status: "failed",
        text: unbroken?.message ?? `The answer failed (${details?.error?.code ?? "no reason given"}).`,
        canRetry: true,
      };
  }
}

/** @param {string} status Of an item. @returns {Outcome} Of an answer of which no more is known. */
export function outcomeOfItem(status) {
  return status === "completed"
    ? { status: "completed", text: "", canRetry: false }
    : { status: "incomplete", text: "Incomplete.", canRetry: false };
}
