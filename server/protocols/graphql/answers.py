"""What is answered: results and errors as GraphQL has them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

from graphql import ExecutionResult, GraphQLError

__all__ = ["ErrorFields", "Tell", "error_fields", "errors_answer", "result_fields"]

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
