"""The payloads of OpenAI's two HTTP APIs for text, as the fake upstream speaks them.

A dialect is made for each answer: it numbers and accumulates as the API does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, TypeAlias

__all__ = ["RESPONSE_ID", "ChatDialect", "Dialect", "Payload", "ResponsesDialect", "chunk"]

Payload: TypeAlias = dict[str, Any]

RESPONSE_ID = "resp_upstream1"
"""The name that an answer gets where nothing else is said."""


class Dialect(Protocol):
    """One answer's payloads, in the order in which they are asked for."""

    def opening(self) -> list[Payload]: ...

    def text(self, token: str) -> Payload: ...

    def refusal(self, token: str) -> Payload: ...

    def call(self, index: int, name: str, call_id: str) -> Payload:
        """Return what begins a function call, the response's *index*-th."""

    def arguments(self, index: int, piece: str) -> Payload: ...

    def reasoning(self, token: str) -> Payload: ...

    def ending(self, finish_reason: str | None, usage: Mapping[str, object]) -> list[Payload]:
        """Return what ends the answer, in Chat's words for the reason and for the bill."""

    def error(self, error: object) -> Payload: ...


def chunk(
    delta: Mapping[str, object], *, finish_reason: str | None = None, **fields: object
) -> dict[str, object]:
    """Return a chat.completion.chunk."""
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "fake",
        "choices": [choice],
        "usage": None,
        **fields,
    }


class ChatDialect:
    """Chat Completions."""

    def opening(self) -> list[Payload]:
        return [chunk({"role": "assistant", "content": ""})]

    def text(self, token: str) -> Payload:
        return chunk({"content": token})

    def refusal(self, token: str) -> Payload:
        return chunk({"refusal": token})

    def call(self, index: int, name: str, call_id: str) -> Payload:
        function = {"name": name, "arguments": ""}
        head = {"index": index, "id": call_id, "type": "function", "function": function}
        return chunk({"tool_calls": [head]})

    def arguments(self, index: int, piece: str) -> Payload:
        return chunk({"tool_calls": [{"index": index, "function": {"arguments": piece}}]})

    def reasoning(self, token: str) -> Payload:
        return chunk({"reasoning_content": token})

    def ending(self, finish_reason: str | None, usage: Mapping[str, object]) -> list[Payload]:
        payloads = [] if finish_reason is None else [chunk({}, finish_reason=finish_reason)]
        return [*payloads, {**chunk({}), "choices": [], "usage": usage}]

    def error(self, error: object) -> Payload:
        return {"error": error}


class ResponsesDialect:
    """Responses. Every event has its number."""

    def __init__(self, response_id: str = RESPONSE_ID) -> None:
        self._response_id = response_id
        self._number = 0
        self._said = ""

    def opening(self) -> list[Payload]:
        item: Payload = {"id": "msg_1", "type": "message", "role": "assistant", "status": "in_progress"}
        return [
            self.event("response.created", response=self.response("in_progress")),
            self.event("response.in_progress", response=self.response("in_progress")),
            self.event("response.output_item.added", output_index=0, item={**item, "content": []}),
            self._of_part("response.content_part.added", part={"type": "output_text", "text": ""}),
        ]

    def text(self, token: str) -> Payload:
        self._said += token
        return self._of_part("response.output_text.delta", delta=token, logprobs=[])

    def refusal(self, token: str) -> Payload:
        return self._of_part("response.refusal.delta", delta=token)

    def call(self, index: int, name: str, call_id: str) -> Payload:
        item = {"id": f"fc_{index}", "type": "function_call", "status": "in_progress", "arguments": ""}
        item |= {"call_id": call_id, "name": name}
        return self.event("response.output_item.added", output_index=index + 1, item=item)

    def arguments(self, index: int, piece: str) -> Payload:
        place = {"item_id": f"fc_{index}", "output_index": index + 1}
        return self.event("response.function_call_arguments.delta", **place, delta=piece)

    def reasoning(self, token: str) -> Payload:
        return self.event(
            "response.reasoning_summary_text.delta",
            item_id="rs_1",
            output_index=0,
            summary_index=0,
            delta=token,
        )

    def ending(self, finish_reason: str | None, usage: Mapping[str, object]) -> list[Payload]:
        part = {"type": "output_text", "text": self._said, "annotations": []}
        item = {"id": "msg_1", "type": "message", "role": "assistant", "content": [part]}
        payloads = [
            self._of_part("response.output_text.done", text=self._said, logprobs=[]),
            self._of_part("response.content_part.done", part=part),
            self.event("response.output_item.done", output_index=0, item={**item, "status": "completed"}),
        ]
        if finish_reason is None:
            return payloads
        reason = {"length": "max_output_tokens", "content_filter": "content_filter"}.get(finish_reason)
        status = "incomplete" if reason else "completed"
        bill = {
            "input_tokens": usage.get("prompt_tokens"),
            "output_tokens": usage.get("completion_tokens"),
            "total_tokens": usage.get("total_tokens"),
            "input_tokens_details": usage.get("prompt_tokens_details"),
        }
        details = {"reason": reason} if reason else None
        whole = self.response(status, output=[item], usage=bill, incomplete_details=details)
        return [*payloads, self.event(f"response.{status}", response=whole)]

    def failing(self) -> list[Payload]:
        """Return what ends an answer that the upstream couldn't give whole."""
        error = {"code": "server_error", "message": "The model failed."}
        return [self.event("response.failed", response=self.response("failed", error=error))]

    def error(self, error: object) -> Payload:
        fields = error if isinstance(error, Mapping) else {"message": error}
        return self.event("error", **{"code": None, "param": None, **fields})

    def event(self, kind: str, **fields: object) -> Payload:
        """Return the next event, of this *kind*."""
        number = self._number
        self._number += 1
        return {"type": kind, "sequence_number": number, **fields}

    def response(self, status: str, **fields: object) -> Payload:
        """Return the response itself."""
        return {
            "id": self._response_id,
            "object": "response",
            "created_at": 1,
            "status": status,
            "model": "fake",
            "output": [],
            "error": None,
            "incomplete_details": None,
            "parallel_tool_calls": True,
            "tool_choice": "auto",
            "tools": [],
            "usage": None,
            **fields,
        }

    def _of_part(self, kind: str, **fields: object) -> Payload:
        return self.event(kind, item_id="msg_1", output_index=0, content_index=0, **fields)
