/** What the server refuses: for the moment, or for good. Pure. */
import type { ServerError } from "./wire.js";
/** What to say while it is waited for; null: it doesn't pass. */
export declare function passingWords({ code }: ServerError): string | null;
/** Whether the same has to be asked for under another name. */
export declare function isRemembered({ code }: ServerError): boolean;
/** Whether the item that is refused is in the conversation: nobody else could know its id. */
export declare function isThere({ code }: ServerError): boolean;
