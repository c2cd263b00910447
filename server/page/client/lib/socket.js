/** One WebSocket: opened as browsers, Node.js or a class of one's own have it, and let go of without waiting. */
const PROTOCOL = "realtime";
const NO_SUCH_KEY = { code: "invalid_api_key", message: "The key has characters that no key has." };
const NO_JSON = { code: "invalid_frame", message: "The server sent something that can't be understood." };
const POLICY = 1008;
const TRY_AGAIN = 1013;
/** Of the body of a refusal. */
const MOST_BYTES = 65_536;
export class Socket {
    /** @param given A class to use instead of the global one. */
    constructor(url, key, given, handlers) {
        this.#handlers = handlers;
        let raw;
        try {
            raw = open(url.href, key, given);
        }
        catch (error) {
            if (!(error instanceof SyntaxError || error instanceof DOMException))
                throw error;
            this.#end(POLICY, NO_SUCH_KEY); // the only way to get here: a key that can't be written into a header
            return;
        }
        this.#raw = raw;
        raw.onmessage = ({ data }) => this.#receive(data);
        raw.onclose = ({ code }) => this.#end(code);
        raw.onerror = () => { }; // the close says it; without this, `ws` would throw
        raw.on?.("unexpected-response", (_, response) => void this.#refused(response));
    }
    #handlers;
    #raw = null;
    send(event) {
        this.#raw?.send(JSON.stringify(event));
    }
    /** Let go of it. */
    shut() {
        this.#handlers = null;
        this.#raw?.close();
        this.#raw = null;
    }
    #receive(data) {
        let event;
        try {
            event = JSON.parse(String(data));
        }
        catch {
            this.#end(1007, NO_JSON);
            return;
        }
        this.#handlers?.received(event);
    }
    #end(code, error) {
        const handlers = this.#handlers;
        this.shut();
        if (error === undefined)
            handlers?.closed(code);
        else
            handlers?.closed(code, error);
    }
    /** The handshake was answered with another status: `ws` leaves it to us what to make of that. */
    async #refused(response) {
        const { statusCode: status = 0, headers } = response;
        let text = "";
        try {
            const decoder = new TextDecoder();
            for await (const chunk of response) {
                text += decoder.decode(chunk, { stream: true });
                if (text.length > MOST_BYTES)
                    break;
            }
        }
        catch {
            // It was cut: the status says enough.
        }
        const mayPass = status >= 500 || status === 408 || status === 429;
        this.#end(mayPass ? TRY_AGAIN : POLICY, refusalOf(status, text, Number(headers["retry-after"])));
    }
}
function open(url, key, given) {
    const headers = key === "" ? {} : { Authorization: `Bearer ${key}` };
    if (given !== undefined)
        return new given(url, [PROTOCOL], { headers });
    const { WebSocket: own, process, document } = globalThis;
    if (own === undefined)
        throw new Error("There is no global WebSocket here: give a class, such as that of npm's ws.");
    // Node.js takes headers, as a class that is given does; browsers don't.
    const isNode = process?.versions?.node !== undefined && document === undefined;
    if (isNode)
        return new own(url, { protocols: [PROTOCOL], headers });
    return new own(url, key === "" ? [PROTOCOL] : [PROTOCOL, `openai-insecure-api-key.${key}`]);
}
function refusalOf(status, body, retryAfter) {
    const error = { code: `http_${status}`, message: `The server refused the connection (${status}).` };
    const asked = retryAfter > 0 ? { unbroken: { retry_after: retryAfter } } : {};
    try {
        const { error: said } = JSON.parse(body);
        return { ...error, code: String(said.code), message: String(said.message), ...asked };
    }
    catch {
        return { ...error, ...asked }; // not this server's answer, but a balancer's
    }
}
