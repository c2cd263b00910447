from __future__ import annotations

from typing import Any

import pytest
from openai.types import FileObject

from unbroken.server.files.base import FileId, StoredFile
from unbroken.server.protocols.file_objects import (
    BadRequest,
    file_fields,
    lifetime_of,
    page_fields,
    purpose_of,
)
from unbroken.sessions.ids import PrincipalId


def file(number: int, purpose: str = "vision") -> StoredFile:
    return StoredFile(
        id=FileId(f"file-{number}"),
        principal=PrincipalId("alice"),
        name="a.png",
        media_type="image/png",
        bytes=70,
        purpose=purpose,
        created_at=1000.7,
        expires_at=4600.7,
    )


FILES = [file(number, "vision" if number % 2 else "user_data") for number in range(5)]


def ids(page: dict[str, Any]) -> list[str]:
    return [each["id"].removeprefix("file-") for each in page["data"]]


def test_a_file_is_shown_as_the_sdk_knows_it_and_the_principal_is_not() -> None:
    shown = FileObject.model_validate(file_fields(file(1)), strict=True)

    assert (shown.id, shown.bytes, shown.created_at, shown.expires_at) == ("file-1", 70, 1000, 4600)
    assert "alice" not in str(file_fields(file(1)))


@pytest.mark.parametrize(
    ("query", "expected", "has_more"),
    [
        ({}, "43210", False),
        ({"order": "asc"}, "01234", False),
        ({"limit": "2"}, "43", True),
        ({"limit": "2", "after": "file-3"}, "21", True),
        ({"limit": "2", "after": "file-2"}, "10", False),
        ({"after": "file-0"}, "", False),
        ({"purpose": "vision"}, "31", False),
        ({"purpose": "batch"}, "", False),
    ],
)
def test_lists_come_in_pages(query: dict[str, str], expected: str, has_more: bool) -> None:
    page = page_fields(FILES, query)

    assert ("".join(ids(page)), page["has_more"]) == (expected, has_more)
    assert ("last_id" in page) == bool(expected)


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ({"order": "up"}, "order"),
        ({"limit": "0"}, "limit"),
        ({"limit": "10001"}, "limit"),
        ({"limit": "x"}, "limit"),
        ({"limit": "1.5"}, "limit"),
        ({"limit": "9" * 5000}, "limit"),
        ({"after": "file-9"}, "after"),
    ],
)
def test_a_page_that_cannot_be_is_refused(query: dict[str, str], param: str) -> None:
    with pytest.raises(BadRequest) as caught:
        page_fields(FILES, query)

    assert caught.value.param == param


@pytest.mark.parametrize(
    ("fields", "seconds"),
    [
        ({}, 86400.0),
        ({"expires_after[anchor]": "created_at", "expires_after[seconds]": "3600"}, 3600.0),
        ({"expires_after": '{"anchor": "created_at", "seconds": 7200}'}, 7200.0),
        ({"expires_after[anchor]": "created_at", "expires_after[seconds]": "2592000"}, 86400.0),
    ],
)
def test_a_client_may_have_its_file_for_less_and_not_for_more(fields: dict[str, str], seconds: float) -> None:
    assert lifetime_of(fields, 86400.0) == seconds


@pytest.mark.parametrize(
    "fields",
    [
        {"expires_after[seconds]": "3600"},
        {"expires_after[anchor]": "now", "expires_after[seconds]": "3600"},
        {"expires_after[anchor]": "created_at"},
        {"expires_after[anchor]": "created_at", "expires_after[seconds]": "3599"},
        {"expires_after[anchor]": "created_at", "expires_after[seconds]": "2592001"},
        {"expires_after[anchor]": "created_at", "expires_after[seconds]": "nan"},
        {"expires_after": "3600"},
        {"expires_after": "{"},
        {"expires_after": "[" * 4000},
    ],
)
def test_an_expiry_that_is_not_the_apis_is_refused(fields: dict[str, str]) -> None:
    with pytest.raises(BadRequest):
        lifetime_of(fields, 86400.0)


def test_a_purpose_is_one_of_those_for_models() -> None:
    assert purpose_of({"purpose": "user_data"}) == "user_data"
    for fields in ({}, {"purpose": "fine-tune"}):
        with pytest.raises(BadRequest, match="user_data, vision, assistants"):
            purpose_of(fields)
