"""What somebody subscribes to, and what they have selected of each event."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from graphql import (
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLError,
    GraphQLSchema,
    InlineFragmentNode,
    SelectionSetNode,
    execute_sync,
    get_argument_values,
    get_variable_values,
)

from unbroken.server.protocols.graphql.answers import Tell, result_fields
from unbroken.server.protocols.graphql.documents import Invalid, Operation
from unbroken.server.protocols.graphql.events import DeltaKind, Piece, Said
from unbroken.sessions.ids import ItemId, ResponseId

__all__ = ["Selection", "Wanted", "wanted_of"]

_MARK: Final = "\0"
"""What begins so stands for a value: no constant of the schema does."""

_INDEX: Final = -7_777_777


@dataclass(frozen=True, slots=True)
class Wanted:
    """What somebody subscribes to."""

    session_id: str | None
    response_id: str | None
    after: str | None
    """The cursor behind which to go on. None: from the beginning."""


def wanted_of(schema: GraphQLSchema, operation: Operation) -> Wanted:
    """Return what a valid subscription is to.

    Raises:
        Invalid: Its variables aren't what they are said to be.

    """
    definitions = operation.node.variable_definitions or ()
    values = get_variable_values(
        schema, definitions, operation.variables, max_errors=5, hide_suggestions=True
    )
    if isinstance(values, list):
        raise Invalid(values)
    assert schema.subscription_type is not None
    fragments = {
        each.name.value: each
        for each in operation.document.definitions
        if isinstance(each, FragmentDefinitionNode)
    }
    node = _root(operation.node.selection_set, fragments)
    assert node is not None, "a subscription has one field: it was validated"
    try:
        arguments = get_argument_values(schema.subscription_type.fields[node.name.value], node, values)
    except GraphQLError as exc:
        raise Invalid([exc]) from None
    return Wanted(arguments.get("sessionId"), arguments.get("responseId"), arguments.get("after"))


def _root(selected: SelectionSetNode, fragments: Mapping[str, FragmentDefinitionNode]) -> FieldNode | None:
    """Return the one field of a subscription, which may come by fragments."""
    for each in selected.selections:
        found: FieldNode | None = None
        if isinstance(each, FieldNode):
            found = each
        elif isinstance(each, FragmentSpreadNode):
            found = _root(fragments[each.name.value].selection_set, fragments)
        elif isinstance(each, InlineFragmentNode):
            found = _root(each.selection_set, fragments)
        if found is not None:
            return found
    return None


class Selection:
    """Has a subscription's document say which fields of its events are shown, and how they are called.

    The library executes it for each event, but for pieces: of these it is executed once for each kind, with
    marks in place of what differs. All others have the same shape, and come by the thousand.

    Args:
        schema: What there is.
        operation: What is subscribed to.
        tell: Says what an exception is to a client.

    """

    def __init__(self, schema: GraphQLSchema, operation: Operation, tell: Tell) -> None:
        self._schema = schema
        self._operation = operation
        self._tell = tell
        self._key = ""
        self._shapes: dict[DeltaKind, list[tuple[str, str | None, Any]]] = {}

    def show(self, said: Said) -> dict[str, Any]:
        """Return the answer that *said* becomes."""
        if not isinstance(said, Piece):
            return self._executed(said)
        shape = self._shapes.get(said.kind)
        if shape is None:
            shape = self._shapes[said.kind] = self._shape(said.kind)
        fields = said.fields
        shown = {key: value if name is None else fields[name] for key, name, value in shape}
        return {"data": {self._key: shown}}

    def _executed(self, event: object) -> dict[str, Any]:
        operation = self._operation
        result = execute_sync(
            self._schema,
            operation.document,
            root_value=event,
            variable_values=operation.variables,
            operation_name=operation.name,
        )
        return result_fields(result, self._tell)

    def _shape(self, kind: DeltaKind) -> list[tuple[str, str | None, Any]]:
        """Return how a piece of *kind* is shown: what each field is called, and where its value is from."""
        marked = Piece(
            f"{_MARK}cursor",
            ResponseId(f"{_MARK}responseId"),
            ItemId(f"{_MARK}itemId"),
            _INDEX,
            kind,
            f"{_MARK}delta",
        )
        data = self._executed(marked.event)["data"]
        ((self._key, shown),) = data.items()
        shape: list[tuple[str, str | None, Any]] = []
        for key, value in shown.items():
            name: str | None = None
            if isinstance(value, str) and value.startswith(_MARK):
                name = value.removeprefix(_MARK)
            elif value == _INDEX:
                name = "outputIndex"
            shape.append((key, name, value))
        return shape
