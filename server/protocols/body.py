"""From the body of a request to the structure that it is said to be."""

from __future__ import annotations

import re
from typing import Final, TypeVar

import msgspec

from unbroken.server.protocols.items import DecodeError
from unbroken.server.protocols.nesting import too_deep

__all__ = ["decoded"]

_MOST_WORDS: Final = 200

_PATH: Final = re.compile(r"^(?P<what>.*?)(?: - at `\$\.?(?P<path>[^`]*)`)?$", re.DOTALL)

_T = TypeVar("_T")


def decoded(data: bytes, decoder: msgspec.json.Decoder[_T], *, max_depth: int) -> _T:
    """Return what a body holds.

    Raises:
        DecodeError: It holds nothing of the kind.

    """
    if (why := too_deep(data, max_depth, "The body")) is not None:
        raise DecodeError("invalid_json", why)
    try:
        return decoder.decode(data)
    except msgspec.ValidationError as exc:
        match = _PATH.match(str(exc))
        what, path = (match["what"], match["path"]) if match else (str(exc), None)
        if len(what) > _MOST_WORDS:  # it quotes a value, which may be as long as the body
            what = f"{what[:_MOST_WORDS]}.."
        raise DecodeError("invalid_request", f"{what}.", param=path or None) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise DecodeError("invalid_json", "The body isn't valid JSON.") from None
