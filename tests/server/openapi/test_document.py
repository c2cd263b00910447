"""The document says what there is: neither more nor less, on whatever terms."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
from jsonschema import Draft202012Validator
from starlette.routing import Route

from tests.server.openapi.answers import pattern_of, usual_document, written
from tests.server.realtime.serving import Served, serving
from unbroken.server.agents.scripted import ScriptedAgent
from unbroken.server.config import Settings
from unbroken.server.errors import ERROR_MEANINGS
from unbroken.server.openapi.selection import described
from unbroken.server.openapi.terms import Terms
from unbroken.server.protocols import file_objects, items, parameters
from unbroken.server.protocols.chat import messages as chat_messages
from unbroken.server.protocols.responses import decode as responses_decode
from unbroken.server.protocols.ui import decode as ui_decode
from unbroken.server.transports import item_pages, query, session_events, usage
from unbroken.server.transports.asking import _STATUS
from unbroken.server.transports.files import _STATUSES

WHOLE: Final = usual_document(has_files=True, has_quotas=True, has_archive=True, has_graphql=True)
QUOTAS: Final = '{"default": {"requests_per_day": 1000}}'
ALLOWED_ANYWAY: Final = {"HEAD", "OPTIONS"}
"""What takes GET takes HEAD, and every path that a door is behind OPTIONS: the document says so once."""


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield path, method, operation


def addresses(path: str, operation: dict[str, Any]) -> Iterator[str]:
    """Yield what a path stands for, where that is a list; else the path with something in it."""
    named = [each for each in operation.get("parameters", ()) if each["in"] == "path"]
    if not named:
        yield path
    for each in named:
        for value in each["schema"].get("enum", ["some-x"]):
            yield path.replace(f"{{{each['name']}}}", value)


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for each in value.values():
            yield from references(each)
    elif isinstance(value, list):
        for each in value:
            yield from references(each)


def test_it_is_openapi() -> None:
    """Every schema in it is one, every reference leads somewhere, and every name is there once."""
    assert WHOLE["openapi"].startswith("3.1.")
    names = [operation["operationId"] for _, _, operation in operations(WHOLE)]
    assert len(names) == len(set(names))
    for schema in WHOLE["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)
    for path, _, operation in operations(WHOLE):
        parameters = {each["name"] for each in operation.get("parameters", ()) if each["in"] == "path"}
        assert parameters == {part[1:-1] for part in path.split("/") if part.startswith("{")}
        for answer in operation["responses"].values():
            assert answer["description"]
            for content in answer.get("content", {}).values():
                Draft202012Validator.check_schema(content["schema"])
    for reference in set(references(WHOLE)):
        place: Any = WHOLE
        for part in reference.removeprefix("#/").split("/"):
            place = place[part]


def test_it_is_what_the_specification_calls_a_document() -> None:
    """By the meta-schema of OpenAPI 3.1, with every door and with as few as there can be."""
    from schemathesis.specs.openapi.definitions import OPENAPI_31_VALIDATOR

    for document in (WHOLE, written(Settings(), has_files=False)):
        assert [error.message for error in OPENAPI_31_VALIDATOR.iter_errors(document)] == []
    assert not OPENAPI_31_VALIDATOR.is_valid({**WHOLE, "info": {"title": "Unbroken"}})


def test_every_schema_is_referred_to() -> None:
    known = {f"#/components/schemas/{name}" for name in WHOLE["components"]["schemas"]}

    assert known == {each for each in references(WHOLE) if "/schemas/" in each}


def test_no_two_doors_say_the_same_twice() -> None:
    terms = Terms(settings=Settings(), has_files=True, has_quotas=True)
    said = [(each.method, each.path) for each in described(terms, ["/"]).operations]

    assert len(said) == len(set(said))


def test_what_balancers_go_by_may_be_said_at_every_path() -> None:
    for path, method, operation in operations(WHOLE):
        fields = {each["name"] for each in operation["parameters"] if each["in"] == "query"}
        assert fields >= query._OF_BALANCERS, f"{method} {path}"


async def allowed(client: httpx.AsyncClient, address: str) -> set[str] | None:
    """Return which methods a path takes, as it says itself; None: there is nothing."""
    response = await client.request("TRACE", address)
    if response.status_code == 404:
        return None
    assert response.status_code == 405, f"{address}: {response.status_code}"
    return {each.strip() for each in response.headers["allow"].split(",")}


@pytest.fixture
async def server(tmp_path: Path) -> Any:
    archive_url = f"sqlite:///{tmp_path / 'archive.db'}"
    async with serving(
        ScriptedAgent(),
        files="memory",
        quotas=QUOTAS,
        openapi=True,
        archive_url=archive_url,
        graphql=True,
    ) as served:
        yield served


def client_of(served: Served[Any]) -> httpx.AsyncClient:
    headers = {"authorization": "Bearer alice"}
    return httpx.AsyncClient(base_url=f"http://127.0.0.1:{served.port}", headers=headers)


@pytest.mark.whole
async def test_whatever_it_has_is_there(server: Served[Any]) -> None:
    """Each path takes the methods that the document says, and no others."""
    async with client_of(server) as client:
        document = (await client.get("/openapi.json")).json()
        assert document == json.loads(json.dumps(document))
        for path, methods in document["paths"].items():
            wanted = {name.upper() for name in methods}
            for address in addresses(path, next(iter(methods.values()))):
                assert ((await allowed(client, address)) or set()) - ALLOWED_ANYWAY == wanted, address


@pytest.mark.whole
async def test_whatever_is_there_it_has(server: Served[Any]) -> None:
    """Who adds a route describes it: in a module of server/openapi/, which selection.py names."""
    async with client_of(server) as client:
        document = (await client.get("/openapi.json")).json()
        patterns = [pattern_of(path) for path in document["paths"]]
        application: Any = server.app.asgi
        routes: list[Route] = application._others._app.routes
        assert len(routes) > len(patterns)
        for route in routes:
            address = route.path.replace(":path", "").format(
                **dict.fromkeys(route.param_convertors, "some-x")
            )
            if not any(pattern.fullmatch(address) for pattern in patterns):
                assert await allowed(client, address) is None, f"{route.path} isn't documented"
    sockets = {path for path, _, operation in operations(document) if "101" in operation["responses"]}
    assert sockets == set(server.app._doors.websockets())


def test_doors_that_are_off_are_left_out() -> None:
    without = written(Settings(), has_files=False, has_quotas=False)

    assert set(WHOLE["paths"]) - set(without["paths"]) == {
        "/v1/files",
        "/v1/files/{file_id}",
        "/v1/files/{file_id}/content",
        "/v1/usage",
        "/v1/archive/sessions",
        "/v1/archive/sessions/{session_id}",
        "/graphql",
    }
    assert not any("x-ratelimit" in text for text in json.dumps(without).split('"'))


def codes_with(operation: dict[str, Any]) -> dict[int, set[str]]:
    found: dict[int, set[str]] = {}
    for status, answer in operation["responses"].items():
        schema = answer.get("content", {}).get("application/json", {}).get("schema", {})
        for each in schema.get("allOf", [])[1:]:
            found[int(status)] = set(each["properties"]["error"]["properties"]["code"]["enum"])
    return found


def test_every_code_in_it_has_a_meaning() -> None:
    told = [codes_with(operation) for _, _, operation in operations(WHOLE)]
    codes = {code for each in told for codes in each.values() for code in codes}

    assert codes <= set(ERROR_MEANINGS)
    assert all(f"`{code}`" in json.dumps(WHOLE["components"]["schemas"]["Error"]) for code in codes)


def test_codes_come_with_the_status_that_the_doors_give_them() -> None:
    asking = codes_with(WHOLE["paths"]["/v1/responses"]["post"])
    files = [codes_with(each) for path, _, each in operations(WHOLE) if path.startswith("/v1/files")]

    for code, status in _STATUS.items():
        assert code in asking[status], f"{code} comes with {status}"
    for code, status in _STATUSES.items():
        assert any(code in each.get(status, ()) for each in files), f"{code} comes with {status}"


def test_where_strangers_get_keys_none_is_asked_for() -> None:
    asked = {
        anonymous: written(Settings(anonymous=anonymous))["paths"]["/v1/realtime/client_secrets"]["post"]
        for anonymous in (False, True)
    }

    assert asked[False]["security"] == [{"key": []}]
    assert asked[True]["security"] == [{"key": []}, {}]


def test_bounds_are_those_of_the_settings() -> None:
    said = written(Settings(max_body_bytes=4096, max_frame_depth=7, max_file_bytes=5000))

    for path in ("/v1/responses", "/v1/chat/completions", "/v1/ui/chat"):
        assert "4096 bytes, 7 levels" in said["paths"][path]["post"]["requestBody"]["description"]
    assert "5000 bytes" in json.dumps(said["paths"]["/v1/files"]["post"]["requestBody"])


def test_bounds_are_those_of_the_decoders() -> None:
    """Those that are numbers there; all of them are tried out by what schemathesis draws."""
    schemas = WHOLE["components"]["schemas"]
    fields = {name: schema.get("properties", {}) for name, schema in schemas.items()}

    assert fields["ResponsesCreate"]["input"]["maxItems"] == responses_decode._MOST_INPUT
    assert fields["ChatCompletion"]["messages"]["maxItems"] == chat_messages._MOST_MESSAGES
    assert fields["UiChat"]["messages"]["maxItems"] == ui_decode._MOST_MESSAGES
    for name, field in (("ResponsesCreate", "tools"), ("ChatCompletion", "tools"), ("UiExtension", "tools")):
        assert fields[name][field]["maxItems"] == items._MOST_TOOLS
    for name, field in (("ResponsesCreate", "max_output_tokens"), ("ChatCompletion", "max_tokens")):
        assert fields[name][field]["maximum"] == parameters._MOST_TOKENS
    stop = fields["ChatCompletion"]["stop"]
    assert (stop["maxItems"], stop["maxLength"]) == (parameters._MOST_STOPS, parameters._MOST_STOP)
    limits = {
        path: next(
            each["schema"] for each in WHOLE["paths"][path]["get"]["parameters"] if each["name"] == name
        )["maximum"]
        for path, name in (
            ("/v1/usage", "limit"),
            ("/v1/files", "limit"),
            ("/v1/responses/{response_id}/input_items", "limit"),
            ("/v1/sessions/{session_id}/events", "wait"),
        )
    }
    assert list(limits.values()) == [
        usage._MOST_RECORDS,
        file_objects._MOST_LISTED,
        item_pages._MOST,
        session_events._LONGEST_WAIT,
    ]
