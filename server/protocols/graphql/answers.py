"""What is answered: results and errors as GraphQL has them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final, TypeAlias

import orjson
from graphql import ExecutionResult, GraphQLError

from unbroken.server.protocols.items import DecodeError

__all__ = [
    "MOST_ANSWER_BYTES",
    "ErrorFields",
    "Tell",
    "answer_bytes",
    "error_fields",
    "errors_answer",
    "result_fields",
]

MOST_ANSWER_BYTES: Final = 4 << 20
"""Of the answer to one operation. A few names may stand for the same conversation again and again."""

ErrorFields: TypeAlias = dict[str, Any]

Tell: TypeAlias = Callable[[Exception], ErrorFields]
"""Returns what an exception is to a client."""


def error_fields(
    code: str, message: str, *, param: str | None = None, retry_after: int | None = None
) -> ErrorFields:
    """Return an error that isn't about a place in a document."""
    extensions: dict[str, Any] = {"code": code}
    if param is not None:
        extensions["param"] = param
    if retry_after is not None:
        extensions["retryAfter"] = retry_after
    return {"message": message, "extensions": extensions}


def errors_answer(errors: Iterable[GraphQLError]) -> dict[str, Any]:
    """Return what is answered to a document that can't be executed."""
    return {"errors": [_invalid(each) for each in errors]}


def _invalid(error: GraphQLError) -> ErrorFields:
    fields: ErrorFields = {**error.formatted}
    fields["extensions"] = {"code": "invalid_document"}
    return fields


def result_fields(result: ExecutionResult, tell: Tell) -> dict[str, Any]:
    """Return what is answered to what was executed. *tell* says what an exception is to a client."""
    fields: dict[str, Any] = {"data": result.data}
    if result.errors:
        told: list[ErrorFields] = []
        for each in result.errors:
            placed: ErrorFields = {**each.formatted}
            placed.pop("extensions", None)
            if isinstance(
                each.original_error, GraphQLError | None
            ):  # the library's own: a value that can't be taken
                told.append({**placed, "extensions": {"code": "invalid_document"}})
            else:
                told.append({**placed, **tell(each.original_error)})
        fields["errors"] = told
    return fields


def answer_bytes(answer: dict[str, Any]) -> bytes:
    """Return an answer as JSON.

    Raises:
        DecodeError: It would be longer than an answer may be.

    """
    # What was executed only refers to texts that are there: they are copied here, so it is known before.
    if not _has_room(answer):
        raise _too_long()
    written = orjson.dumps(answer)
    if len(written) > MOST_ANSWER_BYTES:  # as some characters are longer there
        raise _too_long()
    return written


def _has_room(answer: dict[str, Any]) -> bool:
    """Whether *answer* may be short enough: as far as can be said without writing it."""
    size = 0
    left: list[Any] = [answer]
    while left:
        value = left.pop()
        if isinstance(value, dict):
            size += sum(map(len, value))
            left += value.values()
        elif isinstance(value, list | tuple):
            left += value
        size += len(value) if isinstance(value, str) else 1
        if size > MOST_ANSWER_BYTES:
            return False
    return True


def _too_long() -> DecodeError:
    message = (
        f"The answer would be longer than {MOST_ANSWER_BYTES} bytes. Ask for shorter pages, or fewer fields."
    )
    return DecodeError("document_too_complex", message)
