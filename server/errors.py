"""Codes that clients see: errors with what they mean, and close codes that decide on reconnection.

Every code is listed in docs/protocol.md; a test holds the two together.
"""

from __future__ import annotations

import enum
from typing import Final

__all__ = ["CLOSE_REASONS", "ERROR_MEANINGS", "CloseCode"]


class CloseCode(enum.IntEnum):
    """Why the server closes a WebSocket. RFC 6455, section 7.4.1, and the registry it opens.

    The official OpenAI clients reconnect after 1001, 1005, 1006, 1011, 1012,
    1013 and 1015, and after nothing else.
    """

    IDLE = 1000
    """Nothing was said for long. Reconnect, and resume, when there is something to say."""

    POLICY = 1008
    """An ``error`` event, or the close's reason, has said why. Reconnecting the same way won't help."""

    INTERNAL = 1011
    """The server failed. Reconnect, and resume."""

    RESTART = 1012
    """The node is draining. Reconnect, and resume."""

    TRY_AGAIN = 1013
    """Overloaded, or too far behind. Reconnect after a moment; a snapshot may follow."""


CLOSE_REASONS: Final[dict[CloseCode, str]] = {
    CloseCode.IDLE: "idle: reconnect and resume when there is something to say",
    CloseCode.POLICY: "see the error event",
    CloseCode.INTERNAL: "internal error: reconnect and resume",
    CloseCode.RESTART: "restarting: reconnect and resume",
    CloseCode.TRY_AGAIN: "try again in a moment",
}

ERROR_MEANINGS: Final[dict[str, str]] = {
    # The connection can't be had.
    "invalid_api_key": "No key, or not a valid one.",
    "api_key_in_browser": "An API key was offered as a subprotocol; only short-lived keys may be.",
    "insufficient_scope": "The key is valid, and not good for this.",
    "credential_expired": "What the connection was let in with has expired. Get another, and resume.",
    "credential_revoked": "The key that the connection was let in with has been revoked.",
    "host_not_allowed": "The server has no keys, and was addressed by another name than this machine's own.",
    "invalid_query": "The query of the address is too long, or has too many fields, or an unknown one.",
    "origin_not_allowed": "A browser page of another origin tried to connect.",
    "model_not_found": "The model isn't offered here.",
    "beta_api_shape_disabled": "The client speaks the beta version of the Realtime API.",
    "archive_unavailable": "The archive of finished turns can't be reached. Try again in a moment.",
    "session_not_found": "The session can't be resumed: it has ended, or it isn't yours.",
    "session_deleted": "The conversation was deleted, by its user or an operator. It doesn't come back.",
    "server_full": "The server holds as many sessions or connections as it may. Try again in a moment.",
    "too_many_connections_from_address": "There are as many connections from this address as may be.",
    "too_many_connections_of_key": "The key has as many connections as it may.",
    "too_many_sessions_of_key": "The server is full, and the key has its share of sessions, or of bytes.",
    "too_many_stored_sessions": "As many conversations of yours are stored as may be. Delete some.",
    "too_many_connections_of_tenant": "All keys of the tenant together have as many connections as they may.",
    "too_many_failed_attempts": "Wrong keys came too often from this address. Try again later.",
    "too_many_handshakes": "Connections were begun too often from this address. Try again later.",
    "too_many_requests": "Requests came too often from this address. Try again later.",
    "too_many_connections": "The session has too many connections: a newer one took this one's place.",
    "server_overloaded": "The server gets less done than it has to do. Try again in a moment.",
    "server_draining": "The server is restarting. Reconnect in a moment.",
    "session_too_new": "A later version of the server has written the session. Other nodes go on with it.",
    "store_unavailable": "Nothing can be saved or looked up for the moment. Try again in a moment.",
    # A short-lived key can't be made.
    "foreign_user": "A user's own key makes short-lived keys for that user only.",
    "foreign_plan": "Short-lived keys that are made with this one can't be on that plan.",
    "too_many_short_lived_keys": (
        "This user, this API key, strangers from this address or all strangers have as many short-lived keys "
        "as they may."
    ),
    "body_too_large": "The body of the request is too long.",
    "body_stalled": "The body of the request came too slowly.",
    # A response can't be had over HTTP.
    "response_not_found": "There is no such response: its session has ended, or it isn't yours.",
    "previous_response_not_found": "There is no such response to go on from.",
    "conversation_not_found": "There is no such conversation: it has ended, or it isn't yours.",
    "response_events_gone": "The response's events aren't kept any more. It can be had without `stream`.",
    "response_in_progress": "The response is in progress: cancel it before it is deleted.",
    "internal_error": "The server failed. Ask again.",
    "invalid_stream_id": "The name of the lane can't be one.",
    "websocket_stream_limit_reached": "As many lanes of the connection are at work as may be.",
    # An event can't be taken; the connection goes on.
    "invalid_json": "The frame isn't JSON, or not an object, or nested too deeply.",
    "invalid_event": "The event lacks a field, or a field has the wrong type or value.",
    "unknown_event_type": "There is no such event.",
    "unsupported_event": "The event is of a part of the API that this server doesn't offer.",
    "audio_input_unsupported": "Audio can't be sent to this server; send text.",
    "unsupported_content": "The content part is of a kind that this server, or the model, doesn't take.",
    "unsupported_format": "The model can't answer in the form that is asked for.",
    "unsupported_content_type": "Only answers that are audio can be truncated.",
    "unsupported_item": "The item is of a kind that this server doesn't take.",
    "unsupported_tool": "The tool is of a kind that this server doesn't take.",
    "unsupported_parameter": "The request asks for something that this server doesn't offer.",
    "unsupported_prompt": "Prompt templates aren't kept here; send instructions.",
    "unsupported_session_type": "Only sessions of type `realtime` are offered.",
    "binary_frame": "Frames must be text.",
    "invalid_document": "The document isn't GraphQL, doesn't fit the schema, or has unfit values.",
    "document_too_complex": "The document is longer or deeper than may be, or asks for more.",
    "connection_init_missing": "A connection for GraphQL has to begin with `connection_init`.",
    "input_queue_full": "Events came faster than they could be taken. Send this one again.",
    "session_pinned": "Who made the short-lived key has settled this: its holder can't change it.",
    "message_id_reused": "The message id was used before, for other content.",
    "item_not_found": "There is no such item in the conversation.",
    "item_id_taken": "An item of this id exists already.",
    "item_in_progress": "The item is still being produced.",
    "approval_answered": "The request for approval has its response already; a call is approved of once.",
    "function_call_answered": "The function call has its output already.",
    "conversation_full": "The conversation holds as much as it may.",
    "conversation_already_has_active_response": "A response is in progress.",
    "conversation_moved_on": "What was asked for was to follow the last word, and another request was first.",
    "response_queue_full": "As many responses wait as may.",
    "too_many_responses": "As many responses run as may: beside the conversation, or of the key.",
    "rate_limit_exceeded": "More was asked for within a minute than may be. Wait, as long as it says.",
    "quota_exceeded": "What may be used within a day is used, or reserved. A response may end of it.",
    "request_exceeds_quota": "The response alone may take more than may be used. Shorten it.",
    "response_cancel_not_active": "There is no such response in progress.",
    "content_filter": "It looks like an attack on the model. It was not taken, and nobody else sees it.",
    "guard_unavailable": "It couldn't be checked for attacks in time. Send it again in a moment.",
    # A file can't be taken, or isn't there: over HTTP, or in an event that names it.
    "file_not_found": "There is no such file: it has expired, or it isn't yours.",
    "file_too_large": "The file is larger than a file may be.",
    "unsupported_file_type": "The file is none of the types that are taken.",
    "too_many_files": "You hold as many files as you may.",
    "files_unavailable": "Files can't be kept at the moment.",
    "too_many_transfers": "Too many files are being sent at once.",
    "invalid_request": "A field of the request has a wrong value.",
    "invalid_compaction": "The compaction isn't whole, or isn't yours, or of another server, or too old.",
    "path_not_found": "There is nothing at this path.",
    "upgrade_required": "The path takes WebSockets, and the request asks for none.",
    "method_not_allowed": "The path takes other methods; `Allow` names them.",
    "invalid_upload": "The body of the request isn't a form with one file.",
    "upload_stalled": "The upload came too slowly.",
    # What an operator asks for.
    "invalid_admin_key": "No admin key, or not the one that is set.",
    "key_not_found": "There is no such key.",
    "too_many_keys": "There are as many keys as may be.",
    "keys_unavailable": "Keys can't be read or changed at the moment.",
    "server_stopping": "The process has been told to end.",
    # A response failed: `response.done` has status `failed` and one of these.
    "agent_error": "The agent failed.",
    "agent_crashed": "The agent failed unexpectedly.",
    "too_many_tool_rounds": "The model called tools again and again without coming to an answer.",
    "answer_unchecked": "A sentence of the answer couldn't be looked through for names in time. Ask again.",
    "agent_stalled": "The agent produced nothing for too long.",
    "turn_timeout": "The answer took longer than the server allows.",
    "agent_busy": "The agent's queue is full.",
    "agent_not_ready": "The agent is still loading, or failed to load.",
    "bad_script": "The script for the scripted agent can't be read.",
    "context_length_exceeded": "The message is longer than the model can read.",
    "upstream_auth": "The server's key for the model was refused.",
    "upstream_rate_limited": "The model receives too many requests.",
    "upstream_rejected": "The model refused the request.",
    "upstream_unavailable": "The model can't be reached.",
    "upstream_cut": "The connection to the model was lost in mid-answer.",
    "upstream_malformed": "The model sent something that can't be understood.",
    "upstream_error": "The model reported an error.",
    "upstream_stalled": "The model stopped answering.",
    "interrupted": "The server was restarted before the answer was complete.",
}
