"""An agent behind the Chat Completions API: OpenAI's, or any server that speaks it.

The API in short: data-only events, each a ``chat.completion.chunk``; the last
with a ``finish_reason``; then, asked for by ``stream_options``, one with
``usage`` and no choices; then ``[DONE]``. Seen in other servers and allowed
for: any of the last three missing, usage on every chunk, an ``error`` object
instead of a chunk, ``event: error``, comments as heartbeats, a body that stays
open after ``[DONE]``.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence
from contextlib import aclosing
from typing import Any, Final, Literal, assert_never

import msgspec
import structlog
from structlog.typing import FilteringBoundLogger

from unbroken.server.agents import window
from unbroken.server.agents.attachments import (
    NOTHING,
    Contents,
    Data,
    contents_of,
    has_references,
    wire_message,
)
from unbroken.server.agents.base import (
    AgentOutput,
    Finish,
    FunctionCall,
    FunctionCallPiece,
    FunctionOutput,
    FunctionTool,
    Image,
    Message,
    NamedTool,
    Parameters,
    Prompted,
    ReasoningPiece,
    ToolChoice,
    TurnInput,
    UpstreamMalformed,
    UpstreamReportedError,
    Usage,
    Working,
)
from unbroken.server.agents.calls import answered
from unbroken.server.agents.halves import decode_halves
from unbroken.server.agents.sse import Event, EventStreamParser, EventTooLong
from unbroken.server.agents.upstream import Upstream, cache_key_of, headers_for, streaming, user_of
from unbroken.server.agents.upstream_failure import reported

__all__ = ["OpenAIAgent", "OutputLimitField"]

OutputLimitField = Literal["max_tokens", "max_completion_tokens"]

_log: FilteringBoundLogger = structlog.get_logger(__name__)

_PATH: Final = "/chat/completions"
# Room for an answer whose length nobody limited.
_ANSWER_TOKENS: Final = 1024


class OpenAIAgent:
    """Answers through an upstream's Chat Completions API.

    Args:
        upstream: Where to. It is the agent's: started and stopped with it.
        model: The upstream's name for the model that turns use by default.
            A turn that names another, allowed one is sent under that name.
        context_tokens: The model's window. Conversations are shortened to it.
            None: they are sent whole, and the upstream refuses what is too long.
        output_limit_field: The name of the field that limits an answer's
            length. OpenAI's newer models refuse ``max_tokens``, other servers
            may not know ``max_completion_tokens``. None: by the address.

    """

    def __init__(
        self,
        upstream: Upstream,
        *,
        model: str,
        context_tokens: int | None = None,
        output_limit_field: OutputLimitField | None = None,
    ) -> None:
        self._model = model
        self._upstream = upstream
        self._context_tokens = context_tokens
        self._output_limit_field = output_limit_field

    @property
    def model(self) -> str:
        """The upstream's name for the model."""
        return self._model

    @property
    def is_ready(self) -> bool:
        """Whether it has been started. The upstream is not asked."""
        return self._upstream.is_started

    async def start(self) -> None:
        """See :meth:`Upstream.start`."""
        await self._upstream.start()

    async def stop(self) -> None:
        """Close all connections."""
        await self._upstream.stop()

    def respond(self, turn: TurnInput) -> AsyncGenerator[AgentOutput, None]:
        """Answer *turn*.

        Closing the generator or cancelling its task closes the upstream's
        connection at once. It yields text, Working for whatever else shows
        that the upstream is alive, and at the end Usage, where the upstream
        gave one, and Finish.

        Raises:
            AgentError: One of the kinds that the interface lists. The text is
                ours; what the upstream said is neither in it nor in the log.

        """
        if has_references(turn.items):
            return self._respond_with_files(turn)
        return self._read(turn, NOTHING)

    async def _respond_with_files(self, turn: TurnInput) -> AsyncGenerator[AgentOutput, None]:
        contents = await contents_of(turn.items, turn.files)
        async with aclosing(self._read(turn, contents)) as outputs:
            async for output in outputs:
                yield output

    def _read(self, turn: TurnInput, contents: Contents) -> AsyncGenerator[AgentOutput, None]:
        return self._upstream.read(
            streaming(_PATH, headers_for(turn.response_id, turn.trace), self._request(turn, contents)),
            _Answer(),
        )

    def _request(self, turn: TurnInput, contents: Contents = NOTHING) -> dict[str, Any]:
        items = answered(turn.items)
        tools = [_wire_tool(tool) for tool in turn.tools]
        output_limit = turn.max_output_tokens
        if self._context_tokens is not None:
            room = min(output_limit or _ANSWER_TOKENS, self._context_tokens // 2)
            form = turn.parameters.format
            beside = [*tools, *([] if form is None else [form])]  # what the model is told, too
            tool_tokens = window.estimate_tokens(msgspec.json.encode(beside).decode()) if beside else 0
            prompt = window.fit(
                items,
                instructions=turn.instructions,
                budget_tokens=self._context_tokens - room - tool_tokens,
            )
            items = prompt.messages
            if output_limit is not None:
                # Some servers refuse a limit that can't be reached within the window.
                output_limit = min(
                    output_limit, max(room, self._context_tokens - prompt.tokens - tool_tokens)
                )
        wire_messages = [{"role": "system", "content": turn.instructions}] if turn.instructions else []
        request: dict[str, Any] = {
            "model": turn.model,
            "messages": [*wire_messages, *_wire_messages(items, contents)],
            "stream": True,
            "stream_options": {"include_usage": True},
            "user": user_of(turn.principal),
        }
        if self._upstream.is_openai:
            request["prompt_cache_key"] = cache_key_of(turn.session_id)
        if tools:
            request["tools"] = tools
            if turn.tool_choice != "auto":
                request["tool_choice"] = _wire_choice(turn.tool_choice)
            if turn.parallel_tool_calls is not None:
                request["parallel_tool_calls"] = turn.parallel_tool_calls
        request |= _wire_parameters(turn.parameters)
        if output_limit is not None:
            request[self._output_limit_field or self._default_limit_field()] = output_limit
        return request

    def _default_limit_field(self) -> OutputLimitField:
        is_openai = self._upstream.is_openai or self._upstream.is_azure
        return "max_completion_tokens" if is_openai else "max_tokens"


def _wire_messages(items: tuple[Prompted, ...], contents: Contents) -> list[dict[str, Any]]:
    wire: list[dict[str, Any]] = []
    for item in items:
        match item:
            case Message():
                if (message := wire_message(item, contents, _wire_piece)) is not None:
                    wire.append(message)
            case FunctionCall():
                # Some servers read the arguments; of a function without any, some models say nothing.
                function = {"name": item.name, "arguments": item.arguments or "{}"}
                call = {"id": item.call_id, "type": "function", "function": function}
                # What was said and called in one answer is one message.
                if not (wire and wire[-1]["role"] == "assistant"):
                    wire.append({"role": "assistant", "content": None})
                wire[-1].setdefault("tool_calls", []).append(call)
            case FunctionOutput():
                wire.append({"role": "tool", "tool_call_id": item.call_id, "content": item.output})
            case _:
                assert_never(item)
    return wire


def _wire_piece(piece: str | Data) -> dict[str, Any]:
    if isinstance(piece, str):
        return {"type": "text", "text": piece}
    part = piece.part
    if isinstance(part, Image):
        return {"type": "image_url", "image_url": {"url": piece.uri, "detail": part.detail}}
    return {"type": "file", "file": {"filename": part.name, "file_data": piece.uri}}


def _wire_tool(tool: FunctionTool) -> dict[str, Any]:
    return {"type": "function", "function": msgspec.to_builtins(tool)}


def _wire_choice(choice: ToolChoice) -> str | dict[str, Any]:
    if isinstance(choice, NamedTool):
        return {"type": "function", "function": {"name": choice.name}}
    return choice


def _wire_parameters(parameters: Parameters) -> dict[str, Any]:
    given = {"temperature": parameters.temperature, "top_p": parameters.top_p}
    wire: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    if parameters.stop:
        wire["stop"] = list(parameters.stop)
    if (form := parameters.format) is not None:
        kind = form.get("type")
        within = {name: value for name, value in form.items() if name != "type"}
        wire["response_format"] = {"type": kind, "json_schema": within} if kind == "json_schema" else form
    return wire


# What the stream is made of: only what is read, everything optional.


class _Function(msgspec.Struct):
    name: str | None = None
    arguments: str | None = None


class _ToolCall(msgspec.Struct):
    index: int | None = None
    id: str | None = None
    function: _Function | None = None


class _Delta(msgspec.Struct):
    content: str | None = None
    # The first in DeepSeek, SGLang, llama.cpp and older vLLM, the second in OpenRouter, Groq and newer vLLM.
    reasoning_content: str | None = None
    # In some servers an object, by the same name.
    reasoning: Any = None
    refusal: str | None = None
    tool_calls: list[_ToolCall] | None = None


class _Choice(msgspec.Struct):
    delta: _Delta | None = None
    finish_reason: str | None = None


class _Chunk(msgspec.Struct):
    choices: list[_Choice] | None = None
    # Rare, and of many shapes: looked into when they come.
    usage: Any = None
    error: Any = None


class _TokenDetails(msgspec.Struct):
    cached_tokens: int | None = None


class _TokenCounts(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _TokenDetails | None = None


class _Answer:
    """One answer, without I/O: the body's bytes in, outputs out."""

    def __init__(self) -> None:
        self._events = EventStreamParser()
        self._decode = msgspec.json.Decoder(_Chunk).decode
        self._finish_reason: str | None = None
        self._calls: list[tuple[int | None, str | None]] = []  # by our number: the upstream's, and its id
        self.is_done = False  # [DONE] was seen
        self.usage: Usage | None = None

    @property
    def is_complete(self) -> bool:
        """Whether all of the text, and of the calls, is there."""
        return self.is_done or self._finish_reason is not None

    @property
    def finish(self) -> Finish:
        """Why it stopped, in our words."""
        match self._finish_reason:
            case "length":
                return Finish("max_output_tokens")
            case "content_filter":
                return Finish("content_filter")
            case _:
                return Finish("completed")

    def feed(self, data: bytes) -> Iterable[AgentOutput]:
        """Return the pieces of text and of calls in *data*; one :class:`Working` if there are none.

        Raises, or what it returns does:
            UpstreamMalformed: When it isn't what the API says.
            AgentError: When it holds an error, by its kind.

        """
        try:
            events = self._events.feed(data)
        except EventTooLong as error:
            raise _malformed(error) from None
        if len(events) == 1 and (text := self._text_of(events[0])):
            return (text,)
        return self._outputs(events)

    def _text_of(self, event: Event) -> str | None:
        """Return the text of an event with nothing else in it, as nearly every one is; None: look closer."""
        try:
            chunk = self._decode(event.data)
        except msgspec.DecodeError:
            return None
        choices = chunk.choices
        if not choices or chunk.error is not None or chunk.usage is not None or event.type != "message":
            return None
        choice = choices[0]
        delta = choice.delta
        if delta is None or choice.finish_reason or delta.tool_calls or delta.refusal:
            return None
        return None if delta.reasoning_content or delta.reasoning else delta.content

    def _outputs(self, events: Sequence[Event]) -> Iterator[AgentOutput]:
        is_silent = True
        try:
            for event in events:
                if event.data == b"[DONE]":
                    self.is_done = True
                    return
                for piece in self._read(event):
                    is_silent = False
                    yield piece
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise _malformed(error) from None
        if is_silent:  # a heartbeat, the role
            yield Working()

    def _read(self, event: Event) -> Iterator[AgentOutput]:
        if event.type == "error":
            raise reported(msgspec.json.decode(event.data))
        try:
            chunk = self._decode(event.data)
        except msgspec.DecodeError:
            chunk = decode_halves(event.data, _Chunk)  # the run joins them
        if chunk.error is not None:
            raise reported(chunk.error)
        if chunk.usage is not None:
            self.usage = _usage(chunk.usage)
        if not chunk.choices:
            return
        choice = chunk.choices[0]  # only one was asked for
        if choice.delta is not None:
            thought = choice.delta.reasoning_content or choice.delta.reasoning
            if thought and isinstance(thought, str):
                yield ReasoningPiece(thought)
            if choice.delta.content:
                yield choice.delta.content
            if choice.delta.refusal:
                yield choice.delta.refusal
            for call in choice.delta.tool_calls or ():
                yield self._piece(call)
        if choice.finish_reason in {"error", "abort"}:
            raise UpstreamReportedError
        if choice.finish_reason:
            self._finish_reason = choice.finish_reason

    def _piece(self, call: _ToolCall) -> FunctionCallPiece:
        """Return what the upstream says of a call.

        Seen and allowed for: no index, the same index for each of several
        calls, the id and the name repeated in every piece.
        """
        function = call.function or _Function()
        for number in reversed(range(len(self._calls))):
            index, call_id = self._calls[number]
            is_other = bool(call.id and call.id != call_id and function.name)
            if call.index in (index, None) and not is_other:
                return FunctionCallPiece(number, function.arguments or "")
        if not function.name:
            raise msgspec.ValidationError
        self._calls.append((call.index, call.id))
        return FunctionCallPiece(
            len(self._calls) - 1, function.arguments or "", call_id=call.id or "", name=function.name
        )


def _malformed(error: Exception) -> UpstreamMalformed:
    _log.warning("upstream sent a malformed stream", error=type(error).__name__)
    return UpstreamMalformed()


def _usage(counts: object) -> Usage | None:
    try:
        usage = msgspec.convert(counts, _TokenCounts)
    except msgspec.MsgspecError:
        _log.warning("upstream sent a malformed usage")
        return None
    details = usage.prompt_tokens_details
    return Usage(
        input_tokens=usage.prompt_tokens or 0,
        output_tokens=usage.completion_tokens or 0,
        cached_tokens=(details.cached_tokens or 0) if details else 0,
    )
