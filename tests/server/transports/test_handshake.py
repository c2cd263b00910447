from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unbroken.server.transports.handshake import SUBPROTOCOL, Handshake, is_loopback_name

INSECURE = "openai-insecure-api-key."


def handshake(
    *offered: str, query: str | bytes = b"", headers: dict[str, str] | None = None, **names: str
) -> Handshake:
    raw = [(name.encode(), value.encode("latin-1")) for name, value in ((headers or {}) | names).items()]
    scope: dict[str, Any] = {
        "type": "websocket",
        "headers": raw,
        "subprotocols": list(offered),
        "query_string": query if isinstance(query, bytes) else query.encode(),
    }
    return Handshake.of(scope)


# Keys.


@pytest.mark.parametrize(
    ("value", "key"),
    [
        ("Bearer sk-1", "sk-1"),
        ("bearer sk-1", "sk-1"),
        ("BEARER  sk-1 ", "sk-1"),
        ("Bearer sk 1", "sk 1"),
        ("Bearer", None),
        ("Bearer ", None),
        ("Basic abc", None),
        ("sk-1", None),
        ("", None),
    ],
)
def test_a_key_is_read_from_the_header(value: str, key: str | None) -> None:
    assert handshake(authorization=value).credentials.key == key


def test_a_browser_s_key_comes_as_a_subprotocol() -> None:
    """It can't set headers."""
    shaken = handshake(SUBPROTOCOL, INSECURE + "sk-1", origin="http://a.example")

    assert shaken.credentials.key == "sk-1"
    assert shaken.credentials.is_browser
    assert shaken.subprotocol == "realtime", "never the key: what is selected is sent back"


def test_the_header_goes_before_the_subprotocol() -> None:
    assert handshake(INSECURE + "a", authorization="Bearer b").credentials.key == "b"
    assert handshake(INSECURE + "a", authorization="Basic b").credentials.key == "a"


def test_without_a_key_there_is_none() -> None:
    assert handshake("graphql-ws").credentials.key is None


# Subprotocols.


def test_what_is_not_known_is_not_selected() -> None:
    assert handshake().subprotocol is None
    assert handshake("graphql-ws").subprotocol is None
    assert handshake("graphql-ws", "realtime").subprotocol == "realtime"


def test_the_beta_version_is_told_by_header_or_subprotocol() -> None:
    assert handshake(headers={"openai-beta": "realtime=v1"}).is_beta
    assert handshake(headers={"OpenAI-Beta": "assistants=v2, realtime=v1"}).is_beta
    assert handshake("realtime", "openai-beta.realtime-v1").is_beta
    assert not handshake("realtime", headers={"openai-beta": "assistants=v2"}).is_beta


# The query.


def test_the_query_names_the_model_and_where_to_go_on() -> None:
    shaken = handshake(query="model=a%2Fb&resume=rt_1&after=event_1.2.3.0&other=x")

    assert (shaken.model, shaken.resume, shaken.after) == ("a/b", "rt_1", "event_1.2.3.0")


def test_what_is_not_said_is_none() -> None:
    shaken = handshake(query="x")

    assert (shaken.model, shaken.resume, shaken.after) == (None, None, None)


def test_an_empty_token_is_a_token_and_a_bad_one() -> None:
    """Taken for none, it would begin a second session without a word."""
    assert handshake(query="resume=&after=x").resume == ""


def test_what_comes_twice_counts_last() -> None:
    """A client that adds to an address it was given, as reconnect hooks do."""
    assert handshake(query="after=old&after=new").after == "new"


def test_a_query_has_limits() -> None:
    assert handshake(query="model=m&" + "&".join(["x=1"] * 31)).model == "m"
    for query in ("model=m&" + "&".join(["x=1"] * 40), "x=" + "1" * 5_000, "resume=" + "m" * 10_000):
        shaken = handshake(query=query)
        assert not shaken.is_readable
        assert (shaken.model, shaken.resume) == (None, None)


@given(st.binary(max_size=200))
def test_a_query_of_any_kind_raises_nothing(query: bytes) -> None:
    handshake(query=query)


# Headers.


def test_the_first_of_a_repeated_header_counts() -> None:
    """What a proxy in front checked must be what is used here."""
    raw = [(b"host", b"a.example"), (b"Host", b"b.example"), (b"x-latin", b"\xe9")]
    shaken = Handshake.of({"type": "websocket", "headers": raw})

    assert shaken.host == "a.example"


def test_a_request_without_anything_is_read() -> None:
    shaken = Handshake.of({"type": "websocket", "headers": []})

    assert (shaken.host, shaken.origin, shaken.is_browser, shaken.is_beta) == ("", None, False, False)


# Origins.


@pytest.mark.parametrize(
    ("origin", "host", "is_allowed"),
    [
        (None, "a.example", True),
        ("http://a.example", "a.example", True),
        ("https://a.example", "a.example", True),
        ("http://a.example:8000", "a.example:8000", True),
        ("http://a.example", "a.example:8000", False),
        ("http://a.example:9", "a.example:8000", False),
        ("http://b.example", "a.example", False),
        ("http://a.example.evil", "a.example", False),
        ("http://evil.a.example", "a.example", False),
        ("ftp://a.example", "a.example", False),
        ("chrome-extension://a.example", "a.example", False),
        ("null", "a.example", False),
        ("null", "", False),
        ("", "", False),
        ("http://", "", False),
        ("a.example", "a.example", False),
        ("http://[", "a.example", False),
        ("http://user@a.example", "a.example", False),
        ("https://listed.example", "a.example", True),
        ("https://listed.example.evil", "a.example", False),
        ("http://listed.example", "a.example", False),
    ],
)
def test_a_page_may_connect_to_its_own_server_or_where_it_is_listed(
    origin: str | None, host: str, *, is_allowed: bool
) -> None:
    headers = {"host": host} | ({} if origin is None else {"origin": origin})
    shaken = handshake(headers=headers)

    assert shaken.comes_from(("https://listed.example",)) is is_allowed
    assert shaken.is_browser is (origin is not None)


@given(st.text(st.characters(max_codepoint=255), max_size=30), st.text(st.characters(max_codepoint=255)))
def test_an_origin_of_any_kind_raises_nothing(origin: str, host: str) -> None:
    handshake(origin=origin, host=host).comes_from(())
    is_loopback_name(host)


@pytest.mark.parametrize(
    "host",
    ["localhost", "LocalHost:8000", "127.0.0.1", "127.0.0.1:8000", "127.1.2.3", "[::1]", "[::1]:8000"],
)
def test_names_of_this_machine(host: str) -> None:
    assert is_loopback_name(host)


@pytest.mark.parametrize(
    "host",
    [
        "",
        "a.example",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "127.evil.example",
        "128.0.0.1",
        "0.0.0.0",
        "10.0.0.1",
        "[::2]",
        "[::ffff:10.0.0.1]",
        "[",
        "notlocalhost",
    ],
)
def test_names_that_are_not_this_machine_s(host: str) -> None:
    """A page of another site can have its name resolve to 127.0.0.1; only the name gives it away."""
    assert not is_loopback_name(host)
