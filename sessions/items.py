"""What a conversation is made of, in no protocol's words."""

from __future__ import annotations

import enum
from typing import Final, Literal

from msgspec import Struct

from unbroken.sessions.ids import ItemId

__all__ = [
    "Concurrency",
    "Message",
    "ResponseRequest",
    "Role",
    "SessionConfig",
    "Text",
    "Usage",
]

_MESSAGE_COST: Final = 256
_PART_COST: Final = 64

Role = Literal["system", "user", "assistant"]


class Text(Struct, frozen=True, tag="text"):
    """A piece of text. Other kinds of part (audio and images by reference) get tags of their own."""

    text: str


class Message(Struct, frozen=True, tag="message"):
    """One message of a conversation. An incomplete one was cut short; its text is what there was."""

    id: ItemId
    role: Role
    content: tuple[Text, ...]
    status: Literal["completed", "incomplete", "in_progress"] = "completed"

    @property
    def text(self) -> str:
        """The text of all parts, joined."""
        return "".join(part.text for part in self.content)

    @property
    def size(self) -> int:
        """Bytes it takes, roughly: the text in UTF-8, and the objects around it."""
        return _MESSAGE_COST + sum(_PART_COST + len(part.text.encode()) for part in self.content)


class Concurrency(enum.Enum):
    """What a request for a response does while one is running in the conversation."""

    REJECT = "reject"
    """It is refused. The default, as in the Realtime API."""

    QUEUE = "queue"
    """It waits for its turn."""

    INTERRUPT = "interrupt"
    """The running response is cancelled first."""


class SessionConfig(Struct, frozen=True):
    """What holds for all of a session's responses, unless one asks for something else."""

    model: str
    instructions: str = ""
    max_output_tokens: int | None = None
    """None: as many as the agent gives."""
    concurrency: Concurrency = Concurrency.REJECT


class ResponseRequest(Struct, frozen=True, omit_defaults=True):
    """What one response was asked to be. None: as the session's configuration says."""

    in_conversation: bool = True
    """False: beside the conversation. It reads the items and adds none."""
    instructions: str | None = None
    max_output_tokens: int | None = None
    metadata: dict[str, str] | None = None
    input: tuple[Message, ...] | None = None
    """The items to answer, in place of the conversation's."""


class Usage(Struct, frozen=True):
    """What a response cost, in tokens, by the account of whoever produced it."""

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        """Input and output together."""
        return self.input_tokens + self.output_tokens
