"""What a request says of how it is answered, where OpenAI's protocols say the same of it: bounds."""

from __future__ import annotations

from typing import Any, Final

import orjson

from unbroken.server.protocols.items import DecodeError
from unbroken.sessions.items import Parameters

__all__ = ["check_tokens", "metadata_of", "parameters_of"]

_MOST_TOKENS: Final = 2**31 - 1

_MOST_TEMPERATURE: Final = 2.0

_MOST_STOPS: Final = 4
_MOST_STOP: Final = 256
"""Characters of a text that ends an answer: it is looked for at each piece."""

_MOST_FORM_BYTES: Final = 48 * 1024
"""That a form may have, as JSON: as all tools together."""

_FORMS: Final = ("text", "json_object", "json_schema")


def parameters_of(
    *,
    temperature: float | None = None,
    top_p: float | None = None,
    stop: tuple[str, ...] = (),
    form: dict[str, Any] | None = None,
    form_param: str = "text.format",
) -> Parameters | None:
    """Return how words are to be chosen; None: nothing is said of that. *form* is in Responses' shape.

    Raises:
        DecodeError: It can't be so.

    """
    parameters = Parameters(
        temperature=_within(temperature, _MOST_TEMPERATURE, "temperature"),
        top_p=_within(top_p, 1.0, "top_p"),
        stop=_stop(stop),
        format=_form(form, form_param),
    )
    return None if parameters == Parameters() else parameters


def check_tokens(tokens: int | None, param: str) -> None:
    """Refuse a bound on an answer's tokens that is none.

    Raises:
        DecodeError: It is none.

    """
    if tokens is not None and not 1 <= tokens <= _MOST_TOKENS:
        message = f"`{param}` must be from 1 to {_MOST_TOKENS}."
        raise DecodeError("invalid_request", message, param=param)


def metadata_of(metadata: dict[str, str] | None) -> dict[str, str] | None:
    """Return what a client notes of a response; None: nothing.

    Raises:
        DecodeError: It is too much.

    """
    if metadata is not None and (
        len(metadata) > 16 or any(len(key) > 64 or len(value) > 512 for key, value in metadata.items())
    ):
        message = "`metadata` takes up to 16 pairs, keys of up to 64 and values of up to 512 characters."
        raise DecodeError("invalid_request", message, param="metadata")
    return metadata or None


def _within(value: float | None, most: float, param: str) -> float | None:
    if value is not None and not 0 <= value <= most:
        raise DecodeError("invalid_request", f"`{param}` must be from 0 to {most:g}.", param=param)
    return value


def _stop(stop: tuple[str, ...]) -> tuple[str, ...]:
    if len(stop) > _MOST_STOPS or not all(1 <= len(text) <= _MOST_STOP for text in stop):
        message = f"`stop` takes up to {_MOST_STOPS} texts of 1 to {_MOST_STOP} characters."
        raise DecodeError("invalid_request", message, param="stop")
    return stop


def _form(form: dict[str, Any] | None, param: str) -> dict[str, Any] | None:
    if form is None or form.get("type") == "text":
        return None
    kind = form.get("type")
    if kind not in _FORMS:
        message = f"`type` must be one of: {', '.join(_FORMS)}."
        raise DecodeError("invalid_request", message, param=f"{param}.type")
    if kind == "json_object":
        return {"type": kind}
    if not (isinstance(form.get("name"), str) and isinstance(form.get("schema"), dict)):
        message = "A JSON schema needs a `name`, a string, and a `schema`, an object."
        raise DecodeError("invalid_request", message, param=param)
    try:
        size = len(orjson.dumps(form))
    except (TypeError, ValueError):  # such as numbers that nobody could read again
        message = "It can't be written as JSON again."
        raise DecodeError("invalid_request", message, param=param) from None
    if size > _MOST_FORM_BYTES:
        message = f"It may have up to {_MOST_FORM_BYTES} bytes."
        raise DecodeError("invalid_request", message, param=param)
    return form
