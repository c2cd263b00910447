/** A key for somebody whom the server doesn't know, where its operator lets strangers in. */

const PATH = "/v1/realtime/client_secrets";
const PATIENCE = 10_000;
const TOO_MANY = 429;

/**
 * Ask for a key. It is good for one session, and for whoever comes back to that.
 *
 * @returns {Promise<{key: string | null, reason: string}>} Without a key, strangers aren't let in: for good, or
 *   for the moment, which the reason then says.
 */
export async function keyForStranger() {
  try {
    const response = await fetch(PATH, { method: "POST", signal: AbortSignal.timeout(PATIENCE) });
    const answer = await response.json();
    if (response.ok) return { key: String(answer.value), reason: "" };
    return { key: null, reason: response.status === TOO_MANY ? String(answer.error.message) : "" };
  } catch {
    return { key: null, reason: "" }; // no connection, or not this server's answer: the key can still be entered
  }
}
