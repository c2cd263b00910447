"""One stream of the Responses API, without I/O: bytes in, outputs out.

The API in short: events with a ``type`` and a ``sequence_number``. First
``response.created``, with the response's id; text in
``response.output_text.delta``; reasoning, or a summary of it, in
``response.reasoning_text.delta`` or ``response.reasoning_summary_text.delta``;
a function call in ``response.output_item.added`` and
``response.function_call_arguments.delta``; the last is ``response.completed``,
``response.incomplete`` or ``response.failed``, with the whole response and the
bill in it, or a flat ``error``. Whatever else comes is a sign of life. Seen in
other servers and allowed for: ``[DONE]`` at the end, an ``error`` object as in
Chat Completions, no numbers, comments as heartbeats.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import structlog
from structlog.typing import FilteringBoundLogger

from unbroken.server.agents.base import (
    AgentError,
    AgentOutput,
    Finish,
    FunctionCallPiece,
    Handle,
    ReasoningPiece,
    ResponseShorter,
    UpstreamCut,
    UpstreamMalformed,
    UpstreamReportedError,
    Usage,
    Working,
)
from unbroken.server.agents.halves import Halves, decode_halves
from unbroken.server.agents.sse import Event, EventStreamParser, EventTooLong
from unbroken.server.agents.upstream_failure import reported

__all__ = ["ResponseAnswer"]

_log: FilteringBoundLogger = structlog.get_logger(__name__)

# The last events repeat the whole answer, each by itself.
_MAX_EVENT_BYTES: Final = 8 * 1024 * 1024


# What the stream is made of: only what is read, everything optional.


class _Incomplete(msgspec.Struct):
    reason: str | None = None


class _Response(msgspec.Struct):
    id: str | None = None
    status: str | None = None
    incomplete_details: _Incomplete | None = None
    # Rare, and of many shapes: looked into when they come.
    usage: Any = None
    error: Any = None


class _Item(msgspec.Struct):
    type: str | None = None
    call_id: str | None = None
    name: str | None = None


class _Event(msgspec.Struct):
    type: str = ""
    delta: Any = None
    response: _Response | None = None
    output_index: int = 0
    item: _Item | None = None
    error: Any = None


class _TokenDetails(msgspec.Struct):
    cached_tokens: int | None = None


class _TokenCounts(msgspec.Struct):
    input_tokens: int | None = None
    output_tokens: int | None = None
    input_tokens_details: _TokenDetails | None = None


@dataclass(slots=True)
class _Call:
    """A function call of the answer."""

    number: int
    known: int
    """Characters of its arguments that another stream has passed on; -1: not even its name."""
    characters: int = 0  # that were read

    @property
    def position(self) -> int:
        return max(self.known, self.characters)


class ResponseAnswer:
    """One answer, without I/O: a stream's bytes in, outputs out.

    Args:
        response_id: The upstream's name for it, where it is known.
        offset: How many characters of its text are known, and not to be said again.
        calls: The same of each function call's arguments that is known, in order.
        tells_handle: Yield a Handle once the name is known.

    """

    def __init__(
        self,
        *,
        response_id: str | None = None,
        offset: int = 0,
        calls: Sequence[int] = (),
        tells_handle: bool = False,
    ) -> None:
        self.response_id = response_id
        self.is_resumed = False
        """Whether it is the continuation of another stream."""
        self.is_over = False
        """Whether the upstream has ended the response, however."""
        self.is_done = False
        self.usage: Usage | None = None
        self._events = EventStreamParser(max_event_bytes=_MAX_EVENT_BYTES)
        self._decode = msgspec.json.Decoder(_Event).decode
        self._offset = offset
        self._characters = 0  # of text that were read, from the response's start
        self._thoughts = 0  # characters of reasoning that were read
        self._known_thoughts = 0  # that another stream has passed on
        self._halves = Halves()
        self._calls: list[_Call] = []  # in the order in which they began
        self._call_at: dict[int, _Call] = {}  # the latest, by its place among the response's items
        self._known_calls = list(calls)  # from another stream: each one's position
        self._tells_handle = tells_handle
        self._reason: str | None = None  # why it is incomplete

    @property
    def is_complete(self) -> bool:
        """Whether all of the text is there."""
        return self.is_done

    @property
    def position(self) -> int:
        """How much has been passed on, from the response's start. Grows with each output."""
        calls = self._call_positions()
        return self._text_position + self._thought_position + sum(calls) + len(calls)

    @property
    def _thought_position(self) -> int:
        return max(self._known_thoughts, self._thoughts)

    @property
    def _text_position(self) -> int:
        return max(self._offset, self._characters)

    def _call_positions(self) -> list[int]:
        return [call.position for call in self._calls] + self._known_calls[len(self._calls) :]

    @property
    def finish(self) -> Finish:
        """Why it stopped, in our words."""
        match self._reason:
            case "max_output_tokens":
                return Finish("max_output_tokens")
            case "content_filter":
                return Finish("content_filter")
            case _:
                return Finish("completed")

    def resumed(self) -> ResponseAnswer:
        """Return what reads the same answer again, and passes on what this one hasn't."""
        answer = ResponseAnswer(
            response_id=self.response_id, offset=self._text_position, calls=self._call_positions()
        )
        answer._known_thoughts = self._thought_position
        answer.is_resumed = True
        return answer

    def feed(self, data: bytes) -> Iterator[AgentOutput]:
        """Yield what is in *data*; one :class:`Working` if there is nothing to show.

        Raises:
            UpstreamMalformed: When it isn't what the API says.
            ResponseShorter: When it ends before what is known of it.
            UpstreamCut: When it says that it ends, and the response hasn't.
            AgentError: When it holds an error, by its kind.

        """
        is_silent = True
        try:
            for event in self._events.feed(data):
                for output in self._read(event):
                    is_silent = False
                    yield output
                if self.is_done:
                    return
        except (msgspec.MsgspecError, UnicodeDecodeError, EventTooLong) as error:
            _log.warning("upstream sent a malformed stream", error=type(error).__name__)
            raise UpstreamMalformed from None
        if is_silent:  # a heartbeat, the beginning of an item
            yield Working()

    def _read(self, event: Event) -> Iterator[AgentOutput]:
        """Yield what one event says. What kinds there are is known here and nowhere else."""
        if event.data == b"[DONE]":
            raise UpstreamCut
        try:
            said = self._decode(event.data)
        except msgspec.DecodeError:
            said = decode_halves(event.data, _Event)
        match said.type:
            case "response.output_text.delta" | "response.refusal.delta":
                if text := self._new_text(said.delta):
                    yield text
            case "response.reasoning_text.delta" | "response.reasoning_summary_text.delta":
                if thought := self._new_thought(said.delta):
                    yield ReasoningPiece(thought)
            case "response.output_item.added" if said.item is not None and said.item.type == "function_call":
                if (begun := self._begin_call(said.output_index, said.item)) is not None:
                    yield begun
            case "response.function_call_arguments.delta":
                if (piece := self._new_arguments(said.output_index, said.delta)) is not None:
                    yield piece
            case "response.completed" | "response.incomplete":
                self._end(said.response or _Response())
            case "response.failed" | "response.cancelled":
                self.is_over = True
                raise _failure_of(said.response or _Response())
            case "error":
                raise reported(msgspec.json.decode(event.data))
            case _:
                if said.error is not None or event.type == "error":
                    raise reported(msgspec.json.decode(event.data))
                if said.response is not None and self.response_id is None and said.response.id:
                    self.response_id = said.response.id
                    if self._tells_handle:
                        yield Handle(said.response.id)

    def _new_text(self, delta: object) -> str:
        """Return what of *delta* hasn't been passed on."""
        if not isinstance(delta, str):
            raise msgspec.ValidationError
        delta = self._halves.join(None, delta)
        known = self._offset - self._characters
        self._characters += len(delta)
        return delta if known <= 0 else delta[known:]

    def _new_thought(self, delta: object) -> str:
        """Return what of a piece of reasoning hasn't been passed on."""
        if not isinstance(delta, str):
            raise msgspec.ValidationError
        delta = self._halves.join("thought", delta)
        known = self._known_thoughts - self._thoughts
        self._thoughts += len(delta)
        return delta if known <= 0 else delta[known:]

    def _begin_call(self, place: int, item: _Item) -> FunctionCallPiece | None:
        """Return what begins a call; None: that has been passed on."""
        if not item.name:
            raise msgspec.ValidationError
        number = len(self._calls)
        known = self._known_calls[number] if number < len(self._known_calls) else -1
        call = self._call_at[place] = _Call(number, known)
        self._calls.append(call)
        if call.known >= 0:
            return None
        return FunctionCallPiece(call.number, call_id=item.call_id or "", name=item.name)

    def _new_arguments(self, place: int, delta: object) -> FunctionCallPiece | None:
        """Return what of *delta* hasn't been passed on; None: all of it has."""
        call = self._call_at.get(place)
        if call is None or not isinstance(delta, str):
            raise msgspec.ValidationError
        delta = self._halves.join(call.number, delta)
        known = call.known - call.characters
        call.characters += len(delta)
        new = delta if known <= 0 else delta[known:]
        return FunctionCallPiece(call.number, new) if new else None

    def _end(self, response: _Response) -> None:
        self.is_over = self.is_done = True
        read = [call.characters for call in self._calls]
        if self._characters < self._offset or self._call_positions() != read:
            _log.warning("upstream's response is shorter than it was")
            raise ResponseShorter
        if response.incomplete_details is not None:
            self._reason = response.incomplete_details.reason
        if response.usage is not None:
            self.usage = _usage(response.usage)


def _failure_of(response: _Response) -> AgentError:
    return UpstreamReportedError() if response.error is None else reported(response.error)


def _usage(counts: object) -> Usage | None:
    try:
        usage = msgspec.convert(counts, _TokenCounts)
    except msgspec.MsgspecError:
        _log.warning("upstream sent a malformed usage")
        return None
    details = usage.input_tokens_details
    return Usage(
        input_tokens=usage.input_tokens or 0,
        output_tokens=usage.output_tokens or 0,
        cached_tokens=(details.cached_tokens or 0) if details else 0,
    )
