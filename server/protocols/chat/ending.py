"""How a response ended, in Chat Completions' words."""

from __future__ import annotations

from typing import Any, Final

from msgspec import UNSET

from unbroken.server.protocols.responses.items import Fields
from unbroken.sessions.entries import Failure, ResponseDone
from unbroken.sessions.items import ApprovalRequest, FunctionCall, Message, Reasoning

__all__ = ["error_of", "finish_of", "message_of", "told_of", "usage_of"]

_CUT: Final = {"content_filter": "content_filter"}
"""What cuts an answer short. Anything else is a limit that was reached."""


def finish_of(done: ResponseDone) -> str:
    """Return why an answer ended that hasn't failed."""
    if done.status == "incomplete":
        return _CUT.get(done.reason or "", "length")
    if done.status == "completed" and any(isinstance(item, FunctionCall) for item in done.output):
        return "tool_calls"
    return "stop"  # the protocol knows nothing of answers that are cancelled: it is told beside


def message_of(done: ResponseDone, parting: str) -> Fields:
    """Return an answer as a message."""
    texts = [item.text for item in done.output if isinstance(item, Message) and item.text]
    calls = [_call(item) for item in done.output if isinstance(item, FunctionCall) and _is_whole(item)]
    thoughts = [item.text for item in done.output if isinstance(item, Reasoning)]
    message: Fields = {"role": "assistant", "content": parting.join(texts), "refusal": None}
    if not texts and calls:
        message["content"] = None
    if calls:
        message["tool_calls"] = calls
    if thoughts:
        message["reasoning_content"] = "".join(thoughts)
    return message


def usage_of(done: ResponseDone) -> Fields | None:
    """Return what an answer cost; None: nobody has said."""
    usage = done.usage
    if usage is None:
        return None
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.total_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
    }


def told_of(done: ResponseDone) -> Fields:
    """Return what is told of an ending that the protocol has no words for."""
    told: Fields = {} if done.notes is UNSET else dict(done.notes)
    usage = done.usage
    if usage is not None and usage.reused is not UNSET:
        told["cache"] = {"tier": usage.reused.tier, "age": usage.reused.age}
    if done.status == "cancelled":
        told["status"] = "cancelled"
        if done.reason == "superseded":
            told["reason"] = "superseded"
    elif done.reason == "quota_exceeded":
        told["reason"] = "quota_exceeded"
    if asked := [_approval(item) for item in done.output if isinstance(item, ApprovalRequest)]:
        told["approvals"] = asked
    return told


def error_of(done: ResponseDone) -> Fields | None:
    """Return why there is no answer; None: there is one, as far as it goes."""
    if done.status not in ("failed", "interrupted"):
        return None
    failure = done.failure or Failure("internal_error", "The server failed. Ask again.")
    error: Fields = {"message": failure.message, "type": failure.type, "param": None, "code": failure.code}
    if failure.retry_after is not UNSET:
        error["unbroken"] = {"retry_after": failure.retry_after}
    return error


def _is_whole(call: FunctionCall) -> bool:
    """Return whether a call is for somebody to act on."""
    return call.status == "completed"


def _call(item: FunctionCall) -> dict[str, Any]:
    function = {"name": item.name, "arguments": item.arguments}
    return {"id": item.call_id, "type": "function", "function": function}


def _approval(item: ApprovalRequest) -> Fields:
    return {"id": item.id, "name": item.name, "server_label": item.label, "arguments": item.arguments}
