/**
 * A conversation held by one of openai's Realtime classes: what an application writes around it.
 *
 * The same for the class on `ws` and the one on the browser's own WebSocket.
 */

/** Seconds after which what is waited for will never come. */
const WAIT = 40;

export class Conversation {
  /** Every frame, over all connections. @type {any[]} */
  frames = [];
  /** What the class itself complained of. @type {string[]} */
  errors = [];
  /** The close codes before each reconnection. @type {number[]} */
  reconnections = [];
  /** The code that ended it for good. @type {number | null} */
  closed = null;

  #token = "";
  #next = 0;
  #wake = () => {};

  /**
   * The address to connect to; again, with the place where the last frame was.
   * This is all that an application does to resume.
   */
  address = (client, { model }) => {
    const url = new URL(`${client.baseURL}/realtime`);
    url.protocol = "wss:";
    url.searchParams.set("model", model);
    if (this.#token) {
      url.searchParams.set("resume", this.#token);
      url.searchParams.set("after", this.frames.at(-1).event_id);
    }
    return url;
  };

  /** Listen to *realtime*, which *reconnects* by itself or doesn't, and speak through it. */
  follow(realtime, reconnects) {
    this.realtime = realtime;
    realtime.on("event", (frame) => {
      this.frames.push(frame);
      if (frame.type === "session.created") this.#token = frame.session.unbroken.resume;
      this.#wake();
    });
    realtime.on("error", (error) => {
      this.errors.push(error.error?.code ?? error.message);
      this.#wake();
    });
    realtime.on("reconnecting", ({ closeCode }) => this.reconnections.push(closeCode));
    if (reconnects) realtime.on("close", (code) => this.#end(code));
    else realtime.socket.addEventListener("close", ({ code }) => this.#end(code));
    return this;
  }

  #end(code) {
    this.closed = code;
    this.#wake();
  }

  /** Return the next frame that *fits*. Frames before it are skipped. */
  async find(fits) {
    const deadline = Date.now() + WAIT * 1000;
    for (;;) {
      while (this.#next < this.frames.length) {
        const frame = this.frames[this.#next++];
        if (fits(frame)) return frame;
      }
      if (this.closed !== null) throw new Error(`closed with ${this.closed}: ${this.errors.join(", ")}`);
      await this.#news(deadline - Date.now());
    }
  }

  #news(milliseconds) {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        reject(new Error(`It never came, after ${JSON.stringify(this.frames.at(-1))}`));
      }, milliseconds);
      this.#wake = () => {
        clearTimeout(timer);
        resolve(undefined);
      };
    });
  }

  /** Wait until it is closed for good, and return the code. */
  async end() {
    while (this.closed === null) await this.#news(WAIT * 1000);
    return this.closed;
  }

  until(type) {
    return this.find((frame) => frame.type === type);
  }

  say(text, item = {}) {
    const content = [{ type: "input_text", text }];
    this.realtime.send({
      type: "conversation.item.create",
      item: { type: "message", role: "user", content, ...item },
    });
  }

  /** Say *text*, and return the response to it once it is whole. */
  async ask(text, response = {}) {
    this.say(text);
    this.realtime.send({ type: "response.create", response });
    return (await this.until("response.done")).response;
  }

  /** Say *text*, cancel when the answer has got as far as *last*, and return the response. */
  async askAndCancel(text, last) {
    this.say(text);
    this.realtime.send({ type: "response.create" });
    let said = "";
    while (!said.endsWith(last)) said += (await this.until("response.output_text.delta")).delta;
    this.realtime.send({ type: "response.cancel" });
    return (await this.until("response.done")).response;
  }

  /** What is handed to the test. */
  report() {
    const { frames, errors, reconnections, closed } = this;
    return { frames, errors, reconnections, closed };
  }
}
