/** A turn: what was said, and the answer to it, as it comes. */

import type { Result } from "./answers.js";

/** What went wrong, by its code. */
export class ClientError extends Error {
  constructor(
    /** As in `docs/protocol.md`, or one of this client's own: `queue_full`, `closed`, `session_lost`. */
    readonly code: string,
    message: string,
    /** Seconds after which the same may succeed; null: nobody has said. */
    readonly retryAfter: number | null = null,
  ) {
    super(message);
    this.name = "ClientError";
  }
}

/** The server failed to answer. */
export class AnswerFailed extends ClientError {
  constructor(
    code: string,
    message: string,
    retryAfter: number | null,
    /** What had been said of the answer. */
    readonly text: string,
  ) {
    super(code, message, retryAfter);
    this.name = "AnswerFailed";
  }
}

/**
 * What was read of the answer until now is void. This is the answer as it stands; what follows goes on from it.
 *
 * It comes when the server couldn't go on from where the connection was lost, and the answer isn't what it
 * was, or when it has begun the answer anew. As a string it is its text in a new line.
 */
export class Restarted {
  constructor(readonly text: string) {}

  toString(): string {
    return `\n${this.text}`;
  }
}

/** What comes of an answer: more of it, or all of it anew. */
export type Piece = string | Restarted;

/** What a turn shows of an answer, written by whoever gets it. Whoever is slow gets larger pieces, never a queue. */
export class Feed {
  text = "";
  restarts = 0;
  result: Result | null = null;
  error: ClientError | null = null;
  #waiting: (() => void)[] = [];

  add(text: string): void {
    this.text += text;
    this.#wake();
  }

  restart(text: string): void {
    this.text = text;
    this.restarts += 1;
    this.#wake();
  }

  end(result: Result): void {
    this.result = result;
    this.#wake();
  }

  fail(error: ClientError): void {
    this.error = error;
    this.#wake();
  }

  /** Wait until something changes. */
  change(): Promise<void> {
    return new Promise((resolve) => this.#waiting.push(resolve));
  }

  #wake(): void {
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const wake of waiting) wake();
  }
}

export class Turn implements AsyncIterable<Piece> {
  /** Made by a client. */
  constructor(
    /** Of the turn; of a message, it is the item's. */
    readonly id: string,
    feed: Feed,
    stop: () => void,
  ) {
    this.#feed = feed;
    this.#stop = stop;
  }

  readonly #feed: Feed;
  readonly #stop: () => void;

  /** What has been said so far. */
  get text(): string {
    return this.#feed.text;
  }

  /** Whether it has ended: `result` waits for nothing. */
  get isOver(): boolean {
    return this.#feed.result !== null || this.#feed.error !== null;
  }

  /** Stop it: before it was sent, before it is answered, or in mid-answer. What was said is kept. */
  stop(): void {
    if (!this.isOver) this.#stop();
  }

  /**
   * Wait for the end, and return the whole answer. One that was stopped or cut short is an answer, too.
   *
   * @throws AnswerFailed The server failed to answer, or lost the session before it had.
   * @throws ClientError It has refused the message for good, or the client was closed.
   */
  async result(): Promise<Result> {
    const feed = this.#feed;
    for (;;) {
      if (feed.result !== null) return feed.result;
      if (feed.error !== null) throw feed.error;
      await feed.change();
    }
  }

  /**
   * The answer from its beginning, piece by piece, each once, whatever connections do.
   *
   * @throws ClientError As `result` does, behind the last piece.
   */
  async *[Symbol.asyncIterator](): AsyncGenerator<Piece, void, void> {
    const feed = this.#feed;
    let seen = 0;
    let { restarts } = feed;
    for (;;) {
      if (feed.restarts !== restarts) {
        restarts = feed.restarts;
        seen = feed.text.length;
        yield new Restarted(feed.text);
      } else if (seen < feed.text.length) {
        const text = feed.text.slice(seen);
        seen = feed.text.length;
        yield text;
      } else if (feed.error !== null) {
        throw feed.error;
      } else if (feed.result !== null) {
        return;
      } else {
        await feed.change();
      }
    }
  }
}
