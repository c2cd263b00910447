/** One WebSocket: opened as browsers, Node.js or a class of one's own have it, and let go of without waiting. */
import type { ServerError, ServerEvent } from "./wire.js";
/** A class such as npm's `ws` has: it takes headers as its third argument. */
export type WebSocketClass = new (url: string, protocols: string[], options: WebSocketOptions) => {
    close(): void;
};
export interface WebSocketOptions {
    readonly headers: Readonly<Record<string, string>>;
}
/** What a socket tells; nothing any more once it was let go of, and nothing behind `closed`. */
export interface SocketHandlers {
    received(event: ServerEvent): void;
    /** It is gone, or couldn't be had. *error*: why, where that is known and no event has said so. */
    closed(code: number, error?: ServerError): void;
}
export declare class Socket {
    #private;
    /** @param given A class to use instead of the global one. */
    constructor(url: URL, key: string, given: WebSocketClass | undefined, handlers: SocketHandlers);
    send(event: object): void;
    /** Let go of it. */
    shut(): void;
}
