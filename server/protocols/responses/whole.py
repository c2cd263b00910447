"""A response as an object of OpenAI Responses: when it begins, and when it has ended."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from msgspec import UNSET

from unbroken.server.protocols.conversation_names import conversation_id
from unbroken.server.protocols.responses.items import Fields, item_fields
from unbroken.sessions.endings import Ended
from unbroken.sessions.entries import Failure, ResponseDone, Status
from unbroken.sessions.ids import ResponseId, SessionId, is_transient, minted_at
from unbroken.sessions.items import (
    FunctionTool,
    Item,
    NamedTool,
    Produced,
    ResponseRequest,
    SessionConfig,
    Usage,
)

__all__ = ["Whole", "usage_fields"]

_RATE_LIMITS: Final = frozenset({"upstream_rate_limited", "rate_limit_exceeded", "agent_busy"})


_UNSET_HERE: Final[Fields] = {
    "completed_at": None,
    "frequency_penalty": 0.0,
    "max_tool_calls": None,
    "presence_penalty": 0.0,
    "prompt_cache_key": None,
    "reasoning": None,
    "safety_identifier": None,
    "service_tier": "default",
    "top_logprobs": 0,
}


class Whole:
    """One response as an object.

    Args:
        response_id: Its id.
        session_id: Its session's.
        config: The session's, by which what wasn't asked for is shown.
        resume: The token with which its session is gone on with over a WebSocket. None: it can't be.

    """

    def __init__(
        self,
        response_id: ResponseId,
        session_id: SessionId,
        config: SessionConfig,
        *,
        resume: str | None = None,
    ) -> None:
        self.id: Final = response_id
        self.asked = ResponseRequest()
        """What was asked for, as far as that is known."""
        self._session_id = session_id
        self._config = config
        self._resume = resume

    def fields(self, status: str, output: Iterable[Fields] = ()) -> Fields:
        """Return the response as it is with *status*."""
        asked, config = self.asked, self._config
        parameters = asked.parameters
        form = None if parameters is None else parameters.format
        parallel = asked.parallel_tool_calls_with(config)
        fields: Fields = {
            "id": self.id,
            "object": "response",
            "created_at": minted_at(self.id),
            "status": status,
            "background": asked.background,
            "error": None,
            "incomplete_details": None,
            "instructions": asked.instructions if asked.instructions is not None else config.instructions,
            "max_output_tokens": (
                config.max_output_tokens if asked.max_output_tokens is None else asked.max_output_tokens
            ),
            "metadata": asked.metadata or {},
            "model": asked.model_with(config),
            "output": list(output),
            "parallel_tool_calls": parallel is not False,
            "previous_response_id": asked.previous,
            "store": not is_transient(self._session_id),
            "temperature": _number(None if parameters is None else parameters.temperature),
            "text": {"format": form or {"type": "text"}},
            "tool_choice": _choice(asked, config),
            "tools": [_tool(tool) for tool in asked.tools_with(config)],
            "top_p": _number(None if parameters is None else parameters.top_p),
            "truncation": "disabled",
            # What nobody can set here, as it is where nobody has: strict readers want it said.
            **_UNSET_HERE,
            "usage": None,
        }
        if not is_transient(self._session_id):
            fields["conversation"] = {"id": conversation_id(self._session_id)}
        if self._resume is not None:
            fields["unbroken"] = {"resume": self._resume}
        return fields

    def done(self, body: ResponseDone, superseded_by: ResponseId | None = None) -> Fields:
        """Return the response as it ended, as the log says. *superseded_by*: the next attempt at its turn."""
        fields = self._ended(body.status, body.output, body.reason, body.failure, body.usage, superseded_by)
        if body.notes is not UNSET:
            fields.setdefault("unbroken", {}).update(body.notes)
        return fields

    def kept(self, ended: Ended, output: Iterable[Item], superseded_by: ResponseId | None = None) -> Fields:
        """Return the response as it ended, as the session remembers it. See :meth:`done`."""
        self.asked = ResponseRequest(metadata=ended.metadata)
        fields = self._ended(ended.status, output, ended.reason, ended.failure, ended.usage, superseded_by)
        if ended.notes is not UNSET:
            fields.setdefault("unbroken", {}).update(ended.notes)
        return fields

    def _ended(
        self,
        status: Status,
        output: Iterable[Produced | Item],
        reason: str | None,
        failure: Failure | None,
        usage: Usage | None,
        superseded_by: ResponseId | None,
    ) -> Fields:
        shown: str = status
        if superseded_by is not None:  # the answer hasn't failed: another response says it, all of it
            shown, output = "incomplete", ()
        elif status == "interrupted":
            shown = "failed"
        fields = self.fields(shown, map(item_fields, output))
        if usage is not None:
            fields["usage"] = usage_fields(usage)
            if usage.reused is not UNSET:
                cached = {"tier": usage.reused.tier, "age": usage.reused.age}
                fields.setdefault("unbroken", {})["cache"] = cached
        if status == "incomplete":
            # The protocol's reasons are a closed list.
            is_quota = reason == "quota_exceeded"
            fields["incomplete_details"] = {"reason": "max_output_tokens" if is_quota else reason}
            if is_quota:
                fields.setdefault("unbroken", {})["reason"] = "quota_exceeded"
        elif status == "cancelled" and reason == "superseded":
            fields.setdefault("unbroken", {})["reason"] = "superseded"
        elif superseded_by is not None:
            # No reason: the protocol's are a closed list, and none of it is this one.
            fields.setdefault("unbroken", {}).update({"status": status, "superseded_by": superseded_by})
        elif shown == "failed" and failure is not None:
            # So are its codes.
            code = "rate_limit_exceeded" if failure.code in _RATE_LIMITS else "server_error"
            fields["error"] = {"code": code, "message": failure.message}
            added = fields.setdefault("unbroken", {})
            added |= {"status": status, "code": failure.code}
            if failure.retry_after is not UNSET:
                added["retry_after"] = failure.retry_after
        return fields


def _number(said: float | None) -> float:
    """Return what was said of a parameter, or what it means that nothing was: a number is wanted."""
    return 1.0 if said is None else said


def _tool(tool: FunctionTool) -> Fields:
    return {
        "type": "function",
        "name": tool.name,
        "description": tool.description,
        "parameters": tool.parameters,
        "strict": False,
    }


def _choice(asked: ResponseRequest, config: SessionConfig) -> str | Fields:
    choice = asked.tool_choice_with(config)
    return {"type": "function", "name": choice.name} if isinstance(choice, NamedTool) else choice


def usage_fields(usage: Usage) -> Fields:
    """Return what a response cost."""
    return {
        "input_tokens": usage.input_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": usage.total_tokens,
    }
