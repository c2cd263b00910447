"""What there is, as GraphQL has it: sessions, their items and responses, and what was used."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

import strawberry
from msgspec import UNSET
from strawberry.scalars import JSON

from unbroken.server.protocols.graphql.limits import USUAL_ENTRIES, check_first
from unbroken.server.protocols.items import DecodeError
from unbroken.server.protocols.responses.items import item_fields
from unbroken.sessions.endings import Ended
from unbroken.sessions.entries import Failure, ResponseDone, Status
from unbroken.sessions.ids import ResponseId, SessionId, minted_at, session_of
from unbroken.sessions.items import Item as SessionItem
from unbroken.sessions.items import Message, Produced, SessionConfig
from unbroken.sessions.items import Usage as TokenUsage
from unbroken.sessions.response import Response as RunningResponse

__all__ = [
    "Item",
    "ItemConnection",
    "ItemEdge",
    "ItemOrder",
    "PageInfo",
    "Response",
    "ResponseError",
    "ResponseStatus",
    "Session",
    "TokenCount",
]

_Said: TypeAlias = SessionItem | Produced


@strawberry.enum(description="How a response is.")
class ResponseStatus(enum.Enum):
    """How a response is."""

    QUEUED = "queued"
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    INCOMPLETE = "incomplete"
    CANCELLED = "cancelled"
    FAILED = "failed"
    INTERRUPTED = "interrupted"


@strawberry.enum(description="Which items come first.")
class ItemOrder(enum.Enum):
    """Which items come first."""

    OLDEST_FIRST = "asc"
    NEWEST_FIRST = "desc"


@strawberry.type(description="A message, a call of a function or tool, or what came of one.")
class Item:
    """An item of a conversation, or of a response."""

    id: strawberry.ID
    type: str = strawberry.field(description="As in OpenAI Responses: `message`, `function_call` and others.")
    role: str | None = strawberry.field(description="Of a message.")
    status: str | None = strawberry.field(description="`completed`, `incomplete` or `in_progress`.")
    text: str | None = strawberry.field(description="Of a message, or what was thought.")
    name: str | None = strawberry.field(description="Of the function or tool that is called.")
    call_id: strawberry.ID | None = strawberry.field(description="By which the output of a call names it.")
    arguments: str | None = strawberry.field(description="Of a call, as JSON.")
    output: str | None = strawberry.field(description="What came of a call.")
    json: JSON = strawberry.field(description="The whole item, as OpenAI Responses has it.")

    @classmethod
    def of(cls, item: _Said) -> Item:
        """Return *item* as it is shown."""
        fields = item_fields(item)
        call_id, status = fields.get("call_id"), fields.get("status")
        return cls(
            id=strawberry.ID(fields["id"]),
            type=fields["type"],
            role=item.role if isinstance(item, Message) else None,
            status=status,
            text=item.text if fields["type"] in ("message", "reasoning") else None,
            name=fields.get("name"),
            call_id=None if call_id is None else strawberry.ID(call_id),
            arguments=fields.get("arguments"),
            output=fields.get("output"),
            json=JSON(fields),
        )


@strawberry.type(description="Where a page of a list is.")
class PageInfo:
    """Where a page of a list is, as Relay has it."""

    has_next_page: bool
    start_cursor: str | None
    end_cursor: str | None


@strawberry.type(description="An item, and its place.")
class ItemEdge:
    """An item, and its place."""

    cursor: str
    node: Item


@strawberry.type(description="A page of items.")
class ItemConnection:
    """A page of items."""

    edges: list[ItemEdge]
    page_info: PageInfo
    total_count: int

    @classmethod
    def of(
        cls, items: Sequence[SessionItem], *, first: int, after: str | None, order: ItemOrder
    ) -> ItemConnection:
        """Return the page of *items*, the oldest of which is the first, that is asked for.

        Raises:
            DecodeError: There is none.

        """
        check_first(first)
        ordered = list(items) if order is ItemOrder.OLDEST_FIRST else list(reversed(items))
        begin = 0
        if after is not None:
            begin = next((index for index, item in enumerate(ordered, 1) if item.id == after), 0)
            if not begin:
                raise DecodeError("invalid_request", "There is no such item in the list.", param="after")
        page = ordered[begin : begin + first]
        edges = [ItemEdge(cursor=item.id, node=Item.of(item)) for item in page]
        info = PageInfo(
            has_next_page=len(ordered) > begin + len(page),
            start_cursor=edges[0].cursor if edges else None,
            end_cursor=edges[-1].cursor if edges else None,
        )
        return cls(edges=edges, page_info=info, total_count=len(ordered))


@strawberry.type(description="Why a response failed.")
class ResponseError:
    """Why a response failed."""

    code: str
    message: str
    retry_after: float | None = strawberry.field(description="Seconds after which to ask again, if known.")

    @classmethod
    def of(cls, failure: Failure | None) -> ResponseError | None:
        """Return *failure* as it is shown."""
        if failure is None:
            return None
        wait = None if failure.retry_after is UNSET else failure.retry_after
        return cls(code=failure.code, message=failure.message, retry_after=wait)


@strawberry.type(description="What a response took.")
class TokenCount:
    """What a response took."""

    input_tokens: int
    output_tokens: int
    cached_tokens: int
    total_tokens: int

    @classmethod
    def of(cls, usage: TokenUsage | None) -> TokenCount | None:
        """Return *usage* as it is shown."""
        if usage is None:
            return None
        return cls(
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
            cached_tokens=usage.cached_tokens,
            total_tokens=usage.total_tokens,
        )


@strawberry.type(description="One attempt at answering.")
class Response:
    """One attempt at answering, as far as it has come."""

    id: strawberry.ID
    session_id: strawberry.ID
    created_at: int = strawberry.field(description="Seconds since 1970.")
    status: ResponseStatus
    text: str = strawberry.field(description="Of all its messages.")
    output: list[Item]
    reason: str | None = strawberry.field(description="What cut it short, if anything did.")
    error: ResponseError | None
    usage: TokenCount | None
    metadata: JSON | None
    superseded_by: strawberry.ID | None = strawberry.field(
        default=None,
        description="Of one that was interrupted and is made again: the response that says the answer.",
    )

    @classmethod
    def begun(
        cls,
        response_id: ResponseId,
        status: ResponseStatus,
        metadata: dict[str, str] | None,
        said: Iterable[_Said] = (),
    ) -> Response:
        """Return one that hasn't ended."""
        return cls._of(response_id, status, tuple(said), metadata)

    @classmethod
    def running(cls, response: RunningResponse) -> Response:
        """Return one that hasn't ended, as far as it has come."""
        said = [each.done or each.item("in_progress") for each in response.outputs]
        # What waits has no entry yet but the one that says so.
        is_queued = response.attempt.state.value == "queued"
        status = ResponseStatus.QUEUED if is_queued else ResponseStatus.IN_PROGRESS
        return cls.begun(response.id, status, response.request.metadata, said)

    @classmethod
    def done(cls, body: ResponseDone, superseded_by: ResponseId | None = None) -> Response:
        """Return one as it ended, as the log says. *superseded_by*: the attempt that stands for it."""
        return cls._ended(body.response_id, body, tuple(body.output), superseded_by)

    @classmethod
    def kept(
        cls, ended: Ended, output: Iterable[SessionItem], superseded_by: ResponseId | None = None
    ) -> Response:
        """Return one as it ended, as its session remembers it. See :meth:`done`."""
        return cls._ended(ended.id, ended, tuple(output), superseded_by)

    @classmethod
    def _ended(
        cls,
        response_id: ResponseId,
        ended: ResponseDone | Ended,
        said: tuple[_Said, ...],
        superseded_by: ResponseId | None,
    ) -> Response:
        status: Status = ended.status
        counts = superseded_by is None  # else the other one says the answer, all of it
        response = cls._of(response_id, ResponseStatus(status), said if counts else (), ended.metadata)
        response.reason = ended.reason
        response.error = ResponseError.of(ended.failure)
        response.usage = TokenCount.of(ended.usage)
        response.superseded_by = None if superseded_by is None else strawberry.ID(superseded_by)
        return response

    @classmethod
    def _of(
        cls,
        response_id: ResponseId,
        status: ResponseStatus,
        said: tuple[_Said, ...],
        metadata: dict[str, str] | None,
    ) -> Response:
        return cls(
            id=strawberry.ID(response_id),
            session_id=strawberry.ID(session_of(response_id) or ""),
            created_at=minted_at(response_id),
            status=status,
            text="".join(each.text for each in said if isinstance(each, Message)),
            output=[Item.of(each) for each in said],
            reason=None,
            error=None,
            usage=None,
            metadata=None if metadata is None else JSON(metadata),
        )


def _items(
    root: strawberry.Parent[Session],
    first: int = USUAL_ENTRIES,
    after: str | None = None,
    order: ItemOrder = ItemOrder.OLDEST_FIRST,
) -> ItemConnection:
    return ItemConnection.of(root.standing, first=first, after=after, order=order)


@strawberry.type(description="A conversation.")
class Session:
    """A conversation, as it is now."""

    id: strawberry.ID
    model: str
    instructions: str
    max_output_tokens: int | None = strawberry.field(description="Null: as many as the model gives.")
    concurrency: str = strawberry.field(description="What a request comes to while a response is made.")
    reasoning: bool = strawberry.field(description="Whether what models think is shown.")
    tools: JSON = strawberry.field(description="The functions that clients offer.")
    is_running: bool
    running: list[Response] = strawberry.field(description="The responses that are being made, or wait.")
    standing: strawberry.Private[tuple[SessionItem, ...]]

    @classmethod
    def of(
        cls,
        session_id: SessionId,
        config: SessionConfig,
        *,
        running: Iterable[RunningResponse] = (),
        items: Iterable[SessionItem] = (),
    ) -> Session:
        """Return a session as it is shown."""
        responses = [Response.running(each) for each in running]
        tools: list[dict[str, Any]] = []
        for tool in () if config.tools is UNSET else config.tools:
            parameters = {"description": tool.description, "parameters": tool.parameters}
            tools.append({"type": "function", "name": tool.name, **parameters})
        return cls(
            id=strawberry.ID(session_id),
            model=config.model,
            instructions=config.instructions,
            max_output_tokens=config.max_output_tokens,
            concurrency=config.concurrency.value,
            reasoning=config.reasoning is True,
            tools=JSON(tools),
            is_running=bool(responses),
            running=responses,
            standing=tuple(items),
        )

    items: ItemConnection = strawberry.field(
        resolver=_items, description="Its items, page by page. A cursor is an item's id."
    )
