/** What goes over the wire, as far as this client reads or writes it. `docs/protocol.md` has the whole. */

/** A part of a message. */
export type ContentPart =
  | { readonly type: "input_text"; readonly text: string }
  | { readonly type: "input_image"; readonly image_url?: string; readonly file_id?: string; readonly detail?: string }
  | {
      readonly type: "input_file";
      readonly file_id?: string;
      readonly file_data?: string;
      readonly filename?: string;
    };

/** An item that this client adds to the conversation, under an id by which the server recognises it. */
export type NewItem =
  | {
      readonly id: string;
      readonly type: "message";
      readonly role: "user";
      readonly content: readonly ContentPart[];
    }
  | {
      readonly id: string;
      readonly type: "mcp_approval_response";
      readonly approval_request_id: string;
      readonly approve: boolean;
      readonly reason?: string;
    }
  | { readonly id: string; readonly type: "function_call_output"; readonly call_id: string; readonly output: string };

/** An item as the server shows it. Which fields there are depends on its type. */
export interface Item {
  readonly id: string;
  readonly type: string;
  readonly role?: "user" | "assistant" | "system";
  readonly status?: "in_progress" | "completed" | "incomplete";
  readonly content?: readonly { readonly type: string; readonly text?: string; readonly [field: string]: unknown }[];
  readonly call_id?: string;
  readonly name?: string;
  readonly arguments?: string;
  readonly approval_request_id?: string;
  readonly [field: string]: unknown;
}

/** How an answer ended, or `in_progress`. */
export type ResponseStatus = "in_progress" | "completed" | "cancelled" | "incomplete" | "failed";

export interface Response {
  readonly id: string;
  readonly status: ResponseStatus;
  readonly status_details?: { readonly reason?: string; readonly error?: { readonly code?: string } };
  readonly output: readonly Item[];
  readonly usage?: Readonly<Record<string, unknown>>;
  readonly metadata?: Readonly<Record<string, string>>;
  /** Not there: it is beside the conversation. */
  readonly conversation_id?: string;
  readonly unbroken?: {
    readonly status?: string;
    readonly reason?: string;
    readonly message?: string;
    readonly retry_after?: number;
    readonly [field: string]: unknown;
  };
}

/** What the server, or this client in its stead, complains of. */
export interface ServerError {
  readonly code: string;
  readonly message: string;
  readonly type?: string;
  readonly param?: string;
  /** Of the event that it is about. */
  readonly event_id?: string;
  /** Seconds to wait before the same is tried again. */
  readonly unbroken?: { readonly retry_after?: number };
}

export interface Session {
  readonly id: string;
  readonly model: string;
  readonly unbroken: {
    readonly resume: string;
    readonly resumed?: boolean;
    readonly durable?: boolean;
    readonly [field: string]: unknown;
  };
  readonly [field: string]: unknown;
}

interface About {
  readonly response_id: string;
  readonly item_id: string;
}

/** The server's events that this client acts on. Others are passed on as they are. */
export type KnownEvent =
  | { readonly type: "session.created" | "session.updated"; readonly session: Session }
  | { readonly type: "error"; readonly error: ServerError }
  | {
      readonly type: "conversation.item.added" | "conversation.item.done";
      readonly item: Item;
      readonly previous_item_id?: string;
    }
  | { readonly type: "conversation.item.deleted"; readonly item_id: string }
  | { readonly type: "response.created" | "response.done"; readonly response: Response }
  | ({ readonly type: "response.output_item.added"; readonly item: Item } & Omit<About, "item_id">)
  | ({ readonly type: "response.output_text.delta"; readonly delta: string } & About);

/** Any event of the server's. */
export interface ServerEvent {
  readonly type: string;
  readonly event_id?: string;
  readonly [field: string]: unknown;
}

/** Any event of this client's. */
export interface ClientEvent {
  readonly type: string;
  readonly event_id?: string;
  readonly [field: string]: unknown;
}
