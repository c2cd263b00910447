"""``/v1/conversations`` and ``/v1/users/me/data``, described."""

from __future__ import annotations

from typing import Final

from unbroken.server.openapi.answer_schemas import list_of, shape
from unbroken.server.openapi.operation import (
    JSON,
    Answer,
    Body,
    Described,
    Method,
    Operation,
    Parameter,
    answered,
    field_of,
    path_field,
    ref,
)
from unbroken.server.openapi.refusals import (
    ASKING,
    BODY,
    CONNECTION,
    ENTRY,
    FOUND,
    KEY,
    PATH,
    QUOTAS,
    SESSION,
    Codes,
    refusals,
)
from unbroken.server.openapi.request_schemas import METADATA, request_schemas
from unbroken.server.openapi.responses import IDEMPOTENCY_KEY, INCLUDE
from unbroken.server.openapi.terms import Terms
from unbroken.server.protocols.conversations.decode import CreateParam, ItemsParam, UpdateParam

__all__ = ["conversations", "own_data"]

_TAG: Final = "Conversations"
_ALL: Final = "/v1/conversations"
_ONE: Final = "/v1/conversations/{conversation_id}"

_NAMED: Final = path_field("conversation_id", {"type": "string", "minLength": 1}, "As `id` says.")
_ITEM: Final = path_field("item_id", {"type": "string", "minLength": 1}, "As the item's `id` says.")

_PAGE: Final = (
    field_of("limit", {"type": "integer", "minimum": 1, "maximum": 100, "default": 20}, "How many."),
    field_of("order", {"enum": ["asc", "desc"], "default": "desc"}, "The oldest first, or the newest."),
    field_of("after", {"type": "string"}, "What the page begins behind."),
)

_THERE: Final[Codes] = {404: ("conversation_not_found",)}
_ITEMS: Final[Codes] = {404: ("item_not_found",), 409: ("item_in_progress",)}

_CONVERSATION: Final = {JSON: ref("Conversation")}


def conversations(terms: Terms) -> Described:
    """Return what is said of conversations."""

    def operation(
        method: Method,
        path: str,
        name: str,
        summary: str,
        answer: Answer,
        *groups: Codes,
        parameters: tuple[Parameter, ...] = (),
        body: Body | None = None,
    ) -> Operation:
        fields = tuple(each for each in (_NAMED, _ITEM) if f"{{{each.name}}}" in path)
        known = (PATH, _THERE) if fields else ()
        return Operation(
            method=method,
            path=path,
            name=name,
            tag=_TAG,
            summary=summary,
            parameters=(*fields, *parameters),
            body=body,
            answers={200: answer, **refusals(ENTRY, KEY, CONNECTION, SESSION, *known, *groups)},
        )

    asked, one = (BODY, ASKING), answered("It.", _CONVERSATION)
    counted = (QUOTAS,) if terms.has_quotas else ()
    page = answered("A page of them.", {JSON: ref("ConversationPage")})
    items = answered("A page of items.", {JSON: ref("ItemPage")})
    create = terms.body("ConversationCreate")
    operations = (
        operation("get", _ALL, "listConversations", "List yours", page, FOUND, parameters=_PAGE),
        operation(
            "post",
            _ALL,
            "createConversation",
            "Begin one",
            one,
            *asked,
            *counted,
            parameters=(IDEMPOTENCY_KEY,),
            body=Body(content=create.content, is_required=False, description=create.description),
        ),
        operation("get", _ONE, "getConversation", "Look at one", one),
        operation(
            "post",
            _ONE,
            "updateConversation",
            "Note something of one",
            one,
            *asked,
            body=terms.body("ConversationUpdate"),
        ),
        operation(
            "delete",
            _ONE,
            "deleteConversation",
            "Delete one",
            answered("It is gone.", {JSON: ref("Deleted")}),
        ),
        operation(
            "get",
            f"{_ONE}/items",
            "listItems",
            "List its items",
            items,
            FOUND,
            parameters=(*_PAGE, *INCLUDE),
        ),
        operation(
            "post",
            f"{_ONE}/items",
            "addItems",
            "Add items",
            answered("They.", {JSON: ref("ItemPage")}),
            *asked,
            parameters=(IDEMPOTENCY_KEY, *INCLUDE),
            body=terms.body("ConversationItems"),
        ),
        operation(
            "get",
            f"{_ONE}/items/{{item_id}}",
            "getItem",
            "Look at an item",
            answered("It.", {JSON: ref("Item")}),
            _ITEMS,
            parameters=INCLUDE,
        ),
        operation("delete", f"{_ONE}/items/{{item_id}}", "deleteItem", "Remove an item", one, _ITEMS),
        operation(
            "get",
            f"{_ONE}/export",
            "exportConversation",
            "Download all that there is of one",
            answered("It.", {JSON: {"type": "object"}}),
        ),
    )
    number = {"type": "integer"}
    conversation = shape(
        {
            "id": {"type": "string"},
            "object": {"const": "conversation"},
            "created_at": number,
            "metadata": {"type": "object"},
        },
        optional={"unbroken": shape({"resume": {"type": "string"}})},
    )
    schemas = {
        **request_schemas(
            "Conversation", CreateParam, {"CreateParam": {"metadata": METADATA, "items": {"maxItems": 20}}}
        ),
        **request_schemas("Conversation", UpdateParam, {"UpdateParam": {"metadata": METADATA}}),
        **request_schemas(
            "Conversation", ItemsParam, {"ItemsParam": {"items": {"minItems": 1, "maxItems": 20}}}
        ),
        "Conversation": conversation,
        "ConversationPage": list_of(ref("Conversation")),
    }
    return Described(operations=operations, schemas=schemas)


def own_data(_: Terms) -> Described:
    """Return what is said of erasing what is somebody's own."""
    number = {"type": "integer", "minimum": 0}
    report = shape(
        {
            "object": {"const": "user.data.deleted"},
            "deleted": {"type": "boolean"},
            "erased": {"type": "object", "additionalProperties": number},
            "left": {"type": "array", "items": {"type": "string"}},
        },
        optional={"looked_at": number},
    )
    erase = Operation(
        method="delete",
        path="/v1/users/me/data",
        name="eraseMyData",
        tag=_TAG,
        summary="Erase everything that is yours",
        answers={
            200: answered("It is gone.", {JSON: report}),
            202: answered("Some of it is left: ask again, and it goes on.", {JSON: report}),
            **refusals(ENTRY, KEY, CONNECTION, SESSION),
        },
    )
    return Described(operations=(erase,))
