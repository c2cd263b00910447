/** What the session's log has told so far: which responses run, and what a person was asked. Pure. */
import type { KnownEvent, Response } from "./wire.js";
export declare class Log {
    #private;
    get isAnswering(): boolean;
    /** The responses in progress. */
    get responses(): readonly string[];
    /** Whether there are decisions that an answer waits for. */
    get isWaiting(): boolean;
    /** Whether that request for approval is there, and unanswered. */
    isAsked(request: string): boolean;
    take(event: KnownEvent): void;
    /** Another session begins, or this one is told anew. */
    reset(): void;
}
/** Else it is beside the conversation, or was over before it began. */
export declare function isInConversation({ conversation_id: conversation }: Response): boolean;
