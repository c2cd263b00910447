/** How long to wait before something is tried again: longer each time, and not all clients in the same moment. Pure. */
import type { ServerError } from "./wire.js";
export declare class Backoff {
    #private;
    /**
     * @param least The longest first wait, in milliseconds.
     * @param most The longest of all.
     * @param random As `Math.random`.
     */
    constructor(least: number, most: number, random: () => number);
    /** Count a failure, and return the milliseconds to wait: never less than *error* asks for, and full jitter beyond. */
    next(error?: ServerError | null): number;
    /** It went well. */
    reset(): void;
}
