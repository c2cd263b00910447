"""The interface between a turn and whatever answers it.

An agent is given a :class:`TurnInput` and yields what it produces, in order:

- ``str``: a piece of the answer. It may be empty, and of any length.
- :class:`FunctionCallPiece`: a piece of a call of one of the turn's tools, which the client runs.
  Calls may be produced after or beside text, and several at once.
- :class:`ReasoningPiece`: a piece of what the model thinks. Shown to sessions that asked for it; counts as
  a piece of the answer.
- :class:`Working`: nothing yet, but alive (for example waiting in a queue). May say how much was thought.
- :class:`Usage`: the bill. At most once; the last one counts.
- :class:`Handle`: the upstream's own name for this response, for :meth:`Reattaching.reattach`. An empty one
  takes back the one before: another upstream is asked, and what would stop that one is done.
- :class:`Finish`: why it stopped. Optional: an agent that just ends has finished.

Guarantees an agent gives:

- It never blocks the event loop.
- Closing the generator (``aclose``) or cancelling the task that iterates it
  stops the work at once, the upstream's included. It may clean up, in well
  under a second.
- What goes wrong it raises as an :class:`AgentError`. Nothing it raises or
  yields holds a secret or an upstream's internals.
- It retries only before it has yielded a first piece of the answer, text or call.
- The answer ends before a text of the turn's ``parameters.stop``. What else these say it passes on to
  whatever can heed it; an answer in a form that it can't keep to it refuses.

::

    AgentError
    +-- UpstreamRefusedKey        401 or 403: the operator's key is wrong
    +-- UpstreamRateLimited       429
    +-- UpstreamRejected          another 4xx: the request can't be served
    +-- UpstreamUnavailable       5xx, no connection
    +-- UpstreamCut               the stream ended before its end
    +-- UpstreamMalformed         the stream isn't what the protocol says
    +-- UpstreamReportedError     an error object in the stream
    +-- UpstreamStalled           nothing came for too long
    +-- ContextTooLong            the conversation doesn't fit, even when trimmed
    +-- ContentUnsupported        it can't see what the message refers to
    +-- FormatUnsupported         it can't answer in the form that is asked for
    +-- AgentBusy                 its queue is full
    +-- AgentNotReady             it is still loading, or failed to load
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias, runtime_checkable

from unbroken.server.files.reading import FileReader, NoFiles
from unbroken.sessions.custody import Custody
from unbroken.sessions.errors import ResponderError
from unbroken.sessions.items import (
    File,
    FunctionCall,
    FunctionOutput,
    FunctionTool,
    Image,
    Message,
    NamedTool,
    Parameters,
    Text,
    ToolChoice,
    Usage,
)
from unbroken.sessions.responder import Finish, FunctionCallPiece, Handle, ReasoningPiece, Working

__all__ = [
    "Agent",
    "AgentBusy",
    "AgentError",
    "AgentNotReady",
    "AgentOutput",
    "Author",
    "ContentUnsupported",
    "ContextTooLong",
    "File",
    "FileReader",
    "Finish",
    "FormatUnsupported",
    "FunctionCall",
    "FunctionCallPiece",
    "FunctionOutput",
    "FunctionTool",
    "Handle",
    "Image",
    "Message",
    "NamedTool",
    "Parameters",
    "Prompted",
    "ReasoningPiece",
    "Reattaching",
    "ResponseGone",
    "ResponseShorter",
    "Text",
    "ToolChoice",
    "TurnInput",
    "UpstreamCut",
    "UpstreamMalformed",
    "UpstreamRateLimited",
    "UpstreamRefusedKey",
    "UpstreamRejected",
    "UpstreamReportedError",
    "UpstreamStalled",
    "UpstreamUnavailable",
    "Usage",
    "Working",
]


Prompted: TypeAlias = Message | FunctionCall | FunctionOutput
"""What a model is shown of a conversation. Calls of the server's tools are function calls with outputs."""


@dataclass(slots=True)
class Author:
    """Which of several agents answers a turn: the first round says, the others keep to it."""

    name: str | None = None
    """None: nothing has been shown yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnInput:
    """Everything an agent needs to know of a turn."""

    session_id: str
    response_id: str
    """Unique to this attempt; fit for an idempotency key."""
    principal: str
    """Opaque and stable for one user."""
    model: str
    """The name the client asked for, already checked; ``default`` has been resolved."""
    instructions: str
    """The system prompt. May be empty."""
    items: tuple[Prompted, ...]
    """The conversation, oldest first: messages, function calls, and what they returned. An
    incomplete call was cut short. May be empty."""
    tools: tuple[FunctionTool, ...] = ()
    """The functions that the client can run."""
    tool_choice: ToolChoice = "auto"
    parallel_tool_calls: bool | None = None
    """Whether several may be called at once. None: nobody has said."""
    max_output_tokens: int | None = None
    parameters: Parameters = field(default_factory=Parameters)
    """How words are to be chosen, where the answer ends, and in which form it is."""
    metadata: dict[str, str] = field(default_factory=dict)
    trace: str | None = None
    """The ``traceparent`` that whoever asked came with. None: with none."""
    files: FileReader = field(default_factory=NoFiles, repr=False)
    """Reads what the messages' references stand for, until the turn's end."""
    author: Author = field(default_factory=Author)
    """Shared by the rounds of one response."""
    custody: Custody = field(default_factory=Custody)
    """Takes what would stop the upstream's work, which may be another process's by now."""
    shows_reasoning: bool = False
    """Whether the client sees reasoning: then an answer begins with it."""

    @property
    def messages(self) -> tuple[Message, ...]:
        """The messages among the items, which are picked out anew each time."""
        return tuple(item for item in self.items if isinstance(item, Message))


AgentOutput: TypeAlias = str | FunctionCallPiece | ReasoningPiece | Working | Usage | Handle | Finish


class Agent(Protocol):
    """What answers. See the module's text for what it may yield and must guarantee."""

    @property
    def model(self) -> str:
        """The model's own name, as shown to clients."""

    @property
    def is_ready(self) -> bool:
        """Whether a turn could start now. False while loading."""

    async def start(self) -> None:
        """Load whatever is needed. Returns when ready, raises AgentError when that can't be."""

    async def stop(self) -> None:
        """Release everything. No turn is running when it is called."""

    def respond(self, turn: TurnInput) -> AsyncGenerator[AgentOutput, None]:
        """Answer *turn*. Any number of turns may run at once."""


@runtime_checkable
class Reattaching(Protocol):
    """An agent whose upstream keeps a response alive on its own, so that a new owner can fetch the rest."""

    def reattach(
        self, turn: TurnInput, handle: Handle, offset: int, calls: Sequence[int] = ()
    ) -> AsyncGenerator[AgentOutput, None]:
        """Go on with the response named *handle* after its first *offset* characters of text.

        *calls* says how many characters are known of the arguments of each function call that has
        begun, in order: none of these calls is begun again, and no further one is left out.

        Raises:
            ResponseGone: The upstream has no such response (any more). Nothing has been yielded.
            ResponseShorter: It has ended, and there is less of it than *offset* and *calls* say.
            AgentError: As for :meth:`Agent.respond`.

        """

    async def abandon(self, handle: Handle) -> None:
        """Have the upstream stop: nobody will fetch the rest. Never raises because of the upstream."""


class AgentError(ResponderError):
    """Base of what agents raise. The text is shown to clients."""

    code = "agent_error"
    message = "The agent failed."
    type = "server_error"

    def __init__(self, message: str | None = None, *, retry_after: float | None = None) -> None:
        cls = type(self)
        super().__init__(cls.code, message or cls.message, type=cls.type, retry_after=retry_after)


class UpstreamRefusedKey(AgentError):
    """401 or 403. The client can do nothing about it; the operator can."""

    code = "upstream_auth"
    message = "The server's key for the model was refused. The operator of this server has to fix that."


class UpstreamRateLimited(AgentError):
    """429, after the retries."""

    code = "upstream_rate_limited"
    message = "The model is receiving too many requests. Try again later."
    type = "rate_limit_error"


class UpstreamRejected(AgentError):
    """Another 4xx: this request can't be served."""

    code = "upstream_rejected"
    message = "The model refused the request."
    type = "invalid_request_error"


class ResponseGone(UpstreamRejected):
    """There is no response (any more) that was to be gone on with."""

    is_rest_lost = True


class UpstreamUnavailable(AgentError):
    """5xx or no connection, after the retries."""

    code = "upstream_unavailable"
    message = "The model can't be reached. Try again later."


class UpstreamCut(AgentError):
    """The stream ended before its end."""

    code = "upstream_cut"
    message = "The connection to the model was lost in mid-answer."


class UpstreamMalformed(AgentError):
    """The stream isn't what the protocol says."""

    code = "upstream_malformed"
    message = "The model sent something that can't be understood."


class ResponseShorter(UpstreamMalformed):
    """A response has ended, and there is less of it than what has been read of it."""

    is_rest_lost = True


class UpstreamReportedError(AgentError):
    """The stream held an error object."""

    code = "upstream_error"
    message = "The model reported an error."


class UpstreamStalled(AgentError):
    """Nothing came for too long."""

    code = "upstream_stalled"
    message = "The model stopped answering."


class ContextTooLong(AgentError):
    """The conversation doesn't fit the model's window, even when trimmed."""

    code = "context_length_exceeded"
    message = "The message is longer than the model can read. Shorten it."
    type = "invalid_request_error"


class ContentUnsupported(AgentError):
    """The newest message refers to what the model can't see, and another might."""

    code = "unsupported_content"
    message = "This model can't see images and documents. Send text."
    type = "invalid_request_error"


class FormatUnsupported(AgentError):
    """The answer is to have a form that the agent can't keep to, and another might."""

    code = "unsupported_format"
    message = "This model can't keep to a JSON schema. Ask for `json_object`, or for text."
    type = "invalid_request_error"


class AgentBusy(AgentError):
    """Its queue is full."""

    code = "agent_busy"
    message = "The model is busy. Try again in a moment."
    type = "rate_limit_error"


class AgentNotReady(AgentError):
    """It is still loading, or failed to load."""

    code = "agent_not_ready"
    message = "The model is still loading. Try again in a moment."
