/**
 * One session over many connections: when to connect, with what, and when to give a connection up. Pure.
 *
 * It reads no clock and has no socket: it is told what happened and when, and says what to do.
 */

import { Backoff } from "./backoff.js";
import type { KnownEvent, ServerError, ServerEvent, Session } from "./wire.js";

/**
 * How the connection stands. `until` is in milliseconds of `Date.now()`; `reason` is for people, and may be
 * empty. Planned: the server is being restarted, and nothing is wrong. Stopped: it isn't tried again by itself.
 */
export type Status =
  | { readonly phase: "connecting" }
  | { readonly phase: "connected"; readonly isSaved: boolean }
  | { readonly phase: "waiting"; readonly until: number; readonly reason: string; readonly isPlanned: boolean }
  | { readonly phase: "stopped"; readonly code: string; readonly reason: string }
  | { readonly phase: "closed" };

/**
 * How a session follows what was there before. new: it is another one. continued: exactly where the connection
 * was lost. rebuilt: the same one, told from its beginning; what is shown of it is void.
 */
export type Continuity = "new" | "continued" | "rebuilt";

/** What the address of a connection says, beside where the server is. */
export type Query = Readonly<Record<"resume" | "after" | "try", string | null>>;

/** What a link has done. */
export interface LinkTasks {
  status(status: Status): void;
  /** Open a connection; there is none. Fresh: with a key that hasn't been tried yet, if there can be one. */
  open(query: Query, isFresh: boolean): void;
  /** Let go of the connection, whatever becomes of it. */
  shut(): void;
  /** It can be used. */
  ready(session: Session, continuity: Continuity): void;
  /** The session is gone from the server. Another one is begun. */
  ended(hadInput: boolean): void;
  /** What was sent last is larger than the server takes. */
  tooLarge(): void;
  /** Send what the server is sure to answer; false: nothing is being waited for. Urgent: there is reason to doubt. */
  probe(isUrgent: boolean): boolean;
}

/** Close codes after which the same connection may well succeed. All others are final: 1008 above all. */
const RECONNECT: ReadonlySet<number> = new Set([1001, 1005, 1006, 1011, 1012, 1013, 1014, 1015]);
/** Nothing was said for long. It is connected again when there is something to say. */
const IDLE = 1000;
const TOO_LARGE = 1009;
const RESTART = 1012;
/** Said of a key that another one may do better than. */
const OTHER_KEY: ReadonlySet<string> = new Set(["invalid_api_key", "credential_expired", "credential_revoked"]);

/** Milliseconds within which a server that is being restarted is expected back. */
const RESTART_TIME = 60_000;
const BACKOFF_LEAST = 500;
const BACKOFF_MOST = 8_000;
/** A connection that has lasted so long ends a row of failures. */
const STABLE_AFTER = 5_000;
const OPENING_TIMEOUT = 10_000;
/** Silence after which a connection that should say something is probed, and then given up. */
const SILENCE = 10_000;
const PROBE_TIMEOUT = 5_000;
/** Who says something into a long silence finds out so soon whether it was heard. */
const SOON = 2_500;

export class Link {
  /**
   * @param token What the session is resumed with; null: there is none.
   * @param canRenew Whether another key can be had.
   */
  constructor(tasks: LinkTasks, token: string | null, canRenew: boolean, random: () => number) {
    this.#tasks = tasks;
    this.#token = token;
    this.#hadInput = token !== null;
    this.#canRenew = canRenew;
    this.#backoff = new Backoff(BACKOFF_LEAST, BACKOFF_MOST, random);
  }

  readonly #tasks: LinkTasks;
  readonly #backoff: Backoff;
  readonly #canRenew: boolean;
  #phase: "none" | "opening" | "ready" | "waiting" | "closed" = "none";
  #token: string | null;
  /** The last event seen of the session; null: none by this client. */
  #after: string | null = null;
  /** A session without input dies with its connection: before, its token is worth nothing. */
  #hadInput: boolean;
  /** Attempts to connect that came to nothing. A balancer sends another number to another node. */
  #fruitless = 0;
  #isIdle = false;
  /** Whether a key was asked for that hasn't been let in yet. */
  #isRenewed = false;
  #readySince = 0;
  /** When the server last said that it is being restarted. */
  #restarted = -Infinity;
  #heard = 0;
  /** When the silence was last found to be in order. */
  #looked = 0;
  #probed: number | null = null;
  /** The last error, should the connection end now. */
  #error: ServerError | null = null;
  /** When the next attempt begins, or this one is given up. */
  #due = Infinity;

  /** What the session is resumed with; null: there is none yet. */
  get token(): string | null {
    return this.#token;
  }

  /** What to resume it with later, by whomever; null: nothing would be lost. */
  get kept(): string | null {
    return this.#hadInput ? this.#token : null;
  }

  get isReady(): boolean {
    return this.#phase === "ready";
  }

  /** When to call `wake`. May be long past, and `Infinity`. */
  get wakeAt(): number {
    if (this.#phase !== "ready") return this.#due;
    if (this.#probed !== null) return this.#probed + PROBE_TIMEOUT;
    return Math.max(this.#heard, this.#looked) + SILENCE;
  }

  // What whoever uses it wants.

  /** Connect now, whatever the state: to begin, instead of waiting, or after a stop. */
  connect(now: number, isFresh = false): void {
    if (this.#phase === "closed") return;
    this.#detach();
    this.#error = null;
    this.#isIdle = false;
    this.#phase = "opening";
    this.#due = now + OPENING_TIMEOUT; // also for a connection that opens and then says nothing
    this.#tasks.status({ phase: "connecting" });
    // Not every balancer knows when a node is frozen; by the same address, the same one would be asked for ever.
    const attempt = this.#fruitless > 0 ? String(this.#fruitless) : null;
    this.#tasks.open({ resume: this.#token, after: this.#token === null ? null : this.#after, try: attempt }, isFresh);
  }

  /** Connect at once if that is being waited for; otherwise make sure that the connection lives. */
  hurry(now: number): void {
    if (this.#phase === "ready") this.#examine(now, true);
    else if (this.#phase !== "opening") this.connect(now);
  }

  /** Leave the session to itself, and begin another. */
  begin(now: number): void {
    this.#forget();
    this.#backoff.reset();
    this.connect(now);
  }

  /** Connect with another key. */
  useKey(now: number): void {
    this.#backoff.reset();
    this.connect(now);
  }

  /** There is something to say: connect, if the connection was closed for want of it. */
  want(now: number): void {
    if (this.#phase === "none" && this.#isIdle) this.connect(now);
  }

  /** Something is about to be sent. */
  use(now: number): void {
    this.#hadInput = true;
    this.#looked = Math.min(this.#looked, now - SILENCE + SOON);
  }

  /** Leave for good. */
  close(): void {
    this.#detach();
    this.#phase = "closed";
    this.#tasks.status({ phase: "closed" });
  }

  // What happens.

  /** Take in an event; false: it is about the connection, and nobody else's business. */
  receive(event: ServerEvent, now: number): boolean {
    this.#heard = now;
    this.#probed = null;
    const known = event as unknown as KnownEvent;
    if (this.#phase !== "ready") {
      // Until then there is no place in the log: ids of such errors aren't kept.
      if (known.type === "session.created") this.#ready(event, known.session, now);
      else if (known.type === "error") this.#refused(known.error, now);
      return false;
    }
    if (typeof event.event_id === "string") this.#after = event.event_id;
    // Should the connection be closed now, this was why: unless it is about an event.
    this.#error = known.type === "error" && known.error.event_id === undefined ? known.error : null;
    const isSaved = known.type === "session.updated" ? known.session.unbroken.durable : undefined;
    if (isSaved !== undefined) this.#tasks.status({ phase: "connected", isSaved });
    return true;
  }

  /** The connection is gone, or could not be had. *error* is why, where the server's events haven't said so. */
  closed(code: number, now: number, error: ServerError | null = this.#error): void {
    if (this.#phase !== "opening" && this.#phase !== "ready") return; // of a connection that was let go of
    const wasReady = this.#phase === "ready";
    this.#detach();
    if (code === TOO_LARGE) {
      this.#tasks.tooLarge();
    } else if (!RECONNECT.has(code)) {
      this.#isIdle = code === IDLE;
      this.#stop(error?.code ?? `close_${code}`, error?.message ?? `The server closed the connection (${code}).`, now);
      return;
    }
    if (!wasReady) this.#fruitless += 1;
    if (wasReady && now - this.#readySince > STABLE_AFTER) this.#backoff.reset();
    this.#phase = "waiting";
    this.#due = now + this.#backoff.next(error);
    if (code === RESTART) this.#restarted = now;
    const isPlanned = now - this.#restarted < RESTART_TIME;
    const reason = isPlanned ? "" : (error?.message ?? "");
    this.#tasks.status({ phase: "waiting", until: this.#due, reason, isPlanned });
  }

  /** Time has passed. */
  wake(now: number): void {
    if (this.#phase === "ready") this.#examine(now, false);
    else if (now < this.#due) return;
    else if (this.#phase === "opening") this.closed(1006, now);
    else if (this.#phase === "waiting") this.connect(now);
  }

  #ready(event: ServerEvent, session: Session, now: number): void {
    const { resume, resumed, durable } = session.unbroken;
    const isContinued = resumed === true && this.#after !== null;
    const continuity = this.#token === null ? "new" : isContinued ? "continued" : "rebuilt";
    this.#token = resume;
    this.#after = event.event_id ?? null;
    this.#phase = "ready";
    this.#due = Infinity;
    this.#restarted = -Infinity;
    this.#isRenewed = false;
    this.#error = null;
    this.#readySince = now;
    // A session that is resumed had input, so its token is worth something at once.
    if (continuity !== "new") this.#hadInput = true;
    this.#tasks.status({ phase: "connected", isSaved: durable !== false });
    this.#tasks.ready(session, continuity);
  }

  #refused(error: ServerError, now: number): void {
    this.#error = error;
    if (error.code !== "session_not_found") return;
    const hadInput = this.#hadInput;
    this.#forget();
    this.#tasks.ended(hadInput);
    this.connect(now);
  }

  #stop(code: string, reason: string, now: number): void {
    if (this.#canRenew && !this.#isRenewed && OTHER_KEY.has(code)) {
      this.#isRenewed = true;
      this.connect(now, true);
      return;
    }
    this.#tasks.status({ phase: "stopped", code, reason });
  }

  /** Let go of the connection without waiting: one that is dead takes its time to close. */
  #detach(): void {
    if (this.#phase === "opening" || this.#phase === "ready") this.#tasks.shut();
    this.#phase = "none";
    this.#due = Infinity;
    this.#probed = null;
  }

  #forget(): void {
    this.#token = this.#after = null;
    this.#hadInput = false;
  }

  /**
   * Find out whether a silent connection lives. Browsers don't tell: without this, a network
   * that went away without a word leaves a client that waits for an answer for minutes.
   *
   * Urgent: the network has changed, or the machine may have slept.
   */
  #examine(now: number, isUrgent: boolean): void {
    if (this.#probed !== null) {
      if (now - this.#probed >= PROBE_TIMEOUT) this.closed(1006, now);
      return;
    }
    if (now - this.#heard < (isUrgent ? PROBE_TIMEOUT : SILENCE)) return;
    if (this.#tasks.probe(isUrgent)) this.#probed = now;
    else this.#looked = now;
  }
}
