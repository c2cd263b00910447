"""GraphQL without I/O: what documents may ask for, the schema, messages, and what is shown of events."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from graphql import (
    build_schema,
    get_introspection_query,
    parse,
)
from hypothesis import given
from hypothesis import strategies as st

from unbroken.server.protocols.graphql import schema as schema_module
from unbroken.server.protocols.graphql.answers import MOST_ANSWER_BYTES, answer_bytes, error_fields
from unbroken.server.protocols.graphql.documents import Documents, Invalid, RequestParam, decode_request
from unbroken.server.protocols.graphql.events import DeltaKind, Piece
from unbroken.server.protocols.graphql.limits import DocumentLimits, check_document
from unbroken.server.protocols.graphql.schema import schema_of_sessions, sdl
from unbroken.server.protocols.graphql.socket import (
    Complete,
    Init,
    Ping,
    Pong,
    Subscribe,
    close_reason,
    decode_message,
    key_of,
)
from unbroken.server.protocols.graphql.subscribing import Selection, Wanted, wanted_of
from unbroken.server.protocols.items import DecodeError
from unbroken.sessions.ids import ItemId, ResponseId

SCHEMA = schema_of_sessions()
LIMITS = DocumentLimits(tokens=200, depth=5, cost=100, aliases=3)
FILE = Path(schema_module.__file__).with_name("schema.graphql")


def reader(limits: DocumentLimits = LIMITS, *, shows_schema: bool = False) -> Documents:
    return Documents(SCHEMA, limits, shows_schema=shows_schema)


def refused(
    query: str, variables: dict[str, Any] | None = None, limits: DocumentLimits = LIMITS
) -> str | None:
    """Return why a document is too much. None: it isn't."""
    try:
        check_document(parse(query), variables or {}, limits)
    except DecodeError as exc:
        assert exc.code == "document_too_complex"
        return exc.message
    return None


# How long an answer may be.


def test_an_answer_is_written_as_long_as_it_may_be() -> None:
    most = MOST_ANSWER_BYTES - len(b'{"data":{"a":""}}')
    assert len(answer_bytes({"data": {"a": "x" * most}})) == MOST_ANSWER_BYTES
    for text in ("x" * (most + 1), "é" * (most // 2 + 1), "\n" * (most // 2 + 1)):
        with pytest.raises(DecodeError) as refused:
            answer_bytes({"data": {"a": text}})
        assert refused.value.code == "document_too_complex"


def test_an_answer_that_says_the_same_again_and_again_is_refused_before_it_is_written() -> None:
    """Written, it would have some terabytes."""
    text = "x" * 1_000_000
    with pytest.raises(DecodeError):
        answer_bytes({"data": {"a": [{"text": text, "json": {"content": [text] * 1000}}] * 1000}})


# The schema.


def test_the_schema_that_is_shown_is_the_one_that_is_served() -> None:
    """To write it anew: ``print(sdl(), end="")`` into the file."""
    assert FILE.read_text() == sdl()
    assert set(build_schema(FILE.read_text()).type_map) == set(SCHEMA.type_map)


# How much a document may ask for.


@pytest.mark.parametrize(
    ("query", "why"),
    [
        ("{ a { b { c { d { e } } } } }", None),
        ("{ a { b { c { d { e { f } } } } } }", "levels deep"),
        (
            "{ a { ...F } } fragment F on T { b { ...G } } fragment G on T { c { d { e { f } } } }",
            "levels deep",
        ),
        ("{ ... { ... { ... { ... { ... { ... { a } } } } } } }", None),
        ("{ a b c d a b c }", None),
        ("{ a a a a a }", "come twice"),
        ("{ w: a x: a y: a }", None),
        ("{ w: a x: a y: a z: a }", "have an alias"),
        ("{ ...F ...F ...F ...F ...F } fragment F on T { a }", "come twice"),
        ("{ items(first: 10) { a b c d e f g h i } }", None),
        ("{ items(first: 10) { a b c d e f g h i j } }", "fields"),
        ("{ items { a b c d } }", None),
        ("{ items { a b c d e } }", "fields"),
        ("{ items(first: 2) { items(first: 40) { a } } }", None),
        ("{ items(first: 2) { items(first: 50) { a } } }", "fields"),
        ("{ items(first: 99999999999999999999) { a } }", "fields"),
        ("{ items(first: -5) { a } }", None),
        ("{ a } fragment F on T { items { a b c d e } }", "fields"),
        ("query A { a } query B { items { a b c d e } }", "fields"),
        ("{ ...F } fragment F on T { ...F }", "contain themselves"),
        ("{ ...F } fragment F on T { a { ...G } } fragment G on T { b { ...F } }", "contain themselves"),
        ("{ a } fragment F on T { ...G } fragment G on T { ...F }", "contain themselves"),
        ("{ ...Unknown }", None),
        ("{ " + "... { " * 80 + "a" + " }" * 81, None),
        ("{ " + "... { " * 150 + "a" + " }" * 151, "within one another"),
        ("{ __schema { a { b { c { d { e { f { g } } } } } } } }", None),
    ],
)
def test_what_a_document_asks_for_is_counted(query: str, why: str | None) -> None:
    told = refused(query)
    assert (told is None) if why is None else (told is not None and why in told)


def test_a_page_s_length_may_be_a_variable() -> None:
    query = "query($n: Int) { items(first: $n) { a } }"
    assert refused(query, {"n": 5}) is None
    assert refused(query, {"n": 99}) is None
    assert refused(query, {"n": 100}) is not None
    assert refused(query, {"n": "x"}) is not None
    assert refused(query) is None, "as many as is usual"


@pytest.mark.parametrize(
    ("query", "variables", "is_refused"),
    [
        ("query($n: Int = 99) { items(first: $n) { a } }", None, False),
        ("query($n: Int = 100) { items(first: $n) { a } }", None, True),
        ("query($n: Int = 100) { items(first: $n) { a } }", {"n": 5}, False),
        ("query($n: Int = 5) { items(first: $n) { a } }", {"n": 100}, True),
        ("query($n: Int = 5) { items(first: $n) { a } }", {"n": None}, True),
        ('query($n: Int = "x") { items(first: $n) { a } }', None, True),
        ("query($n: Int = null) { items(first: $n) { a } }", None, True),
        ("query($n: Int = 999999) { items(first: $n) { a } }", None, True),
        (
            "query A($n: Int = 5) { ...F } query B($n: Int = 100) { ...F }"
            " fragment F on T { items(first: $n) { a } }",
            None,
            True,
        ),
    ],
)
def test_a_page_s_length_may_be_a_variable_s_default(
    query: str, variables: dict[str, Any] | None, is_refused: bool
) -> None:
    assert (refused(query, variables) is not None) == is_refused


def test_fragments_that_double_are_counted_no_further_than_may_be() -> None:
    """40 of them stand for a million million fields: counted to the end, the test would have none."""
    doubling = "".join(f" fragment F{n} on T {{ ...F{n + 1} ...F{n + 1} }}" for n in range(40))
    assert refused("{ ...F0 }" + doubling + " fragment F40 on T { a }", limits=DocumentLimits()) is not None


NAMES = st.sampled_from(["a", "b", "items", "__schema"])


@st.composite
def documents(draw: st.DrawFn) -> str:
    """Draw documents with fields, aliases and fragments, which may contain one another, or themselves."""
    fragments = draw(st.integers(0, 3))

    def selection(depth: int) -> str:
        parts = []
        for _ in range(draw(st.integers(1, 3))):
            kind = draw(st.integers(0, 5))
            if kind == 0 and fragments:
                parts.append(f"...F{draw(st.integers(0, fragments))}")
            elif kind == 1 and depth < 6:
                parts.append("... { " + selection(depth + 1) + " }")
            else:
                alias = draw(st.sampled_from(["", "", "x: "]))
                below = " { " + selection(depth + 1) + " }" if depth < 6 and draw(st.booleans()) else ""
                parts.append(alias + draw(NAMES) + below)
        return " ".join(parts)

    text = "{ " + selection(0) + " }"
    return text + "".join(f" fragment F{n} on T {{ {selection(2)} }}" for n in range(fragments))


def measured(query: str) -> tuple[int, int, bool]:
    """Return how deep a document is, what it costs, and whether it has an end: in the obvious way."""
    document: Any = parse(query)
    fragments = {each.name.value: each for each in document.definitions if each.kind == "fragment_definition"}
    used: set[str] = set()

    def walk(selected: Any, depth: int, names: tuple[str, ...], is_schema: bool) -> tuple[int, int, bool]:
        deepest, cost, ends = 0, 0, True
        for each in selected.selections:
            if each.kind == "field":
                inside = is_schema or each.name.value.startswith("__")
                at, below, finite = depth if not inside else 0, 0, True
                if each.selection_set is not None:
                    deep, below, finite = walk(each.selection_set, depth + 1, names, inside)
                    at = max(at, deep)
                    below *= 20 if each.name.value == "items" else 1
                found = at, 1 + below, finite
            elif each.kind == "inline_fragment":
                found = walk(each.selection_set, depth, names, is_schema)
            elif each.name.value in names:
                return 0, 0, False
            elif (fragment := fragments.get(each.name.value)) is None:
                continue
            else:
                used.add(each.name.value)
                found = walk(fragment.selection_set, depth, (*names, each.name.value), is_schema)
            deepest, cost, ends = max(deepest, found[0]), cost + found[1], ends and found[2]
            if not ends:
                return 0, 0, False
        return deepest, cost, ends

    roots = [each for each in document.definitions if each.kind == "operation_definition"]
    results = [walk(each.selection_set, 1, (), False) for each in roots]
    results += [
        walk(each.selection_set, 1, (name,), False) for name, each in fragments.items() if name not in used
    ]
    return max(r[0] for r in results), max(r[1] for r in results), all(r[2] for r in results)


@given(documents())
def test_what_passes_is_within_the_limits(query: str) -> None:
    limits = DocumentLimits(depth=4, cost=200, aliases=1000)
    deepest, cost, ends = measured(query)
    told = refused(query, limits=limits)

    if told is None:
        assert ends and deepest <= limits.depth and cost <= limits.cost
    elif "contain themselves" in told:
        assert not ends
    elif "levels deep" in told:
        assert deepest > limits.depth or not ends
    # Spreads count, too, while it is counted: what is near the limit may be refused.


def test_what_is_no_graphql_is_told_with_its_place() -> None:
    with pytest.raises(Invalid) as caught:
        reader().read(RequestParam("{ models { id }"))
    assert caught.value.errors[0].formatted.get("locations")


@pytest.mark.parametrize(
    "query",
    [
        "{ models { id } }" + " " * 20_000,
        "{ " + "models " * 300 + "}",
        "{" + "a{" * 3_000,
        "#\n" * 200 + "{ models { id } }",
        "[" * 100,
    ],
)
def test_what_is_too_long_is_not_read(query: str) -> None:
    with pytest.raises((DecodeError, Invalid)) as caught:
        reader().read(RequestParam(query))
    if isinstance(caught.value, DecodeError):
        assert caught.value.code == "document_too_complex"


def test_variables_have_no_more_parts_than_make_sense() -> None:
    def request(parts: int) -> bytes:
        return json.dumps({"query": "{ a }", "variables": {"in": [{}] * parts}}).encode()

    assert decode_request(request(4000), max_depth=8).query == "{ a }"
    with pytest.raises(DecodeError, match="objects and lists"):
        decode_request(request(5000), max_depth=8)


def test_the_library_s_own_question_for_the_schema_is_within_the_usual_limits() -> None:
    query = get_introspection_query(specified_by_url=True, input_value_deprecation=True)
    operation = reader(DocumentLimits(), shows_schema=True).read(RequestParam(query))
    assert not operation.is_subscription
    with pytest.raises(Invalid):
        reader(DocumentLimits(), shows_schema=False).read(RequestParam(query))


def test_fields_that_come_again_by_fragments_are_counted() -> None:
    """To validate them takes a square of their number."""
    body = " ".join(f"...F{n}" for n in range(30))
    fragments = "".join(f" fragment F{n} on Query {{ models {{ id }} }}" for n in range(30))
    with pytest.raises(DecodeError):
        reader(DocumentLimits()).read(RequestParam("{" + body + "}" + fragments))


# What is shown of events.

PIECE = Piece(
    "event_00000000.7.1.0", ResponseId("resp_1"), ItemId("item_1"), 3, DeltaKind.TEXT, "hi\0 \u2028"
)

FIELDS = ["type", "cursor", "resumed", "responseId", "itemId", "outputIndex", "kind", "delta", "__typename"]


@st.composite
def selections(draw: st.DrawFn) -> str:
    parts = []
    for number in range(draw(st.integers(1, 6))):
        name = draw(st.sampled_from([*FIELDS, "item { id text }", "session { id }", "response { id text }"]))
        alias = draw(st.sampled_from(["", f"k{number}: "]))
        skipped = draw(
            st.sampled_from(["", "", " @skip(if: $yes)", " @include(if: $no)", " @include(if: $yes)"])
        )
        field, brace, below = name.partition(" {")
        part = f"{alias}{field}{skipped}{brace}{below}"
        parts.append(draw(st.sampled_from([part, f"... {{ {part} }}", f"... on Event {{ {part} }}"])))
    return " ".join(parts)


@given(selections(), st.sampled_from(DeltaKind), st.text(max_size=5), st.integers(0, 9))
def test_pieces_are_shown_as_the_library_would(selected: str, kind: DeltaKind, text: str, index: int) -> None:
    variables = "$yes: Boolean = true, $no: Boolean!"
    used = "z: __typename @include(if: $no) y: __typename @include(if: $yes)"
    query = f'subscription({variables}) {{ e: events(sessionId: "s") {{ {selected} {used} }} }}'
    limits = DocumentLimits(aliases=1000)
    operation = reader(limits).read(RequestParam(query, {"no": False}))
    selection = Selection(SCHEMA, operation, lambda exc: error_fields("x", str(exc)))
    piece = Piece("c", ResponseId("r"), ItemId("i"), index, kind, text)

    assert selection.show(piece) == selection.show(piece.event)
    assert selection.show(piece) == selection.show(piece.event), "and once more"


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        ('subscription { events(sessionId: "s") { type } }', Wanted("s", None, None)),
        ("subscription { events(responseId: 7, after: null) { type } }", Wanted(None, "7", None)),
        ('subscription($a: String = "c") { x: events(after: $a) { type } }', Wanted(None, None, "c")),
        (
            "subscription($s: ID) { ... { ...F } } "
            "fragment F on Subscription { events(sessionId: $s) { type } }",
            Wanted("given", None, None),
        ),
    ],
)
def test_what_is_subscribed_to_is_read(query: str, wanted: Wanted) -> None:
    operation = reader().read(RequestParam(query, {"s": "given"} if "$s" in query else None))
    assert wanted_of(SCHEMA, operation) == wanted


@pytest.mark.parametrize("variables", [{}, {"r": None}, {"r": {"a": 1}}])
def test_variables_that_are_not_what_they_should_be_are_told_of(variables: dict[str, Any]) -> None:
    operation = reader().read(
        RequestParam("subscription($r: ID!) { events(responseId: $r) { type } }", variables)
    )
    with pytest.raises(Invalid):
        wanted_of(SCHEMA, operation)


# Messages.


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ({"type": "connection_init"}, Init()),
        ({"type": "connection_init", "payload": {"token": "k"}}, Init({"token": "k"})),
        ({"type": "ping", "payload": {"a": 1}}, Ping()),
        ({"type": "pong"}, Pong()),
        ({"type": "complete", "id": "1"}, Complete("1")),
        (
            {
                "type": "subscribe",
                "id": "1",
                "payload": {"query": "{a}", "operationName": "A", "variables": {"b": 1}},
            },
            Subscribe("1", RequestParam("{a}", {"b": 1}, "A")),
        ),
    ],
)
def test_messages_are_read(message: dict[str, Any], said: object) -> None:
    assert decode_message(json.dumps(message), max_depth=8) == said


@given(
    st.one_of(
        st.text(),
        st.binary(),
        st.recursive(
            st.none() | st.booleans() | st.text(max_size=8) | st.integers(),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(
                    st.sampled_from(["type", "id", "payload", "query", "variables", "x"]), inner, max_size=4
                )
            ),
        ).map(json.dumps),
    )
)
def test_whatever_is_sent_is_read_or_refused(data: str | bytes) -> None:
    try:
        said = decode_message(data, max_depth=8)
    except DecodeError:
        return
    assert isinstance(said, Init | Ping | Pong | Subscribe | Complete)


@pytest.mark.parametrize(
    ("payload", "key"),
    [
        (None, None),
        ({"Authorization": "Bearer  k "}, "k"),
        ({"authorization": "bearer k"}, "k"),
        ({"Authorization": "Basic k"}, None),
        ({"Authorization": "Bearer "}, None),
        ({"token": "k"}, "k"),
        ({"token": ""}, None),
        ({"token": ["k"]}, None),
        ({"Authorization": "Bearer a", "token": "b"}, "a"),
    ],
)
def test_keys_are_found_in_the_first_message(payload: dict[str, Any] | None, key: str | None) -> None:
    assert key_of(Init(payload)) == key


@given(st.text(), st.text(max_size=300))
def test_reasons_fit_into_a_close_frame(code: str, message: str) -> None:
    assert len(close_reason(code, message).encode()) <= 123
