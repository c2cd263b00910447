"""What the maker of a short-lived key has settled: read as this protocol says it, and held against events."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any, Final

import msgspec
from msgspec import UNSET, Raw, Struct
from msgspec.structs import asdict

from unbroken.server.auth.pins import Pins
from unbroken.server.protocols.body import decoded
from unbroken.server.protocols.items import DecodeError
from unbroken.server.protocols.realtime.decode import update_of
from unbroken.server.protocols.realtime.frames import ClientEvent, SessionParam, SessionUpdate
from unbroken.server.web_origins import origin_fault
from unbroken.sessions.entries import Command, CreateResponse
from unbroken.sessions.items import SessionConfig

__all__ = ["SecretRequest", "check_pins", "decode_secret_request", "pins_of"]

_MOST_BYTES: Final = 32 * 1024
"""Of what is settled, as JSON: it is kept with each key, for as long as its session may be come back to."""

_MESSAGE: Final = (
    "Whoever made your short-lived key has settled this for its sessions. "
    "Leave the field out, or have the key made otherwise."
)

_WIDER: Final = (
    "Somebody with another key has made the session wider than your short-lived key allows. "
    "Set it back by `session.update`, or begin a session of your own."
)


def check_pins(pins: Pins, event: ClientEvent, command: Command, config: SessionConfig) -> None:
    """Refuse an *event*, which is a *command*, that would change what is settled of a session with *config*.

    And one that asks for a response, where others have made the session wider than that.

    Raises:
        DecodeError: It would.

    """
    field = pins.violation(command)
    if (
        pins.model is not UNSET
        and isinstance(event, SessionUpdate)
        and event.session.model not in (UNSET, None, "default", config.model, pins.model)
    ):
        field = "session.model"
    if field is not None:
        raise DecodeError("session_pinned", _MESSAGE, param=field, event_id=event.event_id)
    if isinstance(command, CreateResponse) and not pins.allows(config):
        raise DecodeError("session_pinned", _WIDER, event_id=event.event_id)


class _ExpiresAfter(Struct, frozen=True):
    anchor: str = "created_at"
    seconds: int | None = None


class _Extension(Struct, frozen=True):
    user: str | None = None
    plan: str | None = None
    origin: str | None = None
    max_uses: int | None = None


class _Unread(Struct, frozen=True):
    unbroken: dict[str, Raw] | None = None


class SecretRequest(Struct, frozen=True):
    """What is asked of ``POST /v1/realtime/client_secrets``, in OpenAI's shape."""

    expires_after: _ExpiresAfter | None = None
    session: SessionParam | None = None
    unbroken: _Extension | None = None

    @property
    def seconds(self) -> int | None:
        """After how many seconds the key is to expire; None: unsaid."""
        return None if self.expires_after is None else self.expires_after.seconds

    @property
    def extension(self) -> _Extension:
        """What this server adds."""
        return self.unbroken or _Extension()


_REQUEST: Final = msgspec.json.Decoder(SecretRequest)
_UNREAD: Final = msgspec.json.Decoder(_Unread)
_MOST_DEPTH: Final = 32


def decode_secret_request(data: bytes) -> SecretRequest:
    """Return what the body of a request asks for. An empty one asks for a key without anything settled.

    Raises:
        DecodeError: It makes no sense.

    """
    request = decoded(data or b"{}", _REQUEST, max_depth=_MOST_DEPTH)
    named = decoded(data or b"{}", _UNREAD, max_depth=_MOST_DEPTH).unbroken or {}
    _check_names(named)
    after, extension = request.expires_after, request.extension
    if after is not None and after.anchor != "created_at":
        message = "`anchor` must be `created_at`."
        raise DecodeError("invalid_request", message, param="expires_after.anchor")
    if after is not None and after.seconds is not None and not 10 <= after.seconds <= 7200:
        message = "`seconds` must be from 10 to 7200."
        raise DecodeError("invalid_request", message, param="expires_after.seconds")
    if extension.user is not None and not (0 < len(extension.user) <= 256 and extension.user.isprintable()):
        message = "`user` must be up to 256 printable characters."
        raise DecodeError("invalid_request", message, param="unbroken.user")
    origin = extension.origin
    fault = None if origin is None else "is too long" if len(origin) > 256 else origin_fault(origin)
    if fault is not None:
        message = f"`origin` {fault}. Browsers send nothing else, so that no page could use the key."
        raise DecodeError("invalid_request", message, param="unbroken.origin")
    if extension.max_uses is not None and not 1 <= extension.max_uses <= 100:
        message = "`max_uses` must be from 1 to 100."
        raise DecodeError("invalid_request", message, param="unbroken.max_uses")
    return request


def _check_names(named: Iterable[str]) -> None:
    """Refuse what isn't a field of ours: who misspells one would have a wider key than they asked for.

    Beside these anything may stand, as in OpenAI's: clients of later versions send more.
    """
    known = _Extension.__struct_fields__
    for name in named:
        if name not in known:
            close = difflib.get_close_matches(name[:64], known, n=1, cutoff=0.6)
            meant = f"Did you mean `{close[0]}`?" if close else f"There are: {', '.join(known)}."
            message = f"`unbroken` has no field {name[:64]!r}. {meant}"
            raise DecodeError("invalid_request", message, param=f"unbroken.{name[:64]}")


def pins_of(session: SessionParam | None, *, most_tokens: int | None) -> Pins:
    """Return what *session* settles: every field that it has.

    Raises:
        DecodeError: A field is none that a session can have, or all together are too long to be kept.

    """
    if session is None:
        return Pins()
    settled: dict[str, Any] = asdict(update_of(session, most_tokens))
    del settled["metadata"]  # clients' notes settle nothing
    if settled["max_output_tokens"] is None:
        settled["max_output_tokens"] = UNSET  # "inf" settles nothing
    pins = Pins(model=UNSET if session.model is None else session.model, **settled)
    if (size := len(msgspec.json.encode(pins))) > _MOST_BYTES:
        message = (
            f"What is settled of sessions may have up to {_MOST_BYTES >> 10} KiB, and this has {size >> 10}. "
            "Shorten its instructions or tools."
        )
        raise DecodeError("invalid_request", message, param="session")
    return pins
