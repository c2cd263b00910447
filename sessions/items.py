"""What a conversation is made of, in no protocol's words."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from typing import Any, Final, Literal, TypeAlias

from msgspec import UNSET, Struct, UnsetType
from msgspec.structs import replace

from unbroken.sessions.ids import ItemId

__all__ = [
    "ApprovalHead",
    "ApprovalRequest",
    "ApprovalResponse",
    "CallHead",
    "Concurrency",
    "File",
    "FunctionCall",
    "FunctionOutput",
    "FunctionTool",
    "Head",
    "Image",
    "ImageDetail",
    "Item",
    "ItemStatus",
    "Message",
    "NamedTool",
    "Note",
    "Parameters",
    "Part",
    "Produced",
    "Reasoning",
    "ReasoningHead",
    "Reference",
    "ResponseRequest",
    "Reused",
    "Role",
    "SessionConfig",
    "Settled",
    "Text",
    "ToolCall",
    "ToolChoice",
    "ToolError",
    "ToolHead",
    "Usage",
]

_MESSAGE_COST: Final = 256
_PART_COST: Final = 64

Role = Literal["system", "user", "assistant"]

ItemStatus = Literal["completed", "incomplete", "in_progress"]

ImageDetail = Literal["auto", "low", "high"]


class Text(Struct, frozen=True, tag="text"):
    """A piece of text. Other kinds of part (audio by reference) get tags of their own."""

    text: str

    @property
    def size(self) -> int:
        """Bytes it takes, roughly: the text in UTF-8, and the object around it."""
        return _PART_COST + len(self.text.encode())


class Image(Struct, frozen=True, tag="image", omit_defaults=True):
    """A picture, by reference. The file may expire before the message does."""

    file_id: str
    media_type: str = ""
    """Of the content as it is, not as somebody called it. Empty: nobody has looked yet."""
    bytes: int = 0
    name: str = ""
    detail: ImageDetail = "auto"
    """How closely the model should look."""

    @property
    def size(self) -> int:
        """Bytes that the reference takes, roughly. The file's own count where it is kept."""
        return 2 * _PART_COST + len(self.file_id) + len(self.name.encode())


class File(Struct, frozen=True, tag="file", omit_defaults=True):
    """A document, by reference. The file may expire before the message does."""

    file_id: str
    media_type: str = ""
    """As of an :class:`Image`."""
    bytes: int = 0
    name: str = ""

    @property
    def size(self) -> int:
        """As of an :class:`Image`."""
        return 2 * _PART_COST + len(self.file_id) + len(self.name.encode())


Reference: TypeAlias = Image | File
"""A part whose content is kept elsewhere."""

Part: TypeAlias = Text | Image | File
"""What a message is made of."""


class Message(Struct, frozen=True, tag="message"):
    """One message of a conversation. An incomplete one was cut short; its text is what there was."""

    id: ItemId
    role: Role
    content: tuple[Part, ...]
    status: ItemStatus = "completed"

    @property
    def text(self) -> str:
        """The text of all parts that have some, joined."""
        return "".join(part.text for part in self.content if isinstance(part, Text))

    @property
    def references(self) -> tuple[Reference, ...]:
        """The parts whose content is kept elsewhere, in order."""
        return tuple(part for part in self.content if not isinstance(part, Text))

    @property
    def size(self) -> int:
        """Bytes it takes, roughly: the text in UTF-8, and the objects around it."""
        return _MESSAGE_COST + sum(part.size for part in self.content)


class CallHead(Struct, frozen=True):
    """Which function is called, and by what name its output says so."""

    call_id: str
    name: str


class FunctionCall(Struct, frozen=True, tag="function_call"):
    """A call of a client's function. An incomplete one was cut short: nobody is to act on it."""

    id: ItemId
    call_id: str
    name: str
    arguments: str
    """JSON, by the account of whoever produced it."""
    status: ItemStatus = "completed"

    @property
    def text(self) -> str:
        """What was produced of it piece by piece: the arguments."""
        return self.arguments

    @property
    def size(self) -> int:
        """Bytes it takes, roughly."""
        return _MESSAGE_COST + len(self.call_id) + len(self.name) + len(self.arguments.encode())


class FunctionOutput(Struct, frozen=True, tag="function_output"):
    """What a called function returned."""

    id: ItemId
    call_id: str
    output: str
    status: ItemStatus = "completed"

    @property
    def text(self) -> str:
        """What it says: the output."""
        return self.output

    @property
    def size(self) -> int:
        """Bytes it takes, roughly."""
        return _MESSAGE_COST + len(self.call_id) + len(self.output.encode())


class ReasoningHead(Struct, frozen=True, tag="reasoning"):
    """Says that an output is reasoning."""


class Reasoning(Struct, frozen=True, tag="reasoning"):
    """What a model thought on its way to an answer. Part of a response, never of a conversation."""

    id: ItemId
    text: str
    status: ItemStatus = "completed"

    @property
    def size(self) -> int:
        """Bytes it takes, roughly."""
        return _MESSAGE_COST + len(self.text.encode())


class ToolHead(Struct, frozen=True, omit_defaults=True, tag="tool_call"):
    """Which of the server's tools is called."""

    name: str
    label: str
    """Of the toolset that has it."""
    approval: ItemId | None = None
    """The request that was approved; None: the tool asks for none."""


class ToolError(Struct, frozen=True, omit_defaults=True):
    """Why a tool's call has no result. *message* is shown to clients and to the model."""

    message: str
    code: int | None = None
    """The MCP server's, where it was its protocol that failed."""


class ToolCall(Struct, frozen=True, omit_defaults=True, tag="tool_call"):
    """A call of one of the server's tools. Its id is the key under which the tool is run, once at most.

    A whole one has an output or an error. An incomplete one was cut short: whether the
    tool did its work isn't known, unless the error says that it was not run.
    """

    id: ItemId
    name: str
    label: str
    arguments: str
    output: str | None = None
    error: ToolError | None = None
    approval: ItemId | None = None
    status: ItemStatus = "completed"

    @property
    def text(self) -> str:
        """What was produced of it piece by piece: the arguments."""
        return self.arguments

    @property
    def result(self) -> str:
        """What came of it, or why nothing did."""
        return self.output or ("" if self.error is None else self.error.message)

    @property
    def size(self) -> int:
        """Bytes it takes, roughly."""
        return _MESSAGE_COST + len(self.name) + len(self.arguments.encode()) + len(self.result.encode())


class ApprovalHead(Struct, frozen=True, tag="approval_request"):
    """Which call of a server's tool waits for its user's approval. *arguments* are whole."""

    name: str
    label: str
    arguments: str


class ApprovalRequest(Struct, frozen=True, tag="approval_request"):
    """Asks the user whether a tool may be called, with exactly these arguments."""

    id: ItemId
    name: str
    label: str
    arguments: str
    status: ItemStatus = "completed"

    @property
    def text(self) -> str:
        """What was produced of it piece by piece: nothing."""
        return ""

    @property
    def size(self) -> int:
        """Bytes it takes, roughly."""
        return _MESSAGE_COST + len(self.name) + len(self.arguments.encode())


class ApprovalResponse(Struct, frozen=True, omit_defaults=True, tag="approval_response"):
    """The user's answer to an :class:`ApprovalRequest`."""

    id: ItemId
    request_id: ItemId
    approve: bool
    reason: str | None = None
    status: ItemStatus = "completed"

    @property
    def text(self) -> str:
        """What it says: the reason."""
        return self.reason or ""

    @property
    def size(self) -> int:
        """Bytes it takes, roughly."""
        return _MESSAGE_COST + len(self.text.encode())


Item: TypeAlias = Message | FunctionCall | FunctionOutput | ToolCall | ApprovalRequest | ApprovalResponse
"""What a conversation is made of."""

Produced: TypeAlias = Message | FunctionCall | Reasoning | ToolCall | ApprovalRequest
"""What a response is made of."""

Head: TypeAlias = CallHead | ReasoningHead | ToolHead | ApprovalHead
"""What is known of an output from its beginning, unless it is a message."""


class FunctionTool(Struct, frozen=True, omit_defaults=True):
    """A function that the client runs when it is called."""

    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    """A JSON schema."""


class NamedTool(Struct, frozen=True):
    """The choice of one function, which must be called."""

    name: str


ToolChoice: TypeAlias = Literal["auto", "none", "required"] | NamedTool


class Concurrency(enum.Enum):
    """What a request for a response does while one is running in the conversation."""

    REJECT = "reject"
    """It is refused. The default, as in the Realtime API."""

    QUEUE = "queue"
    """It waits for its turn."""

    INTERRUPT = "interrupt"
    """The running response is cancelled first."""

    MERGE = "merge"
    """It waits together with others like it: one response answers all that is said until it starts."""


class SessionConfig(Struct, frozen=True):
    """What holds for all of a session's responses, unless one asks for something else."""

    model: str
    instructions: str = ""
    max_output_tokens: int | None = None
    """None: as many as the agent gives."""
    concurrency: Concurrency = Concurrency.REJECT
    tools: tuple[FunctionTool, ...] | UnsetType = UNSET
    """Unset: none. What is unset isn't written, as it was before there were tools."""
    tool_choice: ToolChoice | UnsetType = UNSET
    """Unset: ``auto``."""
    parallel_tool_calls: bool | UnsetType = UNSET
    """Unset: as the agent does by itself."""
    reasoning: bool | UnsetType = UNSET
    """Whether what models think is shown. Unset: no."""
    server_tools: bool | UnsetType = UNSET
    """Whether the server's own tools are offered. Unset: yes."""
    metadata: dict[str, str] | UnsetType = UNSET
    """What clients note of it. Unset: nothing."""


class Parameters(Struct, frozen=True, omit_defaults=True):
    """How a model is to choose its words. None: as it does by itself. Passed on; not every agent has all."""

    temperature: float | None = None
    top_p: float | None = None
    stop: tuple[str, ...] = ()
    """Texts at which the answer ends."""
    format: dict[str, Any] | None = None
    """Which form it has: ``{"type": "json_object"}``, or a JSON schema as OpenAI Responses writes it."""


class Settled(Struct, frozen=True, omit_defaults=True):
    """What a response keeps to, whatever its session says when it runs. What is unset isn't settled."""

    instructions: str | UnsetType = UNSET
    """All that instruct it: what clients say as ``system`` doesn't, either."""
    max_output_tokens: int | UnsetType = UNSET
    """At most."""
    tools: tuple[FunctionTool, ...] | UnsetType = UNSET
    """All that there are. The server's own aren't among them."""
    tool_choice: ToolChoice | UnsetType = UNSET
    parallel_tool_calls: bool | UnsetType = UNSET
    reasoning: bool | UnsetType = UNSET

    def narrowed(self, config: SessionConfig) -> SessionConfig:
        """Return *config* with nothing in it beyond what is settled. What asks for less stays."""
        kept: dict[str, Any] = {}
        if self.instructions is not UNSET:
            kept["instructions"] = self.instructions
        if self.max_output_tokens is not UNSET:
            bounds = (self.max_output_tokens, config.max_output_tokens or self.max_output_tokens)
            kept["max_output_tokens"] = min(bounds)
        if self.tools is not UNSET:
            kept["server_tools"] = False
            if config.tools is not UNSET and any(tool not in self.tools for tool in config.tools):
                kept["tools"] = self.tools
        if self.tool_choice is not UNSET:
            kept["tool_choice"] = self.tool_choice
        if self.parallel_tool_calls is not UNSET:
            kept["parallel_tool_calls"] = self.parallel_tool_calls
        if self.reasoning is False:
            kept["reasoning"] = False
        return replace(config, **kept)


class ResponseRequest(Struct, frozen=True, omit_defaults=True):
    """What one response was asked to be. None: as the session's configuration says."""

    in_conversation: bool = True
    """False: beside the conversation. It reads the items and adds none."""
    instructions: str | None = None
    max_output_tokens: int | None = None
    metadata: dict[str, str] | None = None
    input: tuple[Item, ...] | None = None
    """The items to answer, in place of the conversation's."""
    tools: tuple[FunctionTool, ...] | None = None
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    plan: str | None = None
    """The plan that whoever asked came by. Responders go by it, whoever is connected when it runs.
    Sessions don't look into it. None: nobody has said."""
    parameters: Parameters | None = None
    """None: nothing was said of these."""
    model: str | None = None
    """None: the session's."""
    previous: str | None = None
    """The response that whoever asked says that it goes on from. To be shown."""
    background: bool = False
    """Whether whoever asked doesn't wait for it. To be shown."""
    settled: Settled | None = None
    """What whoever asked can't go beyond, also not with what others say in the session. None: nothing."""
    trace: str | None = None
    """The trace that it belongs to, for responders: sessions don't look into it. None: to none."""

    @property
    def answers_conversation(self) -> bool:
        """Whether it is the conversation that is answered, in the conversation."""
        return self.in_conversation and self.input is None

    def model_with(self, config: SessionConfig) -> str:
        """Return the model that the response is to be of in a session of that *config*."""
        return config.model if self.model is None else self.model

    def config_in(self, config: SessionConfig) -> SessionConfig:
        """Return the configuration of the response in a session of that *config*."""
        return config if self.settled is None else self.settled.narrowed(config)

    def heard(self, items: Iterable[Item]) -> tuple[Item, ...]:
        """Return which of *items* the response reads."""
        if self.settled is None or self.settled.instructions is UNSET:
            return tuple(items)
        return tuple(each for each in items if not (isinstance(each, Message) and each.role == "system"))

    def tools_with(self, config: SessionConfig) -> tuple[FunctionTool, ...]:
        """Return the tools that the response has in a session of that *config*."""
        if self.tools is not None:
            return self.tools
        return () if config.tools is UNSET else config.tools

    def tool_choice_with(self, config: SessionConfig) -> ToolChoice:
        """Return how the response chooses among its tools in a session of that *config*."""
        if self.tool_choice is not None:
            return self.tool_choice
        return "auto" if config.tool_choice is UNSET else config.tool_choice

    def parallel_tool_calls_with(self, config: SessionConfig) -> bool | None:
        """Return whether several calls at once are allowed in a session of that *config*; None: unsaid."""
        if self.parallel_tool_calls is not None:
            return self.parallel_tool_calls
        return None if config.parallel_tool_calls is UNSET else config.parallel_tool_calls


class Reused(Struct, frozen=True):
    """Says that a response wasn't made for who asked."""

    tier: str
    """How it was come by; of the responder's list."""
    age: float
    """Seconds since it was made."""


Note: TypeAlias = str | int | float | bool | dict[str, int]
"""A word about a response, or how many of what: of whoever produced it, for whoever knows it."""


class Usage(Struct, frozen=True):
    """What a response cost, in tokens, by the account of whoever produced it."""

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    reused: Reused | UnsetType = UNSET
    """Set: nobody was asked, or not for this response alone; the tokens are what is billed for it."""

    @property
    def total_tokens(self) -> int:
        """Input and output together."""
        return self.input_tokens + self.output_tokens
