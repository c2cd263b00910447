"""What each protocol calls the fields that refusals name: sessions and guards call them otherwise."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from unbroken.server.protocols.items import DecodeError
from unbroken.server.transports.asking import refusal_of
from unbroken.server.transports.http_way import HttpRefusal
from unbroken.sessions.errors import Refusal

__all__ = ["AGUI", "CHAT", "CONVERSATIONS", "GRAPHQL", "RESPONSES", "UI", "FieldNames"]

_REQUEST_REUSED: Final = {
    "message_id_reused": "The name of this request was used before, for another one. "
    "Give each request an `Idempotency-Key` of its own.",
}
_HEAD: Final = re.compile(r"(?P<head>[a-z_]+(?:\.format|\.message_id)?)(?P<rest>.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class FieldNames:
    """The names of one protocol."""

    names: Mapping[str, str]
    """Of fields, by what they are called where a refusal comes from. Of a part of one, its place is kept."""
    whole: frozenset[str] = frozenset()
    """Those of which no place is named: the protocol's own ones are others."""
    codes: Mapping[str, str] = field(default_factory=dict)
    """Of errors that are called otherwise."""
    messages: Mapping[str, str] = field(default_factory=dict)
    """What is said in place of what sessions say, by the code."""

    def refusal_of(self, exc: Exception) -> HttpRefusal | None:
        """See :func:`~unbroken.server.transports.asking.refusal_of`."""
        refusal = refusal_of(exc)
        if refusal is not None and isinstance(exc, DecodeError | Refusal):
            if isinstance(exc, Refusal):
                refusal.message = self.messages.get(refusal.code, refusal.message)
            refusal.message = re.sub(r"`(\w+)`", self._quoted, refusal.message)
            refusal.code = self.codes.get(refusal.code, refusal.code)
            refusal.param = None if refusal.param is None else self._param(refusal.param)
        return refusal

    def _quoted(self, match: re.Match[str]) -> str:
        return f"`{self.names.get(match[1], match[1])}`"

    def _param(self, param: str) -> str:
        param = param.removeprefix("response.")
        match = _HEAD.fullmatch(param)
        if match is None or match["head"] not in self.names:
            return param
        head = match["head"]
        return self.names[head] if head in self.whole else f"{self.names[head]}{match['rest']}"


RESPONSES: Final = FieldNames({"item": "input"}, frozenset({"item"}), messages=_REQUEST_REUSED)

CONVERSATIONS: Final = FieldNames({"item": "items"}, frozenset({"item"}), messages=_REQUEST_REUSED)

_SAID: Final = {"item": "messages", "input": "messages"}
"""Where a history is sent, what is new in it has another place than in what is made of it."""

CHAT: Final = FieldNames(
    {**_SAID, "conversation": "unbroken.session", "text.format": "response_format"},
    frozenset(_SAID),
    messages=_REQUEST_REUSED,
)

UI: Final = FieldNames({**_SAID, "conversation": "id"}, frozenset(_SAID))

AGUI: Final = FieldNames({**_SAID, "conversation": "threadId"}, frozenset(_SAID))

GRAPHQL: Final = FieldNames(
    {
        "item": "items",
        "input": "items",
        "conversation": "sessionId",
        "previous_response_id": "previousResponseId",
        "max_output_tokens": "maxOutputTokens",
        "unbroken.message_id": "messageId",
    },
    frozenset({"item"}),
    {"conversation_not_found": "session_not_found"},
)
