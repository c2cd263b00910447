"""How much a document may ask for: found out before anything is validated, as validation may take a square.

All fragments are counted where they are used, so that a short document can't stand for a long one. Counting
ends as soon as there is too much of something, and so never takes longer than what is allowed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    InlineFragmentNode,
    IntValueNode,
    OperationDefinitionNode,
    SelectionSetNode,
    ValueNode,
    VariableNode,
)

from unbroken.server.protocols.items import DecodeError

__all__ = ["MOST_ENTRIES", "USUAL_ENTRIES", "DocumentLimits", "check_document", "check_first"]

MOST_ENTRIES: Final = 100
"""Of a list, on one page."""

USUAL_ENTRIES: Final = 20
"""Where nobody says how many."""

_PAGED: Final = frozenset({"items", "sessions"})
"""The fields that are lists with pages. `first` says how many entries are wanted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentLimits:
    """Bounds on one document. See the settings of these names."""

    bytes: int = 16 * 1024
    tokens: int = 1000
    depth: int = 10
    cost: int = 2000
    aliases: int = 16


_MOST_NESTED: Final = 100
"""Selections within one another, be they of fields or of fragments: whoever reads them calls itself."""


class _Excess(Exception):
    """There is too much of something."""


class _Tally:
    """Counts what a document asks for."""

    def __init__(self, document: DocumentNode, variables: Mapping[str, Any], limits: DocumentLimits) -> None:
        self._fragments = {
            each.name.value: each for each in document.definitions if isinstance(each, FragmentDefinitionNode)
        }
        self._variables = variables
        self._defaults: dict[str, list[ValueNode | None]] = {}  # of each operation that has such a variable
        for each in document.definitions:
            if isinstance(each, OperationDefinitionNode):
                for defined in each.variable_definitions or ():
                    self._defaults.setdefault(defined.variable.name.value, []).append(defined.default_value)
        self._limits = limits
        self._visited = 0
        self._aliases = 0
        self._nested = 0
        self._used: set[str] = set()  # fragments that were counted where they are used
        self._open: list[str] = []  # fragments that are being counted

    def count(self, document: DocumentNode) -> None:
        """Count all of it: what isn't executed is validated all the same."""
        for each in document.definitions:
            if isinstance(each, OperationDefinitionNode):
                self._level(each.selection_set)
        for name, fragment in self._fragments.items():
            if name not in self._used:
                self._level(fragment.selection_set)

    def _level(self, selected: SelectionSetNode) -> None:
        cost = self._selection(selected, 1, set(), is_schema=False)
        if cost > self._limits.cost:
            raise _Excess(self._too_dear)

    @property
    def _too_dear(self) -> str:
        return f"It asks for more than {self._limits.cost} fields. Ask for shorter pages, or fewer fields."

    def _selection(self, selected: SelectionSetNode, depth: int, names: set[str], *, is_schema: bool) -> int:
        """Return what *selected* costs. *names*: what is asked for beside, under which names."""
        cost = 0
        self._nested += 1
        if self._nested > _MOST_NESTED:
            raise _Excess(f"It has more than {_MOST_NESTED} fields and fragments within one another.")
        for each in selected.selections:
            self._visited += 1
            if self._visited > self._limits.cost:
                raise _Excess(self._too_dear)
            if isinstance(each, FieldNode):
                cost += self._field(each, depth, names, is_schema=is_schema)
            elif isinstance(each, FragmentSpreadNode):
                cost += self._spread(each.name.value, depth, names, is_schema=is_schema)
            elif isinstance(each, InlineFragmentNode):
                cost += self._selection(each.selection_set, depth, names, is_schema=is_schema)
        self._nested -= 1
        return cost

    def _field(self, field: FieldNode, depth: int, names: set[str], *, is_schema: bool) -> int:
        # What tells of the schema is nested deeply by nature, and the library has a rule about that.
        is_schema = is_schema or field.name.value in ("__schema", "__type")
        if depth > self._limits.depth and not is_schema:
            message = f"Its fields are nested more than {self._limits.depth} levels deep. Ask in several."
            raise _Excess(message)
        name = (field.alias or field.name).value
        if field.alias is not None or name in names:
            self._aliases += 1
            if self._aliases > self._limits.aliases:
                message = f"More than {self._limits.aliases} of its fields have an alias, or come twice."
                raise _Excess(f"{message} Ask in several.")
        names.add(name)
        if field.selection_set is None:
            return 1
        below = self._selection(field.selection_set, depth + 1, set(), is_schema=is_schema)
        return 1 + self._entries(field) * below

    def _spread(self, name: str, depth: int, names: set[str], *, is_schema: bool) -> int:
        if name in self._open:
            raise _Excess("Its fragments contain themselves. Leave that out.")
        fragment = self._fragments.get(name)
        if fragment is None:
            return 0  # validation says so
        self._used.add(name)
        self._open.append(name)
        cost = self._selection(fragment.selection_set, depth, names, is_schema=is_schema)
        self._open.pop()
        return cost

    def _entries(self, field: FieldNode) -> int:
        """Return how many entries a field may have: as many as it asks for, if it is a list with pages."""
        if field.name.value not in _PAGED:
            return 1
        for each in field.arguments or ():
            if each.name.value != "first":
                continue
            if not isinstance(each.value, VariableNode):
                return _written(each.value)
            name = each.value.name.value
            if name in self._variables:
                wanted = self._variables[name]
                return _within(wanted) if isinstance(wanted, int) else MOST_ENTRIES
            defaults = self._defaults.get(name, ())
            return max((_written(default) for default in defaults), default=MOST_ENTRIES)
        return USUAL_ENTRIES


def _written(value: ValueNode | None) -> int:
    """Return how many entries *value* asks for, at most. None: it doesn't say."""
    if value is None:
        return USUAL_ENTRIES
    if isinstance(value, IntValueNode) and len(value.value) < 6:  # not every number can be read in time
        return _within(int(value.value))
    return MOST_ENTRIES


def _within(entries: int) -> int:
    return min(max(entries, 1), MOST_ENTRIES)


def check_first(first: int) -> None:
    """Refuse a number of entries that no page has.

    Raises:
        DecodeError: It is one.

    """
    if not 1 <= first <= MOST_ENTRIES:
        raise DecodeError("invalid_request", f"`first` is a number from 1 to {MOST_ENTRIES}.", param="first")


def check_document(document: DocumentNode, variables: Mapping[str, Any], limits: DocumentLimits) -> None:
    """Refuse what asks for more than it may.

    Raises:
        DecodeError: It does.

    """
    try:
        _Tally(document, variables, limits).count(document)
    except _Excess as exc:
        raise DecodeError("document_too_complex", f"The document is too much. {exc}") from None
