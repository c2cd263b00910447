"""The entries of a session's log, and their versioned encoding.

An entry is a sequence number and a nonce, both assigned by the store, around a
body. Inputs (:class:`Submitted`) come from connections through any node;
everything else is an output, appended by the owner alone.

Format rules, which let nodes of two adjacent versions share a log:

- ``FORMAT`` is written into every encoded entry; an entry of a later format is
  refused with :class:`UnknownFormat`, never guessed at. Which of two adjacent
  formats is written, nodes agree on: :mod:`unbroken.sessions.format`.
- Within a format, fields are only ever added, each with a default. Fields this
  version doesn't know are skipped.
- A tag is never given another meaning.

Final entries (:class:`OutputDone`, :class:`ResponseDone`) hold the final text,
so that a codec needs no memory of what came before. Each body becomes a fixed
number of frames in each protocol, so numbers derived from it never shift.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal, TypeAlias, TypeVar

import msgspec
from msgspec import UNSET, Struct, UnsetType
from msgspec.structs import asdict, replace

from unbroken.sessions.errors import UnknownFormat
from unbroken.sessions.ids import ChainId, ItemId, Nonce, PrincipalId, ResponseId
from unbroken.sessions.items import (
    ApprovalHead,
    CallHead,
    Concurrency,
    FunctionTool,
    Item,
    Note,
    Produced,
    ReasoningHead,
    ResponseRequest,
    SessionConfig,
    ToolChoice,
    ToolHead,
    Usage,
)

__all__ = [
    "FORMAT",
    "Body",
    "CancelAccepted",
    "CancelResponse",
    "Command",
    "ConfigUpdated",
    "CreateItem",
    "CreateItems",
    "CreateResponse",
    "DeleteItem",
    "DeltaKind",
    "Deltas",
    "Entry",
    "Failure",
    "Formatted",
    "HandleNoted",
    "InputKey",
    "ItemAdded",
    "ItemDeleted",
    "OutputDone",
    "OutputStarted",
    "Refused",
    "ResponseDone",
    "ResponseMerged",
    "ResponseQueued",
    "ResponseStarted",
    "SessionOpened",
    "Status",
    "Submitted",
    "ToolStarted",
    "TruncateItem",
    "UpdateConfig",
    "decode_body",
    "decode_entry",
    "decode_formatted",
    "encode_body",
    "encode_entry",
    "numbered",
    "version_of",
    "width",
]

FORMAT: Final = 1

Status = Literal["completed", "incomplete", "cancelled", "failed", "interrupted"]


# Commands: what a connection asks for. Ids are minted before they are
# submitted, so that the log alone decides what they are.


class CreateItem(Struct, frozen=True, tag="create_item"):
    """Add *item* behind *previous* (None: at the end; "root": at the beginning)."""

    item: Item
    previous: str | None = None


class CreateItems(Struct, frozen=True, tag="create_items"):
    """Add *items* at the end of the conversation, in order. All of them join it, or none."""

    items: tuple[Item, ...]


class DeleteItem(Struct, frozen=True, tag="delete_item"):
    """Remove an item."""

    item_id: str


class TruncateItem(Struct, frozen=True, tag="truncate_item"):
    """Keep of an answer what was heard: *audio_end_ms* milliseconds of a part."""

    item_id: str
    content_index: int
    audio_end_ms: int


class UpdateConfig(Struct, frozen=True, tag="update_config", omit_defaults=True):
    """Change the session's configuration. What is unset stays."""

    instructions: str | UnsetType = UNSET
    max_output_tokens: int | UnsetType | None = UNSET
    concurrency: Concurrency | UnsetType = UNSET
    tools: tuple[FunctionTool, ...] | UnsetType = UNSET
    tool_choice: ToolChoice | UnsetType = UNSET
    parallel_tool_calls: bool | UnsetType = UNSET
    reasoning: bool | UnsetType = UNSET
    metadata: dict[str, str] | UnsetType = UNSET

    def applied_to(self, config: SessionConfig) -> SessionConfig:
        """Return *config* with what this names; everything else stays, also what no change can name."""
        named = {name: value for name, value in asdict(self).items() if value is not UNSET}
        return replace(config, **named)


class CreateResponse(Struct, frozen=True, tag="create_response", omit_defaults=True):
    """Ask for a response, with items that join the conversation ahead of it. All of it happens, or none."""

    response_id: ResponseId
    request: ResponseRequest
    removed: tuple[ItemId, ...] = ()
    """Items that leave the conversation first, if they are there."""
    said: tuple[Item, ...] = ()
    """Items that join at its end, in order."""
    behind: ItemId | UnsetType | None = UNSET
    """The item that has to be the last one by then, with nothing being answered; None: there has to be none.
    Unset: whatever there is."""


class CancelResponse(Struct, frozen=True, tag="cancel_response"):
    """Stop a response. None: the one in the conversation, and those that wait behind it."""

    response_id: str | None = None


Command: TypeAlias = (
    CreateItem | CreateItems | DeleteItem | TruncateItem | UpdateConfig | CreateResponse | CancelResponse
)


class InputKey(Struct, frozen=True):
    """The name that an input is known again by, and a digest of what it says."""

    name: str
    digest: bytes


class Submitted(Struct, frozen=True, tag="submitted", omit_defaults=True):
    """An input: a command, who sent it, and the names it was sent under."""

    command: Command
    chain: ChainId
    """The connection (and those that resume it) which a refusal is shown to."""
    event_id: str | None = None
    """The client's own name for the event, echoed in a refusal."""
    key: InputKey | None = None
    """What sending it again is told by. In the log, so that whoever holds that knows it too."""


# Outputs. ``input`` is the sequence number of the input that an entry answers, 0 for none.


class SessionOpened(Struct, frozen=True, tag="opened"):
    """The session began. Always the first entry of a log."""

    principal: PrincipalId
    config: SessionConfig
    at: int | UnsetType = UNSET
    """When, in milliseconds since 1970. Unset: an earlier release has written it."""


class ConfigUpdated(Struct, frozen=True, tag="config_updated"):
    """The configuration was replaced."""

    config: SessionConfig
    input: int = 0


class ItemAdded(Struct, frozen=True, tag="item_added"):
    """A client's item joined the conversation behind *previous* (None: it is the first)."""

    item: Item
    previous: ItemId | None
    input: int = 0


class ItemDeleted(Struct, frozen=True, tag="item_deleted"):
    """An item left the conversation."""

    item_id: ItemId
    input: int = 0


class Refused(Struct, frozen=True, tag="refused", omit_defaults=True):
    """An input was not accepted. Shown only to the chain that submitted it."""

    input: int
    chain: ChainId
    code: str
    message: str
    param: str | None = None
    event_id: str | None = None


class ResponseQueued(Struct, frozen=True, tag="queued"):
    """A response was accepted and waits for the one that runs."""

    response_id: ResponseId
    request: ResponseRequest
    input: int = 0
    requests: tuple[str, ...] | UnsetType = UNSET
    """Set: it answers what has been said when it starts, and requests that come until then may join it.
    The event id of the one it was made for; empty for none. Unset: what has been said by now."""


class ResponseMerged(Struct, frozen=True, tag="merged", omit_defaults=True):
    """A request will be answered by a response that waits already."""

    response_id: ResponseId
    event_id: str = ""
    """Of the request; empty for none."""
    input: int = 0


class ResponseStarted(Struct, frozen=True, tag="started"):
    """A response began. *turn* is the input it answers; a second attempt has the same."""

    response_id: ResponseId
    request: ResponseRequest
    turn: int
    attempt: int = 1
    ordinal: int = 0
    requests: tuple[str, ...] | UnsetType = UNSET
    """Set: it answers several. The event ids of all, in order; empty for none."""


class HandleNoted(Struct, frozen=True, tag="handle"):
    """The upstream's own name for the response, so that a later owner can ask for the rest.

    Empty: there is none any more. The upstream that it was for is gone on without.
    """

    response_id: ResponseId
    handle: str
    ordinal: int


DeltaKind = Literal["reasoning", "tool_call"]


class OutputStarted(Struct, frozen=True, tag="output_started"):
    """An item of the answer began. *previous* is its place in the conversation (None there: the first)."""

    response_id: ResponseId
    item_id: ItemId
    in_conversation: bool
    previous: ItemId | None
    ordinal: int
    output_index: int = 0
    call: CallHead | UnsetType = UNSET
    """Set: the item is a function call."""
    head: ReasoningHead | ToolHead | ApprovalHead | UnsetType = UNSET
    """Set: the item is of that kind. Neither: it is a message."""


class Deltas(Struct, frozen=True, tag="deltas"):
    """Consecutive pieces of one output. Takes up as many sequence numbers and ordinals as it has pieces."""

    response_id: ResponseId
    item_id: ItemId
    parts: list[str]
    ordinal: int
    """The first piece's."""
    output_index: int = 0
    content_index: int = 0
    call_id: str | UnsetType = UNSET
    """Set: they are the arguments of that function call."""
    kind: DeltaKind | UnsetType = UNSET
    """Set: they are reasoning, or the arguments of a tool's call. Neither: they are text."""


class ToolStarted(Struct, frozen=True, tag="tool_started"):
    """A tool of the server's is about to be run, with *arguments*. Nobody runs it again."""

    response_id: ResponseId
    item_id: ItemId
    arguments: str
    ordinal: int
    output_index: int


class OutputDone(Struct, frozen=True, tag="output_done"):
    """An item of the answer is whole, or as whole as it will get."""

    response_id: ResponseId
    item: Produced
    in_conversation: bool
    previous: ItemId | None
    ordinal: int
    output_index: int = 0


class CancelAccepted(Struct, frozen=True, tag="cancel_accepted"):
    """A response was asked to stop, and no piece of it follows."""

    response_id: ResponseId
    reason: Literal["client", "superseded"]
    input: int = 0


class Failure(Struct, frozen=True):
    """Why an attempt ended without its whole answer. *message* is shown to clients."""

    code: str
    message: str
    type: str = "server_error"
    retry_after: float | UnsetType = UNSET
    """Seconds after which to try again, where that is known."""


class ResponseDone(Struct, frozen=True, tag="done", omit_defaults=True):
    """An attempt's one terminal entry."""

    response_id: ResponseId
    status: Status
    ordinal: int
    output: tuple[Produced, ...] = ()
    reason: str | None = None
    """For incomplete and cancelled: what cut it short."""
    failure: Failure | None = None
    usage: Usage | None = None
    metadata: dict[str, str] | None = None
    in_conversation: bool = True
    requests: tuple[str, ...] | UnsetType = UNSET
    """As of :class:`ResponseStarted`."""
    notes: dict[str, Note] | UnsetType = UNSET
    """What the responder noted beside: see :class:`~unbroken.sessions.responder.Notes`."""


Body: TypeAlias = (
    Submitted
    | SessionOpened
    | ConfigUpdated
    | ItemAdded
    | ItemDeleted
    | Refused
    | ResponseQueued
    | ResponseMerged
    | ResponseStarted
    | HandleNoted
    | OutputStarted
    | Deltas
    | ToolStarted
    | OutputDone
    | CancelAccepted
    | ResponseDone
)


class Entry(Struct, frozen=True):
    """A committed body. *nonce* is that of its batch."""

    seq: int
    """The first sequence number it takes up; numbers start at 1."""
    nonce: Nonce
    body: Body

    @property
    def last(self) -> int:
        """The last sequence number it takes up."""
        return self.seq + width(self.body) - 1


def width(body: Body) -> int:
    """Return how many sequence numbers *body* takes up."""
    return len(body.parts) if type(body) is Deltas else 1


def numbered(bodies: Sequence[Body], first: int, nonce: Nonce) -> list[Entry]:
    """Return *bodies* as the entries of one batch, the first of them with number *first*."""
    entries: list[Entry] = []
    for body in bodies:
        entries.append(Entry(first, nonce, body))
        first += width(body)
    return entries


class Formatted(Struct, frozen=True):
    """What says which format it has."""

    v: int


class _Encoded(Formatted, frozen=True):
    s: int
    k: Nonce
    b: Body


class _EncodedBody(Formatted, frozen=True):
    b: Body


_ENCODER: Final = msgspec.json.Encoder()
_DECODER: Final = msgspec.json.Decoder(_Encoded)
_BODY_DECODER: Final = msgspec.json.Decoder(_EncodedBody)
_VERSION_DECODER: Final = msgspec.json.Decoder(Formatted)


def encode_entry(entry: Entry) -> bytes:
    """Return *entry* as JSON, in the current format."""
    return _ENCODER.encode(_Encoded(FORMAT, entry.seq, entry.nonce, entry.body))


def encode_body(body: Body) -> bytes:
    """Return *body* as JSON, in the current format: for a store that keeps numbers and nonces beside it."""
    return _ENCODER.encode(_EncodedBody(FORMAT, body))


def decode_entry(data: bytes) -> Entry:
    """Return the entry that :func:`encode_entry` made *data* of.

    Raises:
        UnknownFormat: It was written by a later version, or isn't an entry at all.

    """
    encoded = decode_formatted(_DECODER, data, what="log entry")
    return Entry(encoded.s, encoded.k, encoded.b)


def decode_body(data: bytes) -> Body:
    """Return the body that :func:`encode_body` made *data* of.

    Raises:
        UnknownFormat: It was written by a later version, or isn't a body at all.

    """
    return decode_formatted(_BODY_DECODER, data, what="log entry").b


_AnyFormatted = TypeVar("_AnyFormatted", bound=Formatted)


def decode_formatted(
    decoder: msgspec.json.Decoder[_AnyFormatted], data: bytes, *, what: str
) -> _AnyFormatted:
    """Return what *data* holds, in the current format. *what* names it in an error.

    Raises:
        UnknownFormat: It was written by a later version, or isn't such a thing at all.

    """
    try:
        decoded = decoder.decode(data)
    except msgspec.DecodeError as exc:
        version = version_of(data)
        if version is None or version == FORMAT:
            raise UnknownFormat(f"the {what} can't be read: {exc}") from exc
        raise _unknown(what, version) from exc
    if decoded.v != FORMAT:
        raise _unknown(what, decoded.v)
    return decoded


def _unknown(what: str, version: int) -> UnknownFormat:
    return UnknownFormat(f"the {what} has format {version}; this version reads format {FORMAT}")


def version_of(data: bytes) -> int | None:
    """Return which format *data*, an entry, a body or a snapshot, says it has; None: it says nothing."""
    try:
        return _VERSION_DECODER.decode(data).v
    except msgspec.DecodeError:
        return None
