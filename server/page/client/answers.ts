/**
 * What turns come to: the text of each as it grows, and how it ends. Each piece is told once. Pure.
 *
 * Where the log is told anew, what a turn has been told is compared with what there is now: usually only the
 * rest is told. Where the two don't fit, the turn is told so, and gets the text from its beginning.
 */

import type { Item, Response, ServerError } from "./wire.js";

/** A function that the agent calls. */
export interface Call {
  readonly call_id: string;
  readonly name: string;
  /** As the model wrote them: JSON, if it did as it was told. */
  readonly arguments: string;
}

/** How a turn ended. */
export interface Result {
  /** unknown: the server doesn't know any more; what is known of the answer is its text, which may be cut short. */
  readonly status: "completed" | "cancelled" | "incomplete" | "unknown";
  /** The whole answer; behind a call of functions too. */
  readonly text: string;
  /**
   * Why it is `incomplete` (`max_output_tokens`, `content_filter`, `quota_exceeded`) or `cancelled`
   * (`client_cancelled`, `superseded`); else null.
   */
  readonly reason: string | null;
  /** What was billed for the last response; null: nobody has said. */
  readonly usage: Readonly<Record<string, unknown>> | null;
  /** Functions that were called and that this client doesn't run. */
  readonly calls: readonly Call[];
  /** Calls that wait for somebody's approval. */
  readonly approvals: readonly Item[];
  /** The last response, as the server shows it; null: it was forgotten, or there was none. */
  readonly response: Response | null;
}

/** How an answer failed. */
export interface Failure {
  readonly code: string;
  readonly message: string;
  readonly retryAfter: number | null;
  readonly text: string;
}

/** How a turn ends, once its answer has begun. */
export type Ending = Result | Failure;

/** A turn whose answer has begun, as it is kept. */
export interface BegunTurn {
  readonly id: string;
  readonly about: string;
  /** The names of its wishes for an answer: one, and one more for each time that functions were called. */
  readonly requests: readonly string[];
}

/** What turns have done. */
export interface AnswerTasks {
  /** More was said. */
  delta(turn: string, text: string): void;
  /** What was told is void; this is the text so far. */
  restart(turn: string, text: string): void;
  end(turn: string, result: Result): void;
  fail(turn: string, failure: Failure): void;
  refuse(turn: string, error: ServerError): void;
  /** Run these functions, and say what they returned. */
  call(turn: string, calls: readonly Call[]): void;
  /** Their functions have returned, as the log tells: ask for the answer to that. */
  goOn(turn: string): void;
}

interface Part {
  readonly response: string;
  readonly item: string;
  text: string;
}

interface Answer extends Omit<BegunTurn, "requests"> {
  requests: readonly string[];
  /** Its response that runs, or that was interrupted and may be attempted again. */
  response: string | null;
  parts: Part[];
  /** Its items, as far as they were known before the log was told anew. */
  known: readonly string[];
  /** What the turn has been told. */
  told: string;
  /** The calls that it waits for; null: none. */
  owed: readonly Call[] | null;
  /** How it ends, unless the log says otherwise. */
  end: Ending | null;
}

/** What the log told of items since it has been told anew. */
interface Replay {
  /** In the order of the conversation. */
  items: Item[];
  /** The calls whose functions have returned. */
  readonly returned: Set<string>;
}

/** Names of wishes for an answer that are known of a turn. */
const MOST_REQUESTS = 64;
/** Items that a response has, beside messages. */
const OUTPUTS: ReadonlySet<string> = new Set(["function_call", "mcp_call", "mcp_approval_request"]);
const FAILED = "The answer failed.";

export class Answers {
  /** @param canRun Whether this client runs functions of that name. */
  constructor(tasks: AnswerTasks, canRun: (name: string) => boolean) {
    this.#tasks = tasks;
    this.#canRun = canRun;
  }

  readonly #tasks: AnswerTasks;
  readonly #canRun: (name: string) => boolean;
  readonly #answers = new Map<string, Answer>();
  /** Not null: the log is being told anew, and turns are told nothing until it has been. */
  #replay: Replay | null = null;

  /** The turns that haven't ended. */
  get turns(): readonly string[] {
    return [...this.#answers.keys()];
  }

  /** Whether an end isn't certain: then the log has to tell what follows. */
  get isDoubtful(): boolean {
    return this.#find(({ end }) => end !== null) !== undefined;
  }

  /** Those whose answers have begun, as they are kept. */
  copy(): BegunTurn[] {
    return [...this.#answers.values()]
      .filter(({ requests }) => requests.length > 0)
      .map(({ id, about, requests }) => ({ id, about, requests: [...requests] }));
  }

  // What whoever uses it does.

  /** A turn begins, or goes on. *requests*: it is known from before. */
  begin(id: string, about: string, requests: readonly string[] = []): void {
    if (this.#answers.has(id)) return;
    const begun = { response: null, parts: [], known: [], told: "", owed: null, end: null };
    this.#answers.set(id, { id, about, requests, ...begun });
  }

  /** What was asked for under that name is the turn's. */
  asked(id: string, request: string): void {
    const answer = this.#answers.get(id);
    if (answer !== undefined) answer.requests = [...answer.requests, request].slice(-MOST_REQUESTS);
  }

  /** The turn's functions have returned. */
  returned(id: string): void {
    const answer = this.#answers.get(id);
    if (answer !== undefined) answer.owed = null;
  }

  /** The response of a turn that runs; null: none does. */
  responseOf(id: string): string | null {
    return this.#answers.get(id)?.response ?? null;
  }

  /** What became of it is forgotten. */
  forget(id: string): void {
    this.#end(id, { ...ENDED, status: "unknown" });
  }

  /** It was stopped, or nobody waits for it, and nothing more comes of it. */
  cancel(id: string): void {
    this.#end(id, { ...ENDED, status: "cancelled" });
  }

  /** It ends without another answer: a decision, where others are waited for. */
  complete(id: string): void {
    this.#end(id, ENDED);
  }

  refuse(id: string, error: ServerError): void {
    if (this.#answers.delete(id)) this.#tasks.refuse(id, error);
  }

  /** The session has ended. All fail but those of *living*, which go to the next one. */
  lose(living: ReadonlySet<string>, code: string, message: string): void {
    this.#replay = null;
    for (const answer of [...this.#answers.values()]) {
      answer.parts = [];
      answer.response = answer.end = answer.owed = null;
      answer.requests = [];
      if (living.has(answer.id)) this.#publish(answer);
      else this.#finish(answer, { code, message, retryAfter: null, text: answer.told });
    }
  }

  // What the log tells.

  /** The log is told anew. */
  rebuild(): void {
    this.#replay = { items: [], returned: new Set() };
    for (const answer of this.#answers.values()) {
      if (answer.parts.length > 0) answer.known = answer.parts.map(({ item }) => item);
      answer.parts = [];
      answer.response = answer.end = answer.owed = null;
    }
  }

  created({ id, metadata }: Response): void {
    const request = metadata?.["request"];
    const answer = this.#find(({ requests }) => request !== undefined && requests.includes(request));
    if (answer === undefined) return;
    // Its node was lost, and it is attempted again: what the first attempt said is void.
    if (answer.response !== null) answer.parts = answer.parts.filter(({ response }) => response !== answer.response);
    answer.response = id;
    answer.end = null;
    this.#publish(answer);
  }

  said(response: string, item: string, text: string): void {
    const answer = this.#find((each) => each.response === response);
    if (answer === undefined) return;
    const last = answer.parts.at(-1);
    if (last?.item === item) last.text += text;
    else answer.parts.push({ response, item, text });
    if (this.#replay !== null) return;
    answer.told += text;
    this.#tasks.delta(answer.id, text);
  }

  /** An item is in the conversation, and whole: behind *previous*, or before all others. */
  noted(item: Item, previous: string | undefined): void {
    if (this.#replay === null) return;
    const { items, returned } = this.#replay;
    const before = items.findIndex(({ id }) => id === previous);
    items.splice(previous === undefined ? 0 : before < 0 ? items.length : before + 1, 0, item);
    if (item.type === "function_call_output") returned.add(item.call_id ?? "");
  }

  /**
   * Whether, as the log has been told anew, an answer stands behind the item *id*, other than *drop*.
   *
   * Its response may be forgotten: then nothing else tells that what was asked for has been answered.
   */
  stands(id: string, drop: readonly string[]): boolean {
    const items = behind(id, this.#replay?.items ?? []);
    return items.some((item) => !drop.includes(item.id) && (item.role === "assistant" || OUTPUTS.has(item.type)));
  }

  /** An item isn't in the conversation any more. */
  deleted(id: string): void {
    if (this.#replay !== null) this.#replay.items = this.#replay.items.filter((item) => item.id !== id);
  }

  done(response: Response): void {
    const answer = this.#find((each) => each.response === response.id);
    if (answer === undefined) return;
    const { id } = response;
    const whole = response.output.filter(({ type }) => type === "message").map((item) => partOf(id, item));
    answer.parts = [...answer.parts.filter((part) => part.response !== id), ...whole];
    this.#publish(answer);
    const calls = response.output.filter(isCall).map(callOf);
    const end = endingOf(response, textOf(answer), calls);
    if (response.unbroken?.status === "interrupted") {
      answer.end = end; // another attempt may follow: then the log tells it at once
      return;
    }
    answer.response = null;
    if (response.status !== "completed" || calls.length === 0 || !calls.every(({ name }) => this.#canRun(name))) {
      if (this.#replay === null) this.#finish(answer, end);
      else answer.end = end;
      return;
    }
    answer.owed = calls;
    if (this.#replay === null) this.#tasks.call(answer.id, calls);
  }

  /**
   * All that happened before has been told.
   *
   * @param waiting The turns that have something waiting to be sent.
   */
  caughtUp(waiting: ReadonlySet<string>): void {
    const replay = this.#replay;
    this.#replay = null;
    for (const answer of [...this.#answers.values()]) {
      if (replay !== null && answer.requests.length > 0) complete(answer, replay.items);
      this.#publish(answer);
      if (answer.end !== null) this.#finish(answer, answer.end);
      else if (waiting.has(answer.id)) answer.owed = null; // what they returned is on its way
      else if (replay !== null) this.#settle(answer, replay);
    }
  }

  /** What becomes of a turn for which nothing waits, now that the log has been told anew. */
  #settle(answer: Answer, { items, returned }: Replay): void {
    if (answer.response !== null) return;
    const wasTold = answer.owed !== null;
    const called = answer.owed ?? standing(answer, items).filter(isCall).map(callOf);
    const owed = called.filter(({ call_id: id, name }) => !returned.has(id) && this.#canRun(name));
    answer.owed = owed.length > 0 ? owed : null;
    if (owed.length > 0) this.#tasks.call(answer.id, owed);
    else if (wasTold) this.#tasks.goOn(answer.id);
    else this.#finish(answer, remembered(answer, items));
  }

  /** Tell the turn what it hasn't been told. */
  #publish(answer: Answer): void {
    if (this.#replay !== null) return;
    const text = textOf(answer);
    const { id, told } = answer;
    if (text === told) return;
    answer.told = text;
    if (text.startsWith(told)) this.#tasks.delta(id, text.slice(told.length));
    else this.#tasks.restart(id, text);
  }

  #finish(answer: Answer, ending: Ending): void {
    if (ending.text !== answer.told) {
      answer.parts = [{ response: "", item: "", text: ending.text }];
      this.#publish(answer);
    }
    this.#answers.delete(answer.id);
    if ("code" in ending) this.#tasks.fail(answer.id, ending);
    else this.#tasks.end(answer.id, ending);
  }

  #end(id: string, result: Result): void {
    const answer = this.#answers.get(id);
    if (answer === undefined) return;
    this.#answers.delete(id);
    this.#tasks.end(id, { ...result, text: answer.told });
  }

  #find(test: (answer: Answer) => boolean): Answer | undefined {
    for (const answer of this.#answers.values()) if (test(answer)) return answer;
    return undefined;
  }
}

const ENDED: Result = {
  status: "completed",
  text: "",
  reason: null,
  usage: null,
  calls: [],
  approvals: [],
  response: null,
};

function textOf({ parts }: Answer): string {
  return parts.map(({ text }) => text).join("");
}

function partOf(response: string, item: Item): Part {
  return { response, item: item.id, text: spoken(item) };
}

function spoken({ content = [] }: Item): string {
  return content.map(({ text = "" }) => text).join("");
}

/** Whether it is a call of a function that is to be run. */
function isCall({ type, status }: Item): boolean {
  return type === "function_call" && status === "completed";
}

function callOf({ call_id = "", name = "", arguments: written = "" }: Item): Call {
  return { call_id, name, arguments: written };
}

function endingOf(response: Response, text: string, calls: readonly Call[]): Ending {
  const { status, status_details: details, unbroken } = response;
  if (status === "failed" || status === "in_progress") {
    const code = details?.error?.code ?? "unknown_failure";
    return { code, message: unbroken?.message ?? FAILED, retryAfter: unbroken?.retry_after ?? null, text };
  }
  return {
    status,
    text,
    reason: status === "completed" ? null : (unbroken?.reason ?? details?.reason ?? null),
    usage: response.usage ?? null,
    calls,
    approvals: response.output.filter(({ type }) => type === "mcp_approval_request"),
    response,
  };
}

/** What stands behind an item, up to the next message of a user's. */
function behind(about: string, items: readonly Item[]): readonly Item[] {
  const asked = items.findIndex(({ id }) => id === about);
  const rest = asked < 0 ? [] : items.slice(asked + 1);
  const next = rest.findIndex(({ role }) => role === "user");
  return next < 0 ? rest : rest.slice(0, next);
}

/** What stands in the conversation of an answer: what was known of it, and what follows that. */
function standing({ about, known }: Answer, items: readonly Item[]): readonly Item[] {
  const found = items.filter(({ id }) => known.includes(id));
  return [...found, ...behind(found.at(-1)?.id ?? about, items)];
}

/** Add to an answer what stands in the conversation of responses that the log doesn't tell any more. */
function complete(answer: Answer, items: readonly Item[]): void {
  const said = standing(answer, items).filter(({ role }) => role === "assistant");
  const missing = said.filter(({ id }) => answer.parts.every(({ item }) => item !== id));
  answer.parts = [...missing.map((item) => partOf("", item)), ...answer.parts];
}

/** The end of an answer whose response the log doesn't tell any more. */
function remembered(answer: Answer, items: readonly Item[]): Result {
  const said = standing(answer, items).filter(({ role }) => role === "assistant");
  const isWhole = said.length > 0 && said.every(({ status }) => status === "completed");
  return { ...ENDED, status: isWhole ? "completed" : "unknown", text: textOf(answer) };
}
