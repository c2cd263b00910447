"""From log entries to the chunks of Chat Completions, and from how a response ended to the whole of it.

The first chunk has the role, the last but for usage's the reason why the answer ended. Nobody counts
chunks: what is read of the log at once is one. Calls of the server's own tools aren't shown; the texts
before and after them are parted by an empty line, in the stream as in the whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

import orjson
from msgspec import UNSET

from unbroken.server.protocols.chat.ending import error_of, finish_of, message_of, told_of, usage_of
from unbroken.server.protocols.responses.items import Fields, padding
from unbroken.sessions.entries import Entry, OutputStarted, ResponseDone, ResponseQueued, ResponseStarted
from unbroken.sessions.event_log import Record, Slice
from unbroken.sessions.ids import ResponseId, minted_at
from unbroken.sessions.items import CallHead, ReasoningHead, ResponseRequest, SessionConfig

__all__ = ["ChatEncoder", "Completion"]

_PARTING: Final = "\n\n"
"""Between two texts of one answer."""


class Completion:
    """What is the same in all that is said of one answer.

    Args:
        response_id: The response that it is.
        config: Its session's.
        added: What is told under ``unbroken`` from the beginning.

    """

    def __init__(self, response_id: ResponseId, config: SessionConfig, added: Fields | None = None) -> None:
        self.response_id: Final = response_id
        self.asked = ResponseRequest()
        """What was asked for, once that is known."""
        self.added: Final = added or {}
        self._config = config

    def head(self, kind: str) -> Fields:
        """Return what an object of that *kind* begins with."""
        return {
            "id": self.response_id.replace("resp_", "chatcmpl-", 1),
            "object": kind,
            "created": minted_at(self.response_id),
            "model": self.asked.model_with(self._config),
        }

    def whole(self, done: ResponseDone) -> Fields:
        """Return the answer as it ended."""
        choice = {
            "index": 0,
            "message": message_of(done, _PARTING),
            "logprobs": None,
            "finish_reason": finish_of(done),
        }
        fields = {**self.head("chat.completion"), "choices": [choice]}
        if (usage := usage_of(done)) is not None:
            fields["usage"] = usage
        if told := {**self.added, **told_of(done)}:
            fields["unbroken"] = told
        return fields


class ChatEncoder:
    """Encodes one answer as a stream: feed it what the log says of its response, from its beginning on.

    Args:
        completion: What the answer is.
        obfuscates: Whether pieces are padded.
        includes_usage: Whether the last chunk is to say what the answer cost, where that is known.

    """

    def __init__(
        self, completion: Completion, *, obfuscates: bool = True, includes_usage: bool = False
    ) -> None:
        self._completion = completion
        self._obfuscates = obfuscates
        self._includes_usage = includes_usage
        self._has_begun = False
        self._has_said = False  # any text
        self._calls: dict[str, int] = {}  # the client's, by item
        self._item_id = ""  # of the message whose pieces come
        self._hidden: set[str] = set()  # what isn't shown
        self._thoughts: set[str] = set()
        self._before = self._after = b""
        self.is_done = False
        """Whether the response has ended, as far as was fed: nothing follows."""
        self.is_failed = False
        """Whether it has failed: the last of what was encoded says why."""

    def encode(self, records: Iterable[Record]) -> Iterator[bytes]:
        """Yield the chunks of *records* as JSON, those of other responses aside."""
        own = self._completion.response_id
        for record in records:
            if self.is_done:
                return
            if isinstance(record, Slice):
                if record.response_id == own:
                    yield from self._pieces(record)
            elif getattr(record.body, "response_id", None) == own:
                yield from self._chunks(record)

    def _chunks(self, entry: Entry) -> Iterator[bytes]:
        match entry.body:
            case ResponseQueued(request=request):
                self._completion.asked = request
            case ResponseStarted(request=request):
                self._completion.asked = request
                yield from self._begun()
            case OutputStarted(item_id=item_id, call=CallHead() as call):
                yield from self._begun()
                self._calls[item_id] = len(self._calls)
                function = {"name": call.name, "arguments": ""}
                named = {"id": call.call_id, "type": "function", "function": function}
                yield self._chunk({"tool_calls": [{"index": self._calls[item_id], **named}]})
            case OutputStarted(item_id=item_id, head=ReasoningHead()):
                self._thoughts.add(item_id)
            case OutputStarted(item_id=item_id, head=head) if head is not UNSET:
                self._hidden.add(item_id)
            case ResponseDone() as done:
                self.is_done = True
                if (error := error_of(done)) is not None:
                    self.is_failed = True
                    yield orjson.dumps({"error": error})
                    return
                yield from self._begun()
                yield self._chunk({}, finish_of(done), told_of(done))
                if self._includes_usage and (usage := usage_of(done)) is not None:
                    yield orjson.dumps({**self._head(), "choices": [], "usage": usage})
            case _:
                pass

    def _begun(self) -> Iterator[bytes]:
        """Yield the first chunk, unless it has been."""
        if self._has_begun:
            return
        self._has_begun = True
        usage = b',"usage":null' if self._includes_usage else b""
        head = orjson.dumps(self._head())[:-1]
        self._before = head + b',"choices":[{"index":0,"delta":'
        self._after = b',"logprobs":null,"finish_reason":null}]' + usage
        yield self._chunk({"role": "assistant", "content": "", "refusal": None}, told=self._completion.added)

    def _head(self) -> Fields:
        return self._completion.head("chat.completion.chunk")

    def _chunk(self, delta: Fields, finish: str | None = None, told: Fields | None = None) -> bytes:
        choice: dict[str, Any] = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        fields: Fields = {**self._head(), "choices": [choice]}
        if self._includes_usage:
            fields["usage"] = None
        if told:
            fields["unbroken"] = told
        return orjson.dumps(fields)

    def _pieces(self, piece: Slice) -> Iterator[bytes]:
        text = "".join(piece.parts)
        if not text or piece.item_id in self._hidden:
            return
        yield from self._begun()
        if (call := self._calls.get(piece.item_id)) is not None:
            said = orjson.dumps(text)
            yield self._piece(
                b'{"tool_calls":[{"index":%d,"function":{"arguments":%b}}]}' % (call, said), said
            )
        elif piece.item_id in self._thoughts:
            said = orjson.dumps(text)
            yield self._piece(b'{"reasoning_content":%b}' % said, said)
        else:
            if self._item_id != piece.item_id:
                self._item_id = piece.item_id
                text = _PARTING + text if self._has_said else text
                self._has_said = True
            said = orjson.dumps(text)
            yield self._piece(b'{"content":%b}' % said, said)

    def _piece(self, delta: bytes, said: bytes) -> bytes:
        padded = b',"obfuscation":"%b"' % padding(said) if self._obfuscates else b""
        return b"%b%b%b%b}" % (self._before, delta, self._after, padded)
