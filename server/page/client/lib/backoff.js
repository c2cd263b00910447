/** How long to wait before something is tried again: longer each time, and not all clients in the same moment. Pure. */
/** Milliseconds. Whatever a server asks for, who waits longer looks dead. */
const MOST_ASKED = 300_000;
export class Backoff {
    /**
     * @param least The longest first wait, in milliseconds.
     * @param most The longest of all.
     * @param random As `Math.random`.
     */
    constructor(least, most, random) {
        this.#least = least;
        this.#most = most;
        this.#random = random;
    }
    #least;
    #most;
    #random;
    #failures = 0;
    /** Count a failure, and return the milliseconds to wait: never less than *error* asks for, and full jitter beyond. */
    next(error) {
        const asked = Number(error?.unbroken?.retry_after) * 1_000;
        const own = this.#random() * Math.min(this.#most, this.#least * 2 ** this.#failures);
        this.#failures += 1;
        return own + (asked > 0 ? Math.min(asked, MOST_ASKED) : 0);
    }
    /** It went well. */
    reset() {
        this.#failures = 0;
    }
}
