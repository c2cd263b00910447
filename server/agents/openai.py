"""An agent behind the Chat Completions API: OpenAI's, or any server that speaks it.

The `openai` package makes the request: addresses, keys, retries. What comes
back is read here, from the raw body: the package's own typed iterator was
measured at 155 us of CPU a chunk, the raw body with a parser of our own at 14.

The API in short: data-only events, each a ``chat.completion.chunk``; the last
with a ``finish_reason``; then, asked for by ``stream_options``, one with
``usage`` and no choices; then ``[DONE]``. Seen in other servers and allowed
for: any of the last three missing, usage on every chunk, an ``error`` object
instead of a chunk, ``event: error``, comments as heartbeats, a body that stays
open after ``[DONE]``.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import aclosing, suppress
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Final, Literal

import msgspec
import structlog
from structlog.typing import FilteringBoundLogger

from unbroken.server.agents import window
from unbroken.server.agents.base import (
    AgentBusy,
    AgentError,
    AgentNotReady,
    AgentOutput,
    ContextTooLong,
    Finish,
    TurnInput,
    UpstreamCut,
    UpstreamMalformed,
    UpstreamRateLimited,
    UpstreamRefusedKey,
    UpstreamRejected,
    UpstreamReportedError,
    UpstreamStalled,
    UpstreamUnavailable,
    Usage,
    Working,
)
from unbroken.server.agents.sse import Event, EventStreamParser, EventTooLong

if TYPE_CHECKING:
    import httpx2
    import openai

__all__ = ["OpenAIAgent", "OutputLimitField"]

OutputLimitField = Literal["max_tokens", "max_completion_tokens"]

_log: FilteringBoundLogger = structlog.get_logger(__name__)

_CONNECT_SECONDS: Final = 5.0
# A turn doesn't sit silent through a longer Retry-After: its client is told.
_LONGEST_RETRY_WAIT: Final = 5.0
_LONGEST_RETRY_AFTER: Final = 3600.0
# For usage and [DONE] to follow the answer, and for the body to end after them
# so that its connection can be used again.
_TAIL_SECONDS: Final = 5.0
_DRAIN_SECONDS: Final = 0.5
# Room for an answer whose length nobody limited.
_ANSWER_TOKENS: Final = 1024

_NO_CREDIT: Final = (
    "The server's account with the model's provider is out of credit. "
    "The operator of this server has to fix that."
)
_MISSING_KEY: Final = (
    "There is no key for the model: set OPENAI_API_KEY. For a server that needs none, set it to any word."
)
# OpenAI's and llama.cpp's codes; the prose of vLLM and of others, which give none.
_TOO_LONG_CODES: Final = frozenset(
    {"context_length_exceeded", "exceed_context_size_error", "string_above_max_length"}
)
_TOO_LONG_PHRASES: Final = ("context length", "context size", "context window", "prompt is too long")


class OpenAIAgent:
    """Answers through an upstream's Chat Completions API.

    Args:
        model: The upstream's name for the model that turns use by default.
            A turn that names another, allowed one is sent under that name.
        base_url: Where the API is, with its version, as in
            ``http://127.0.0.1:11434/v1``. None: ``OPENAI_BASE_URL``, else OpenAI.
        api_key: None: ``OPENAI_API_KEY``.
        timeout: Seconds that the upstream may be silent. Establishing a
            connection has five at most.
        max_retries: How often a request is sent again that failed before its
            answer began: no connection, 408, 409, 429, 5xx.
        context_tokens: The model's window. Conversations are shortened to it.
            None: they are sent whole, and the upstream refuses what is too long.
        output_limit_field: The name of the field that limits an answer's
            length. OpenAI's newer models refuse ``max_tokens``, other servers
            may not know ``max_completion_tokens``. None: by the address.
        max_connections: Bound on open connections, and so on turns at once.
            One more waits five seconds, then fails with AgentBusy.

    """

    def __init__(
        self,
        *,
        model: str,
        base_url: str | None = None,
        api_key: str | None = None,
        timeout: float = 60.0,
        max_retries: int = 2,
        context_tokens: int | None = None,
        output_limit_field: OutputLimitField | None = None,
        max_connections: int = 1000,
    ) -> None:
        self._model = model
        self._base_url = base_url
        self._api_key = api_key
        self._timeout = timeout
        self._max_retries = max_retries
        self._context_tokens = context_tokens
        self._output_limit_field = output_limit_field
        self._max_connections = max_connections
        self._client: openai.AsyncOpenAI | None = None  # from start() to stop()

    @property
    def model(self) -> str:
        """The upstream's name for the model."""
        return self._model

    @property
    def is_ready(self) -> bool:
        """Whether it has been started. The upstream is not asked."""
        return self._client is not None

    async def start(self) -> None:
        """Make the client. Takes about a second, for importing `openai`; nothing is sent.

        Raises:
            AgentNotReady: When the configuration can't work. The text, for
                the operator, says what to set.

        """
        if self._client is not None:
            return
        import httpx2
        import openai

        try:
            client = openai.AsyncOpenAI(
                api_key=self._api_key,
                base_url=self._base_url,
                max_retries=self._max_retries,
                http_client=openai.DefaultAsyncHttpxClient(
                    limits=httpx2.Limits(
                        max_connections=self._max_connections,
                        max_keepalive_connections=min(self._max_connections, 100),
                    ),
                    timeout=httpx2.Timeout(
                        self._timeout,
                        connect=min(self._timeout, _CONNECT_SECONDS),
                        pool=min(self._timeout, _CONNECT_SECONDS),
                    ),
                    # A conversation goes to the address it was meant for, nowhere else.
                    follow_redirects=False,
                    event_hooks={"response": [_shorten_retries]},
                ),
            )
        except openai.OpenAIError:
            # Its text speaks of credentials that this server has no settings for.
            raise AgentNotReady(_MISSING_KEY) from None
        except (ValueError, ImportError, OSError, httpx2.InvalidURL) as error:
            # From the variables that httpx2 reads: a proxy's address, certificates.
            raise AgentNotReady(
                f"The HTTP client can't be set up ({type(error).__name__}: {error}). "
                "Check the variables *_PROXY and SSL_CERT_FILE, and the base URL."
            ) from None
        problem = _problem_with(client)
        if problem is not None:
            await client.close()
            raise AgentNotReady(problem)
        if self._output_limit_field is None:
            self._output_limit_field = _output_limit_field(client.base_url.host)
        # The package imports its parts at first use: here rather than in the first turn.
        _ = client.chat.completions.with_streaming_response
        self._client = client

    async def stop(self) -> None:
        """Close all connections."""
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    async def respond(self, turn: TurnInput) -> AsyncGenerator[AgentOutput, None]:
        """Answer *turn*.

        Closing the generator or cancelling its task closes the upstream's
        connection at once. It yields text, Working for whatever else shows
        that the upstream is alive, and at the end Usage, where the upstream
        gave one, and Finish.

        Raises:
            AgentError: One of the kinds that the interface lists. The text is
                ours; what the upstream said is neither in it nor in the log.

        """
        if self._client is None:
            raise AgentNotReady
        import httpx2
        import openai

        request = self._request(turn)
        answer = _Answer()
        failure: AgentError
        try:
            async with (
                self._client.chat.completions.with_streaming_response.create(**request) as response,
                aclosing(response.http_response.aiter_bytes()) as body,
            ):
                _check_content_type(response.headers)
                async for data in body:
                    for output in answer.feed(data):
                        yield output
                    if answer.is_complete:
                        break
                else:
                    raise UpstreamCut
                await _read_tail(body, answer)
            # The connection is back in the pool by now, however slow the consumer.
            if answer.usage is not None:
                yield answer.usage
            yield answer.finish
            return
        except openai.OpenAIError as error:
            failure = _failure_of_request(error)
        except httpx2.HTTPError as error:
            failure = _failure_of_stream(error)
        # Outside the handlers, so that it carries no exception along that quotes the upstream.
        raise failure

    def _request(self, turn: TurnInput) -> dict[str, Any]:
        messages = turn.messages
        output_limit = turn.max_output_tokens
        if self._context_tokens is not None:
            room = min(output_limit or _ANSWER_TOKENS, self._context_tokens // 2)
            prompt = window.fit(
                messages, instructions=turn.instructions, budget_tokens=self._context_tokens - room
            )
            messages = prompt.messages
            if output_limit is not None:
                # Some servers refuse a limit that can't be reached within the window.
                output_limit = min(output_limit, max(room, self._context_tokens - prompt.tokens))
        wire_messages = [{"role": "system", "content": turn.instructions}] if turn.instructions else []
        # An answer that was stopped before its first word says nothing, and several servers refuse it.
        wire_messages += [{"role": m.role, "content": m.text} for m in messages if m.text or m.role == "user"]
        request: dict[str, Any] = {
            "model": turn.model,
            "messages": wire_messages,
            "stream": True,
            "stream_options": {"include_usage": True},
            # 64 characters, which is as many as OpenAI takes.
            "user": hashlib.sha256(turn.principal.encode()).hexdigest(),
            "extra_headers": {
                "Accept": "text/event-stream",
                "Accept-Encoding": "identity",  # a compressor holds tokens back
                "Idempotency-Key": turn.response_id,
            },
        }
        if output_limit is not None:
            assert self._output_limit_field is not None  # start() settles it
            request[self._output_limit_field] = output_limit
        return request


# What the stream is made of: only what is read, everything optional.


class _Delta(msgspec.Struct):
    content: str | None = None
    refusal: str | None = None


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
        self.is_done = False  # [DONE] was seen
        self.usage: Usage | None = None

    @property
    def is_complete(self) -> bool:
        """Whether all of the text is there."""
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

    def feed(self, data: bytes) -> Iterator[str | Working]:
        """Yield the pieces of text in *data*; one :class:`Working` if there are none.

        Raises:
            UpstreamMalformed: When it isn't what the API says.
            AgentError: When it holds an error, by its kind.

        """
        is_silent = True
        try:
            for event in self._events.feed(data):
                if event.data == b"[DONE]":
                    self.is_done = True
                    return
                for piece in self._read(event):
                    is_silent = False
                    yield piece
        except (msgspec.MsgspecError, UnicodeDecodeError, EventTooLong) as error:
            _log.warning("upstream sent a malformed stream", error=type(error).__name__)
            raise UpstreamMalformed from None
        if is_silent:  # a heartbeat, reasoning, the role
            yield Working()

    def _read(self, event: Event) -> Iterator[str]:
        if event.type == "error":
            raise _reported(msgspec.json.decode(event.data))
        chunk = self._decode(event.data)
        if chunk.error is not None:
            raise _reported(chunk.error)
        if chunk.usage is not None:
            self.usage = _usage(chunk.usage)
        if not chunk.choices:
            return
        choice = chunk.choices[0]  # only one was asked for
        if choice.delta is not None:
            if choice.delta.content:
                yield choice.delta.content
            if choice.delta.refusal:
                yield choice.delta.refusal
        if choice.finish_reason in {"error", "abort"}:
            raise UpstreamReportedError
        if choice.finish_reason:
            self._finish_reason = choice.finish_reason


async def _read_tail(body: AsyncIterator[bytes], answer: _Answer) -> None:
    """Read what follows a complete answer. Whatever goes wrong here, the answer is whole."""
    import httpx2

    with suppress(TimeoutError, httpx2.HTTPError, AgentError):
        async with asyncio.timeout(_DRAIN_SECONDS if answer.is_done else _TAIL_SECONDS) as limit:
            async for data in body:
                for _ in answer.feed(data):
                    pass
                if answer.is_done:
                    limit.reschedule(asyncio.get_running_loop().time() + _DRAIN_SECONDS)


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


# Configuration.


def _problem_with(client: openai.AsyncOpenAI) -> str | None:
    if not client.api_key:  # an administrator's key alone satisfies the package, not this API
        return _MISSING_KEY
    if not (client.api_key.isascii() and client.api_key.isprintable() and " " not in client.api_key):
        return "OPENAI_API_KEY holds a character that no key has, such as a space, a quote or a line break."
    if client.base_url.scheme not in {"http", "https"} or not client.base_url.host:
        return "The model's base URL must begin with http:// or https://, as in http://127.0.0.1:11434/v1."
    return None


def _output_limit_field(host: str) -> OutputLimitField:
    is_openai = host == "api.openai.com" or host.endswith((".openai.com", ".openai.azure.com"))
    return "max_completion_tokens" if is_openai else "max_tokens"


# What goes wrong. The upstream's prose may quote the key or the conversation:
# it is looked at here, and neither shown nor logged.


async def _shorten_retries(response: httpx2.Response) -> None:
    """Keep the package from sleeping through a long Retry-After, which it would for up to two minutes."""
    if (_retry_after(response.headers) or 0.0) > _LONGEST_RETRY_WAIT:
        response.headers["x-should-retry"] = "false"


def _check_content_type(headers: Mapping[str, str]) -> None:
    content_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type in {"text/html", "application/json"}:
        # As of a web page, or of a server that doesn't stream: not worth reading.
        _log.warning("upstream sent no event stream; is its base URL right?", content_type=content_type)
        raise UpstreamMalformed


def _failure_of_request(error: openai.OpenAIError) -> AgentError:
    import httpx2
    import openai

    if isinstance(error, openai.APIStatusError):
        _log.warning(
            "upstream refused the request",
            status=error.status_code,
            error_code=_identifier(error.code),
            error_type=_identifier(error.type),
            request_id=_identifier(error.request_id),
        )
        return _failure_of_status(error)
    cause = error.__cause__
    _log.warning("upstream request failed", error=type(error).__name__, cause=type(cause).__name__)
    if isinstance(cause, httpx2.ReadTimeout):
        return UpstreamStalled()
    if isinstance(cause, httpx2.PoolTimeout):
        return AgentBusy()
    return UpstreamUnavailable()


def _failure_of_status(error: openai.APIStatusError) -> AgentError:
    retry_after = _retry_after(error.response.headers)
    if error.status_code == 413 or _is_too_long(error.code, error.type, error.message):
        return ContextTooLong()
    match error.status_code:
        case 401 | 403:
            return UpstreamRefusedKey()
        case 402:
            return UpstreamRefusedKey(_NO_CREDIT)
        case 429 if error.code == "insufficient_quota":
            return UpstreamRefusedKey(_NO_CREDIT)
        case 429:
            return UpstreamRateLimited(retry_after=retry_after)
        case status if 400 <= status < 500 and status != 408:
            return UpstreamRejected()
        case _:
            return UpstreamUnavailable(retry_after=retry_after)


def _failure_of_stream(error: httpx2.HTTPError) -> AgentError:
    import httpx2

    _log.warning("upstream stream broke", error=type(error).__name__)
    if isinstance(error, httpx2.TimeoutException):
        return UpstreamStalled()
    if isinstance(error, httpx2.DecodingError):
        return UpstreamMalformed()
    return UpstreamCut()


def _reported(error: object) -> AgentError:
    """Return the failure for an error that came in place of a chunk."""
    fields: dict[Any, Any] = error if isinstance(error, dict) else {}
    if isinstance(nested := fields.get("error"), dict):
        fields = nested
    code, kind = fields.get("code"), fields.get("type")
    _log.warning("upstream reported an error", error_code=_identifier(code), error_type=_identifier(kind))
    if _is_too_long(code, kind, fields.get("message")):
        return ContextTooLong()
    if str(code) in {"429", "rate_limit_exceeded"}:
        return UpstreamRateLimited()
    return UpstreamReportedError()


def _is_too_long(code: object, kind: object, message: object) -> bool:
    if code in _TOO_LONG_CODES or kind in _TOO_LONG_CODES:
        return True
    prose = message.lower() if isinstance(message, str) else ""
    return any(phrase in prose for phrase in _TOO_LONG_PHRASES)


def _identifier(value: object) -> str | None:
    """Return *value* where it looks like a code, which is safe to log, and not like prose."""
    text = str(value)
    return text if value is not None and len(text) <= 64 and text.replace("-", "_").isidentifier() else None


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that the upstream asks to wait, an hour at most; None when it doesn't."""
    seconds: float | None = None
    with suppress(KeyError, ValueError, TypeError, OverflowError):
        if "retry-after-ms" in headers:
            seconds = float(headers["retry-after-ms"]) / 1000
        elif headers["retry-after"].strip()[:1].isdigit():
            seconds = float(headers["retry-after"])
        else:
            # By the upstream's own clock, so that ours doesn't matter.
            until, now = (parsedate_to_datetime(headers[name]) for name in ("retry-after", "date"))
            seconds = (until - now).total_seconds()
    if seconds is None or not 0 <= seconds < float("inf"):
        return None
    return min(seconds, _LONGEST_RETRY_AFTER)
