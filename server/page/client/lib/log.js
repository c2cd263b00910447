/** What the session's log has told so far: which responses run, and what a person was asked. Pure. */
export class Log {
    /** Responses in progress, in the conversation. */
    #running = new Set();
    /** Requests for approval that nobody has answered. */
    #asked = new Set();
    /** Those of after the last message: the answer should wait for the user to decide on all of them. */
    #waiting = new Set();
    get isAnswering() {
        return this.#running.size > 0;
    }
    /** The responses in progress. */
    get responses() {
        return [...this.#running];
    }
    /** Whether there are decisions that an answer waits for. */
    get isWaiting() {
        return this.#waiting.size > 0;
    }
    /** Whether that request for approval is there, and unanswered. */
    isAsked(request) {
        return this.#asked.has(request);
    }
    take(event) {
        switch (event.type) {
            case "conversation.item.added":
                if (event.item.type === "mcp_approval_request") {
                    this.#asked.add(event.item.id);
                    this.#waiting.add(event.item.id);
                }
                else if (event.item.type === "mcp_approval_response") {
                    this.#forget(event.item.approval_request_id ?? "");
                }
                else if (event.item.role === "user") {
                    this.#waiting.clear(); // whatever is still asked, the conversation goes on without it
                }
                break;
            case "conversation.item.deleted":
                this.#forget(event.item_id);
                break;
            case "response.created":
                if (isInConversation(event.response))
                    this.#running.add(event.response.id);
                break;
            case "response.done":
                this.#running.delete(event.response.id);
                break;
        }
    }
    /** Another session begins, or this one is told anew. */
    reset() {
        this.#running.clear();
        this.#asked.clear();
        this.#waiting.clear();
    }
    #forget(request) {
        this.#asked.delete(request);
        this.#waiting.delete(request);
    }
}
/** Else it is beside the conversation, or was over before it began. */
export function isInConversation({ conversation_id: conversation }) {
    return conversation !== undefined;
}
