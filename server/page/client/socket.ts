/** One WebSocket: opened as browsers, Node.js or a class of one's own have it, and let go of without waiting. */

import type { ServerError, ServerEvent } from "./wire.js";

/** A class such as npm's `ws` has: it takes headers as its third argument. */
export type WebSocketClass = new (url: string, protocols: string[], options: WebSocketOptions) => { close(): void };

export interface WebSocketOptions {
  readonly headers: Readonly<Record<string, string>>;
}

/** What a socket tells; nothing any more once it was let go of, and nothing behind `closed`. */
export interface SocketHandlers {
  received(event: ServerEvent): void;
  /** It is gone, or couldn't be had. *error*: why, where that is known and no event has said so. */
  closed(code: number, error?: ServerError): void;
}

/** As much of a WebSocket as is used here. */
interface RawSocket {
  onmessage: ((event: { readonly data: unknown }) => void) | null;
  onclose: ((event: { readonly code: number }) => void) | null;
  onerror: (() => void) | null;
  send(data: string): void;
  close(): void;
  /** Of `ws`. */
  on?(name: "unexpected-response", listener: (request: unknown, response: HttpAnswer) => void): void;
}

/** As much of Node.js's `IncomingMessage` as is used here. */
interface HttpAnswer extends AsyncIterable<Uint8Array> {
  readonly statusCode?: number;
  readonly headers: Readonly<Record<string, string | readonly string[] | undefined>>;
}

interface Runtime {
  readonly WebSocket?: new (url: string, options: string[] | { protocols: string[]; headers: object }) => RawSocket;
  readonly process?: { readonly versions?: { readonly node?: string } };
  readonly document?: unknown;
}

const PROTOCOL = "realtime";
const NO_SUCH_KEY: ServerError = { code: "invalid_api_key", message: "The key has characters that no key has." };
const NO_JSON: ServerError = { code: "invalid_frame", message: "The server sent something that can't be understood." };
const POLICY = 1008;
const TRY_AGAIN = 1013;
/** Of the body of a refusal. */
const MOST_BYTES = 65_536;

export class Socket {
  /** @param given A class to use instead of the global one. */
  constructor(url: URL, key: string, given: WebSocketClass | undefined, handlers: SocketHandlers) {
    this.#handlers = handlers;
    let raw;
    try {
      raw = open(url.href, key, given);
    } catch (error) {
      if (!(error instanceof SyntaxError || error instanceof DOMException)) throw error;
      this.#end(POLICY, NO_SUCH_KEY); // the only way to get here: a key that can't be written into a header
      return;
    }
    this.#raw = raw;
    raw.onmessage = ({ data }) => this.#receive(data);
    raw.onclose = ({ code }) => this.#end(code);
    raw.onerror = () => {}; // the close says it; without this, `ws` would throw
    raw.on?.("unexpected-response", (_, response) => void this.#refused(response));
  }

  #handlers: SocketHandlers | null;
  #raw: RawSocket | null = null;

  send(event: object): void {
    this.#raw?.send(JSON.stringify(event));
  }

  /** Let go of it. */
  shut(): void {
    this.#handlers = null;
    this.#raw?.close();
    this.#raw = null;
  }

  #receive(data: unknown): void {
    let event: ServerEvent;
    try {
      event = JSON.parse(String(data)) as ServerEvent;
    } catch {
      this.#end(1007, NO_JSON);
      return;
    }
    this.#handlers?.received(event);
  }

  #end(code: number, error?: ServerError): void {
    const handlers = this.#handlers;
    this.shut();
    if (error === undefined) handlers?.closed(code);
    else handlers?.closed(code, error);
  }

  /** The handshake was answered with another status: `ws` leaves it to us what to make of that. */
  async #refused(response: HttpAnswer): Promise<void> {
    const { statusCode: status = 0, headers } = response;
    let text = "";
    try {
      const decoder = new TextDecoder();
      for await (const chunk of response) {
        text += decoder.decode(chunk, { stream: true });
        if (text.length > MOST_BYTES) break;
      }
    } catch {
      // It was cut: the status says enough.
    }
    const mayPass = status >= 500 || status === 408 || status === 429;
    this.#end(mayPass ? TRY_AGAIN : POLICY, refusalOf(status, text, Number(headers["retry-after"])));
  }
}

function open(url: string, key: string, given: WebSocketClass | undefined): RawSocket {
  const headers: Record<string, string> = key === "" ? {} : { Authorization: `Bearer ${key}` };
  if (given !== undefined) return new given(url, [PROTOCOL], { headers }) as unknown as RawSocket;
  const { WebSocket: own, process, document } = globalThis as unknown as Runtime;
  if (own === undefined) throw new Error("There is no global WebSocket here: give a class, such as that of npm's ws.");
  // Node.js takes headers, as a class that is given does; browsers don't.
  const isNode = process?.versions?.node !== undefined && document === undefined;
  if (isNode) return new own(url, { protocols: [PROTOCOL], headers });
  return new own(url, key === "" ? [PROTOCOL] : [PROTOCOL, `openai-insecure-api-key.${key}`]);
}

function refusalOf(status: number, body: string, retryAfter: number): ServerError {
  const error: ServerError = { code: `http_${status}`, message: `The server refused the connection (${status}).` };
  const asked = retryAfter > 0 ? { unbroken: { retry_after: retryAfter } } : {};
  try {
    const { error: said } = JSON.parse(body) as { error: ServerError };
    return { ...error, code: String(said.code), message: String(said.message), ...asked };
  } catch {
    return { ...error, ...asked }; // not this server's answer, but a balancer's
  }
}
