"""An agent behind the Responses API: OpenAI's, or any server that speaks it.

How its streams are read is in :mod:`~unbroken.server.agents.response_stream`.

In **background mode** the upstream keeps the response, and works on it whether
anybody reads it or not. That has three consequences:

- A stream that is cut is no failure: the response is read again by its id. So
  that nothing is lost or said twice, whatever the servers in between make of
  sequence numbers, it is read from its start, and the characters that were
  already passed on are dropped.
- Another process can do the same: see :meth:`ResponsesAgent.reattach`.
- Closing the connection stops nothing. A turn that isn't wanted any more is
  cancelled by a request of its own, when its custody says that nobody else
  goes on with it.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncGenerator, Awaitable, Sequence
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Any, Final, assert_never
from urllib.parse import quote

import structlog
from structlog.typing import FilteringBoundLogger

from unbroken.server.agents.attachments import (
    NOTHING,
    Contents,
    Data,
    contents_of,
    has_references,
    wire_message,
)
from unbroken.server.agents.base import (
    AgentError,
    AgentOutput,
    FunctionCall,
    FunctionOutput,
    FunctionTool,
    Handle,
    Image,
    Message,
    NamedTool,
    Parameters,
    Prompted,
    ResponseGone,
    ToolChoice,
    TurnInput,
    UpstreamCut,
    UpstreamRejected,
)
from unbroken.server.agents.calls import answered
from unbroken.server.agents.response_stream import ResponseAnswer
from unbroken.server.agents.stops import until_stop
from unbroken.server.agents.upstream import (
    Request,
    Upstream,
    cache_key_of,
    headers_for,
    streaming,
    user_of,
)
from unbroken.sessions.custody import Custody

if TYPE_CHECKING:
    import httpx2
    import openai

__all__ = ["ResponsesAgent"]

_log: FilteringBoundLogger = structlog.get_logger(__name__)

_PATH: Final = "/responses"
# Streams cut one after the other, none of which brought any text.
_VAIN_STREAMS: Final = 3
# Whoever stops the agent waits for this.
_CANCEL_SECONDS: Final = 1.0


class ResponsesAgent:
    """Answers through an upstream's Responses API.

    Args:
        upstream: Where to. It is the agent's: started and stopped with it.
        model: The upstream's name for the model that turns use by default.
            A turn that names another, allowed one is sent under that name.
        background: Have the upstream keep each response (``store``) and work on it on its own.

    """

    def __init__(
        self,
        upstream: Upstream,
        *,
        model: str,
        background: bool = False,
    ) -> None:
        self._model = model
        self._upstream = upstream
        self._is_background = background
        self._cancelling: set[asyncio.Task[None]] = set()

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
        """Close all connections, once what was stopped just before has been cancelled upstream."""
        await asyncio.gather(*self._cancelling)
        await self._upstream.stop()

    def respond(self, turn: TurnInput) -> AsyncGenerator[AgentOutput, None]:
        """Answer *turn*.

        Closing the generator or cancelling its task closes the upstream's
        connection at once. It yields text, Working for whatever else shows
        that the upstream is alive, and at the end Usage, where the upstream
        gave one, and Finish. In background mode a Handle comes before the
        text, and what cancels the response upstream is left with the turn's
        custody. A turn that is stopped before the response's id has come can't
        be cancelled upstream.

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
        headers = headers_for(turn.response_id, turn.trace)
        create = streaming(_PATH, headers, self._request(turn, contents))
        if self._is_background:
            outputs = self._follow(create, ResponseAnswer(tells_handle=True), turn.custody)
        else:
            outputs = self._upstream.read(create, ResponseAnswer())
        return until_stop(outputs, turn.parameters.stop)  # the API has nothing of the kind

    def reattach(
        self,
        turn: TurnInput,
        handle: Handle,
        offset: int,
        calls: Sequence[int] = (),
    ) -> AsyncGenerator[AgentOutput, None]:
        """See :meth:`Reattaching.reattach`. Otherwise as :meth:`respond` in background mode."""
        answer = ResponseAnswer(response_id=handle.value, offset=offset, calls=calls)
        outputs = self._follow(_retrieval(handle.value), answer, turn.custody)
        return until_stop(outputs, turn.parameters.stop)

    async def abandon(self, handle: Handle) -> None:
        """See :meth:`Reattaching.abandon`."""
        await asyncio.shield(self._cancel(handle.value))

    def _request(self, turn: TurnInput, contents: Contents = NOTHING) -> dict[str, Any]:
        wire_messages = [{"role": "system", "content": turn.instructions}] if turn.instructions else []
        request: dict[str, Any] = {
            "model": turn.model,
            "input": [*wire_messages, *_wire_items(answered(turn.items), contents)],
            "stream": True,
            "store": self._is_background,
            "user": user_of(turn.principal),
        }
        if self._is_background:
            request["background"] = True
        if self._upstream.is_openai:
            request["prompt_cache_key"] = cache_key_of(turn.session_id)
        if turn.tools:
            request["tools"] = [_wire_tool(tool) for tool in turn.tools]
            if turn.tool_choice != "auto":
                request["tool_choice"] = _wire_choice(turn.tool_choice)
            if turn.parallel_tool_calls is not None:
                request["parallel_tool_calls"] = turn.parallel_tool_calls
        request |= _wire_parameters(turn.parameters)
        if turn.max_output_tokens is not None:
            request["max_output_tokens"] = turn.max_output_tokens
        return request

    async def _follow(
        self, request: Request, answer: ResponseAnswer, custody: Custody
    ) -> AsyncGenerator[AgentOutput, None]:
        """Read a response that the upstream keeps, by as many streams as it takes."""
        vain, is_another_s = 0, answer.response_id is not None
        try:
            while True:
                position = answer.position
                try:
                    async with aclosing(self._upstream.read(request, answer)) as outputs:
                        async for output in outputs:
                            yield output
                    return
                except UpstreamCut:
                    vain = vain + 1 if answer.position == position else 0
                    if answer.response_id is None or vain == _VAIN_STREAMS:
                        raise
                except UpstreamRejected:
                    if not answer.is_resumed:
                        if is_another_s and not answer.is_over:
                            raise ResponseGone from None
                        raise
                    # The failure is that the stream was cut; that the rest can't be had is its consequence.
                    raise UpstreamCut from None
                _log.info("upstream stream resumed", position=answer.position)
                request = _retrieval(answer.response_id)
                answer = answer.resumed()
        finally:
            if answer.response_id is not None and not answer.is_over:
                custody.stop(functools.partial(self._cancel, answer.response_id))

    def _cancel(self, response_id: str) -> asyncio.Task[None]:
        """Have the upstream stop, whatever becomes of who wants it to."""
        task = asyncio.create_task(self._request_cancel(response_id))
        self._cancelling.add(task)
        task.add_done_callback(self._cancelling.discard)
        return task

    async def _request_cancel(self, response_id: str) -> None:
        import httpx2
        import openai

        problem: str | None = None
        with suppress(AgentError):  # it has been stopped in the meantime
            client = self._upstream.client.with_options(max_retries=0)
            try:
                async with asyncio.timeout(_CANCEL_SECONDS):
                    await client.post(f"{_path_of(response_id)}/cancel", cast_to=httpx2.Response)
            except (openai.OpenAIError, TimeoutError) as error:
                problem = type(error).__name__
        if problem is not None:
            _log.warning("upstream did not confirm a cancel", error=problem)


def _wire_items(items: tuple[Prompted, ...], contents: Contents) -> list[dict[str, Any]]:
    wire: list[dict[str, Any]] = []
    for item in items:
        match item:
            case Message():
                if (message := wire_message(item, contents, _wire_piece)) is not None:
                    wire.append(message)
            case FunctionCall():
                head = {"type": "function_call", "call_id": item.call_id, "name": item.name}
                wire.append({**head, "arguments": item.arguments or "{}"})
            case FunctionOutput():
                wire.append({"type": "function_call_output", "call_id": item.call_id, "output": item.output})
            case _:
                assert_never(item)
    return wire


def _wire_piece(piece: str | Data) -> dict[str, Any]:
    if isinstance(piece, str):
        return {"type": "input_text", "text": piece}
    part = piece.part
    if isinstance(part, Image):
        return {"type": "input_image", "image_url": piece.uri, "detail": part.detail}
    return {"type": "input_file", "filename": part.name, "file_data": piece.uri}


def _wire_tool(tool: FunctionTool) -> dict[str, Any]:
    # Left out, `strict` would be on, and refuse most schemas that weren't written for it.
    fields = {"type": "function", "name": tool.name, "parameters": tool.parameters, "strict": False}
    return fields if tool.description is None else {**fields, "description": tool.description}


def _wire_choice(choice: ToolChoice) -> str | dict[str, Any]:
    return {"type": "function", "name": choice.name} if isinstance(choice, NamedTool) else choice


def _wire_parameters(parameters: Parameters) -> dict[str, Any]:
    given = {"temperature": parameters.temperature, "top_p": parameters.top_p}
    wire: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    if parameters.format is not None:
        wire["text"] = {"format": parameters.format}
    return wire


def _retrieval(response_id: str) -> Request:
    """Return the request for the stream of a response that exists, from its start."""

    def send(client: openai.AsyncOpenAI) -> Awaitable[httpx2.Response]:
        return streaming(_path_of(response_id), headers_for())(client)

    return send


def _path_of(response_id: str) -> str:
    if not response_id.strip("."):  # none, or dots, which lead elsewhere
        raise UpstreamRejected
    return f"{_PATH}/{quote(response_id, safe='')}"
