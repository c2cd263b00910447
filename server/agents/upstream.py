"""A server that speaks one of OpenAI's HTTP APIs: its client, its connections, and reading its streams.

The `openai` package makes the requests: addresses, keys, retries. It is handed
them as they go over the wire, so that it has nothing to transform, and sends them by
:mod:`~unbroken.server.agents.http_transport`. What comes back is read here, from the
raw body: the package's own typed iterator was measured at 155 us of CPU a chunk, the
raw body with a parser of our own at 14.

What differs from API to API is an :class:`Answer`: bytes in, outputs out.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Mapping,
)
from contextlib import aclosing, suppress
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias, cast
from urllib.request import getproxies

from unbroken.server.agents.base import (
    AgentBusy,
    AgentError,
    AgentNotReady,
    AgentOutput,
    Finish,
    UpstreamCut,
    UpstreamUnavailable,
    Usage,
)
from unbroken.server.agents.places import Place
from unbroken.server.agents.upstream_failure import (
    check_content_type,
    failure_of_request,
    failure_of_stream,
    seconds_to_wait,
)
from unbroken.server.trace_context import child_of

if TYPE_CHECKING:
    import httpx2
    import openai

__all__ = [
    "Answer",
    "Request",
    "Upstream",
    "UpstreamObserver",
    "cache_key_of",
    "headers_for",
    "streaming",
    "user_of",
]

_CONNECT_SECONDS: Final = 5.0
# A turn doesn't sit silent through a longer Retry-After: its client is told.
_LONGEST_RETRY_WAIT: Final = 5.0
# For usage and the like to follow the answer, and for the body to end after them
# so that its connection can be used again.
_TAIL_SECONDS: Final = 5.0
_DRAIN_SECONDS: Final = 0.5
# People pause between turns for longer than the HTTP client's own five seconds, and a
# new connection costs two or three round trips. Providers keep idle ones for a minute or more;
# one that was closed over there by then is noticed before it is used.
_IDLE_CONNECTION_SECONDS: Final = 60.0
_IDLE_CONNECTIONS: Final = 100

_HIGHEST_PORT: Final = 65535

# What variables of the environment may name a proxy for. NO_PROXY names none.
_PROXIES: Final = frozenset({"http", "https", "all"})

_MISSING_KEY: Final = (
    "There is no key for the model: set OPENAI_API_KEY. For a server that needs none, set it to any word."
)


class Answer(Protocol):
    """One answer, without I/O: the body's bytes in, outputs out."""

    @property
    def is_complete(self) -> bool:
        """Whether all of the text is there."""

    @property
    def is_done(self) -> bool:
        """Whether nothing more is to be expected, not even the bill."""

    @property
    def usage(self) -> Usage | None:
        """The bill, where there was one."""

    @property
    def finish(self) -> Finish:
        """Why it stopped, in our words."""

    def feed(self, data: bytes) -> Iterable[AgentOutput]:
        """Return what is in *data*; one :class:`Working` if there is nothing to show.

        Raises, or what it returns does:
            UpstreamMalformed: When it isn't what the API says.
            AgentError: When it holds an error, by its kind.

        """


Request: TypeAlias = "Callable[[openai.AsyncOpenAI], Awaitable[httpx2.Response]]"
"""Opens a stream with the client it is given. Whoever awaits it closes it."""


class UpstreamObserver:
    """Is told what is asked of an upstream. This one does nothing; nothing may raise."""

    def requested(self, *, is_retry: bool) -> None:
        """Note an HTTP request that is sent, be it for the rest of an answer, or to stop one."""

    def ended(self, outcome: str) -> None:
        """Note how reading a stream ended: ``completed``, ``stopped`` by us, or an error's code."""


class Upstream:
    """The upstream's address, and connections to it between :meth:`start` and :meth:`stop`.

    Args:
        base_url: Where the API is, with its version, as in
            ``http://127.0.0.1:11434/v1``. None: ``OPENAI_BASE_URL``, else OpenAI.
        api_key: None: ``OPENAI_API_KEY``.
        timeout: Seconds that the upstream may be silent. Establishing a
            connection has five at most.
        max_retries: How often a request is sent again that failed before its
            answer began: no connection, 408, 409, 429, 5xx.
        max_connections: Bound on open connections, and so on turns at once.
            One more waits five seconds, then fails with AgentBusy.
        observer: Told what is asked. None: nobody.

    """

    def __init__(
        self,
        *,
        base_url: str | None = None,
        api_key: str | None = None,
        timeout: float = 60.0,
        max_retries: int = 2,
        max_connections: int = 1000,
        observer: UpstreamObserver | None = None,
    ) -> None:
        self._observer = observer or UpstreamObserver()
        self._base_url = base_url
        self._api_key = api_key
        self._timeout = timeout
        self._max_retries = max_retries
        self._max_connections = max_connections
        self._patience = min(timeout, _CONNECT_SECONDS)  # for a place, and for a connection
        self._places = asyncio.Semaphore(max_connections)
        self._client: openai.AsyncOpenAI | None = None  # from start() to stop()

    @property
    def is_started(self) -> bool:
        """Whether there is a client. The upstream is not asked."""
        return self._client is not None

    @property
    def client(self) -> openai.AsyncOpenAI:
        """The client.

        Raises:
            AgentNotReady: It hasn't been started.

        """
        if self._client is None:
            raise AgentNotReady
        return self._client

    @property
    def is_openai(self) -> bool:
        """Whether the address is OpenAI's own: such a server takes fields that others may refuse."""
        host = self.client.base_url.host
        return host == "api.openai.com" or host.endswith(".openai.com")

    @property
    def is_azure(self) -> bool:
        """Whether the address is that of OpenAI's models on Azure."""
        return self.client.base_url.host.endswith(".openai.azure.com")

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

        from unbroken.server.agents.error_body import bound_error
        from unbroken.server.agents.upstream_client import UpstreamClient

        timeout = httpx2.Timeout(self._timeout, connect=self._patience, pool=self._patience)
        try:
            client = UpstreamClient(
                api_key=self._api_key,
                base_url=self._base_url,
                max_retries=self._max_retries,
                timeout=timeout,  # here too: one that is the HTTP client's default is passed over there
                http_client=openai.DefaultAsyncHttpxClient(
                    transport=None if _PROXIES & getproxies().keys() else self._transport(),
                    limits=httpx2.Limits(
                        max_connections=self._max_connections,
                        max_keepalive_connections=min(self._max_connections, _IDLE_CONNECTIONS),
                        keepalive_expiry=_IDLE_CONNECTION_SECONDS,
                    ),
                    timeout=timeout,
                    # A conversation goes to the address it was meant for, nowhere else.
                    follow_redirects=False,
                    # Nor is anything kept of what it sets: turns are of different users.
                    cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
                    event_hooks={
                        "request": [self._note_request],
                        "response": [_shorten_retries, bound_error],
                    },
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
        self._client = client

    def _transport(self) -> httpx2.AsyncBaseTransport:
        """Return what is used where no proxy is: the HTTP client's own would pass over it."""
        from unbroken.server.agents.http_transport import HttpTransport

        return HttpTransport(
            max_idle=min(self._max_connections, _IDLE_CONNECTIONS),
            idle_seconds=_IDLE_CONNECTION_SECONDS,
        )

    async def _note_request(self, request: httpx2.Request) -> None:
        # The package numbers the attempts at a request from 0.
        self._observer.requested(is_retry=request.headers.get("x-stainless-retry-count", "0") != "0")

    async def _wait_for(self, place: Place) -> None:
        try:
            await place.take(self._patience)
        except TimeoutError:
            raise AgentBusy from None

    async def stop(self) -> None:
        """Close all connections."""
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    async def read(self, request: Request, answer: Answer) -> AsyncGenerator[AgentOutput, None]:
        """Send *request*, and yield what *answer* makes of the stream.

        At the end come Usage, where there was one, and Finish. Closing the
        generator or cancelling its task closes the connection at once.

        Raises:
            AgentError: One of the kinds that the interface lists. The text is
                ours; what the upstream said is neither in it nor in the log.

        """
        client = self.client
        import httpx2
        import openai

        failure: AgentError
        outcome = "agent_crashed"  # unless it is one of the others
        place = Place(self._places)
        try:
            # Ahead of the first request: the package would wait again where this one's wait is over.
            await self._wait_for(place)
            async with (
                aclosing(await _sent(request, client, place)) as response,
                aclosing(_body_of(response)) as body,
            ):
                check_content_type(response.headers)
                async for data in body:
                    for output in answer.feed(data):
                        yield output
                    if answer.is_complete:
                        break
                else:
                    raise UpstreamCut
                await _read_tail(body, answer)
            outcome = "completed"
            # The connection is back in the pool by now, however slow the consumer.
            if answer.usage is not None:
                yield answer.usage
            yield answer.finish
            return
        except openai.OpenAIError as error:
            failure = failure_of_request(error, _host_of(client))
            outcome = failure.code
        except httpx2.HTTPError as error:
            failure = failure_of_stream(error, _host_of(client))
            outcome = failure.code
        except RuntimeError:  # what the HTTP client says to who comes after it was closed, as to try again
            if self._client is client:
                raise
            failure = UpstreamUnavailable()
            outcome = failure.code
        except AgentError as error:
            outcome = error.code
            raise
        except (asyncio.CancelledError, GeneratorExit):
            if outcome != "completed":  # and it hadn't ended anyway
                outcome = "stopped"
            raise
        finally:
            place.give_back()
            self._observer.ended(outcome)
        # Outside the handlers, so that it carries no exception along that quotes the upstream.
        try:
            raise failure
        finally:
            del failure  # it leads to this frame, and the frame to it


async def _sent(request: Request, client: openai.AsyncOpenAI, place: Place) -> httpx2.Response:
    with place.used():
        return await request(client)


def streaming(path: str, headers: dict[str, str], body: Mapping[str, object] | None = None) -> Request:
    """Return the request for the stream that *path* makes of *body*, which is as the API has it.

    Without one, for the stream of what is there.
    """

    def send(client: openai.AsyncOpenAI) -> Awaitable[httpx2.Response]:
        import httpx2
        import openai

        kind = openai.AsyncStream[object]
        answer: Awaitable[object]
        if body is None:
            answer = client.get(
                path,
                cast_to=httpx2.Response,
                options={"headers": headers, "params": {"stream": True}},
                stream=True,
                stream_cls=kind,
            )
        else:
            answer = client.post(
                path,
                cast_to=httpx2.Response,
                body=body,
                options={"headers": headers},
                stream=True,
                stream_cls=kind,
            )
        # What `cast_to` asks for comes unread, and as it is, for a stream too; its types don't say so.
        return cast("Awaitable[httpx2.Response]", answer)

    return send


def headers_for(response_id: str | None = None, trace: str | None = None) -> dict[str, str]:
    """Return what to send along with a request for a stream; with an id, if it is one for a new answer.

    *trace* is the ``traceparent`` that it was asked for with.
    """
    headers = {
        "Accept": "text/event-stream",
        "Accept-Encoding": "identity",  # a compressor holds tokens back
    }
    if response_id is not None:
        headers["Idempotency-Key"] = response_id
    if trace is not None:
        headers["traceparent"] = child_of(trace)
    return headers


def user_of(principal: str) -> str:
    """Return a name for *principal* that tells them apart and doesn't name them."""
    return _digest(principal)


def cache_key_of(session_id: str) -> str:
    """Return the key by which OpenAI sends a conversation's turns to where its prompt is cached."""
    return _digest(f"prompt cache of {session_id}")


def _digest(text: str) -> str:
    # 64 characters, which is as many as OpenAI takes.
    return hashlib.sha256(text.encode()).hexdigest()


async def _shorten_retries(response: httpx2.Response) -> None:
    """Keep the package from sleeping through a long Retry-After, which it would for up to two minutes."""
    if (seconds_to_wait(response.headers) or 0.0) > _LONGEST_RETRY_WAIT:
        response.headers["x-should-retry"] = "false"


def _host_of(client: openai.AsyncOpenAI) -> str:
    """Return the host, with its port where that is said: what may be logged of an address."""
    return client.base_url.netloc.decode()


def _body_of(response: httpx2.Response) -> AsyncGenerator[bytes, None]:
    """Return the body's bytes as they come.

    The response's own iterators pass each piece through two generators and a
    decoder more. They are needed only where a server compresses unasked.
    """
    body = aiter(response.stream) if isinstance(response.stream, AsyncIterable) else None
    if isinstance(body, AsyncGenerator) and "content-encoding" not in response.headers:
        return body
    return response.aiter_bytes()


async def _read_tail(body: AsyncIterator[bytes], answer: Answer) -> None:
    """Read what follows a complete answer. Whatever goes wrong here, the answer is whole."""
    import httpx2

    is_drained = answer.is_done
    with suppress(TimeoutError, httpx2.HTTPError, AgentError):
        async with asyncio.timeout(_DRAIN_SECONDS if answer.is_done else _TAIL_SECONDS) as limit:
            async for data in body:
                for _ in answer.feed(data):
                    pass
                if answer.is_done and not is_drained:
                    is_drained = True  # once: heartbeats may go on for ever
                    limit.reschedule(asyncio.get_running_loop().time() + _DRAIN_SECONDS)


def _problem_with(client: openai.AsyncOpenAI) -> str | None:
    if not client.api_key:  # an administrator's key alone satisfies the package, not this API
        return _MISSING_KEY
    if not (client.api_key.isascii() and client.api_key.isprintable() and " " not in client.api_key):
        return "OPENAI_API_KEY holds a character that no key has, such as a space, a quote or a line break."
    if (client.base_url.port or 0) > _HIGHEST_PORT:
        return f"The model's base URL names a port above {_HIGHEST_PORT}: there is none."
    if client.base_url.scheme not in {"http", "https"} or not client.base_url.host:
        return "The model's base URL must begin with http:// or https://, as in http://127.0.0.1:11434/v1."
    return None
