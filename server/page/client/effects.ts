/** What a core is given, what it wants done, and what is kept of it: its words with the shell around it. */

import type { BegunTurn, Call, Failure, Result } from "./answers.js";
import type { Stage } from "./delivery.js";
import type { Continuity, Query, Status } from "./link.js";
import type { Entry } from "./outbox.js";
import type { ClientEvent, ServerError, ServerEvent, Session } from "./wire.js";

/** What a client is to go on with after a reload, or in another process. Plain data; it holds a secret. */
export interface State {
  /** What the session is resumed with; null: there is none that anything was said in. */
  readonly session: string | null;
  /** What was said and the server isn't known to answer, in order. */
  readonly unsent: readonly Entry[];
  /** Turns whose answers had begun. */
  readonly begun: readonly BegunTurn[];
}

/** What a function returned. */
export interface Output {
  readonly call_id: string;
  readonly output: string;
}

/** Whether an answer is on its way, or about to be stopped. */
export type Activity = "idle" | "answering" | "stopping";

/** What those who show a conversation are told. */
export interface Happenings {
  status: Status;
  /** A connection is ready for use. */
  session: { readonly session: Session; readonly continuity: Continuity };
  /**
   * What was shown is void. snapshot: the same session is told anew, as it stands. ended: the session is gone from
   * the server, and another one begins, whose agent knows nothing of it. `hadInput`: something was said in it.
   */
  reset: { readonly reason: "snapshot" | "ended"; readonly hadInput: boolean };
  /** Any event of the server's behind `session.created`: each once, in order. */
  event: ServerEvent;
  /** What was said is on its way. */
  entry: { readonly entry: Entry; readonly stage: Stage; readonly error?: ServerError };
  activity: Activity;
  /** Something went wrong that is about nothing that is on its way. */
  error: ServerError;
}

/** What is to be done. */
export type Effect =
  | { readonly do: "open"; readonly query: Query; readonly isFresh: boolean }
  | { readonly do: "shut" }
  | { readonly do: "send"; readonly event: ClientEvent }
  /** Keep the state anew, before anything that follows. */
  | { readonly do: "save" }
  | { readonly do: "call"; readonly turn: string; readonly calls: readonly Call[] }
  /** Nobody waits any more for what the turn's functions return. */
  | { readonly do: "abort"; readonly turn: string }
  | { readonly do: "delta" | "restart"; readonly turn: string; readonly text: string }
  | { readonly do: "end"; readonly turn: string; readonly result: Result }
  | { readonly do: "fail"; readonly turn: string; readonly failure: Failure }
  | { readonly do: "refuse"; readonly turn: string; readonly error: ServerError }
  | Telling[keyof Happenings];

/** For each name, that those who listen are told. */
type Telling = {
  readonly [name in keyof Happenings]: { readonly do: "tell"; readonly name: name; readonly told: Happenings[name] };
};

export interface CoreOptions {
  readonly state: State | null;
  /** What the session is to be like: what `session.update` takes. */
  readonly session: Readonly<Record<string, unknown>> | null;
  /** Entries that may wait to be sent. */
  readonly maxUnsent: number;
  /** Whether another key can be had. */
  readonly canRenew: boolean;
  /** Whether this client runs functions of that name. */
  readonly canRun: (name: string) => boolean;
  /** As `Math.random`. */
  readonly random: () => number;
  /** An id of so many random bytes. */
  readonly newId: (bytes: number) => string;
}
