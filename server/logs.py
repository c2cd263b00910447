"""What is logged, and how it looks.

Everything goes to standard error, one event per line: JSON when that is not a
terminal. Events of this program (structlog) and of its libraries (the standard
library's logging) take the same way, so that a line has one shape whoever
wrote it.

Two rules hold for every line. Secrets never appear. What users and models
write appears only where the operator has set ``log_content``. Exceptions count
as theirs: a message may quote anything, so that a traceback names types, files
and lines, and no messages but those that this program wrote.

Libraries are heard from WARNING up, whatever the level: below it uvicorn
prints query strings, which hold resume tokens, and the openai client prints
whole requests.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import sys
import textwrap
import traceback
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any, Final, TextIO

import orjson
import structlog

from unbroken.server.config import ConfigError, StartupError
from unbroken.sessions.errors import Refusal, ResponderError, SessionError

if TYPE_CHECKING:
    from structlog.typing import EventDict, Processor, WrappedLogger

    from unbroken.server.config import Settings

__all__ = ["ExceptionFormatter", "Redactor", "configure_logs"]

MASK: Final = "********"
_HANDLER: Final = "unbroken"
_QUIET: Final = (
    "uvicorn",
    "uvicorn.access",
    "uvicorn.asgi",
    "uvicorn.error",
    "websockets",
    "websockets.server",
)
_CAUSED_BY_CLIENTS: Final = frozenset(
    {
        "ASGI callable returned without completing handshake.",
        "Invalid UTF-8 sequence received from client.",
        "Invalid HTTP request received.",
        "Unsupported upgrade request.",
    }
)
"""What uvicorn logs whenever somebody is refused, or sends what is no text, no request or no handshake: as
many lines as anybody likes, which don't say who it was."""

_DEEPEST: Final = 6

# Characters of one string. Of a longer one its beginning, and its end from a
# line's start: a traceback's end says what failed.
_LONGEST: Final = 8192
_LONGEST_END: Final = 2048
_LONGEST_SECRET: Final = 512

# Of exceptions: how many in one chain or group, and groups within groups.
_LONGEST_CHAIN: Final = 16
_DEEPEST_GROUP: Final = 6

# Whose text is ours. Not those that quote what clients and agents name: their
# text is for the client.
_OUR_ERRORS: Final = (SessionError, ConfigError, StartupError)
_QUOTING_ERRORS: Final = (Refusal, ResponderError)

# A key is a secret when one of its words is one of these ("resume_token"), and
# content when its last word is ("final_text", but not "content_type").
_SECRET_WORD: Final = re.compile(
    "apikey|authorization|cookie|credentials?|keys?|password|resume|secrets?|tickets?|"
    "token"  # "tokens" are counted
)
_CONTENT_WORD: Final = re.compile(
    "arguments?|body|contents?|data|deltas?|frame|input|instructions|items?|messages?|output|payload|prompt|"
    "query|string|text|transcript"
)
# What this program itself writes in each line: times look like numbers of another kind.
_OURS: Final = frozenset({"timestamp", "level", "logger"})
_WORD: Final = re.compile(r"[A-Z]?[a-z0-9]+|[A-Z]+(?![a-z])")

# Secrets inside text: of a query string, a header, an API key by its look.
# Users can influence the text. No alternative reads a character more than a
# bounded number of times: none has a repetition before what it looks for, and
# "://" can't begin again inside its own.
_SECRET_TEXT: Final = re.compile(
    r"(?i)((?:resume|ticket|token|api[_-]?key|secret|password)=)[^&\s\"'<>]++"
    r"|(\bbearer\s++)[\w.~+/=-]{6,}+"
    r"|(\b(?:sk|ub|ek|tk)[-_])[\w-]{12,}+"
    r"|(\beyJ)[\w.-]{12,}+"
    r"|(://)[^/\s@]++(?=@)"
)


def configure_logs(
    settings: Settings, stream: TextIO | None = None, *, clean: Callable[[str], str] | None = None
) -> None:
    """Set up logging for the whole process. Calling it again replaces what was set up.

    Args:
        settings: ``log_level``, ``log_format`` and ``log_content`` are read.
        stream: Where lines go; standard error by default.
        clean: Takes out of text what no line has to hold, beside what this module knows: see
            :class:`~unbroken.server.guards.leaks.lines.LineFilter`.

    """
    target = sys.stderr if stream is None else stream
    level: int = logging.getLevelNamesMapping()[settings.log_level.upper()]
    is_console = settings.log_format == "console" or (settings.log_format == "auto" and target.isatty())

    # What both origins need, before the line is rendered.
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        # Through the standard library's handler, which holds a lock and
        # survives a closed pipe: a log line must not break a turn.
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(target)
    handler.set_name(_HANDLER)
    handler.setFormatter(
        _Formatter(
            show_content=settings.log_content,
            foreign_pre_chain=shared,
            processors=[
                ExceptionFormatter(show_messages=settings.log_content),
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                Redactor(show_content=settings.log_content, clean=clean),
                *_renderers(is_console=is_console, use_colors=is_console and target.isatty()),
            ],
        )
    )
    handler.addFilter(_is_wanted)
    root = logging.getLogger()
    for old in [found for found in root.handlers if found.get_name() == _HANDLER]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    logging.getLogger("unbroken").setLevel(level)
    for name in _QUIET:
        # Said explicitly: uvicorn looks at its own logger's level, not at the effective one.
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.captureWarnings(capture=True)


def _is_wanted(record: logging.LogRecord) -> bool:
    if record.name != "uvicorn.error":
        return True
    # Of what it cancels when the server stops it says how many there are, and then of each that it failed.
    is_cancelled = record.exc_info is not None and isinstance(record.exc_info[1], asyncio.CancelledError)
    return not is_cancelled and record.getMessage() not in _CAUSED_BY_CLIENTS


class _Formatter(structlog.stdlib.ProcessorFormatter):
    """structlog's, and hides the messages of exceptions among a message's arguments."""

    def __init__(self, *, show_content: bool, **options: Any) -> None:
        super().__init__(**options)
        self._show_content = show_content

    def format(self, record: logging.LogRecord) -> str:
        if not self._show_content and record.args:
            record = logging.makeLogRecord(record.__dict__)  # others format it too
            if isinstance(record.args, tuple):
                record.args = tuple(map(_without_message, record.args))
            elif record.args:
                record.args = {key: _without_message(value) for key, value in record.args.items()}
        return super().format(record)


class ExceptionFormatter:
    """A structlog processor that turns ``exc_info`` into a traceback in ``exception``.

    It shows types, files, lines and their code, of causes, contexts and groups
    too, and never locals. Messages and notes are shown if *show_messages*;
    otherwise those of this program's own exceptions alone.
    """

    def __init__(self, *, show_messages: bool) -> None:
        self._show_messages = show_messages

    def __call__(self, logger: WrappedLogger, method_name: str, event_dict: EventDict) -> EventDict:  # noqa: ARG002 - structlog's
        """Return the event with its exception, if it has one, as text."""
        given = event_dict.pop("exc_info", None)
        if isinstance(given, tuple):
            given = given[1]
        error = given if isinstance(given, BaseException) or not given else sys.exc_info()[1]
        if not isinstance(error, BaseException):
            return event_dict
        if self._show_messages:
            event_dict["exception"] = "".join(traceback.format_exception(error)).rstrip("\n")
            return event_dict
        event_dict["exception"] = "\n".join(_traceback(error))
        if not event_dict.get("_from_structlog", True):
            # Libraries quote it in their own message, asyncio below the first line.
            first = str(event_dict.get("event", "")).strip().partition("\n")[0]
            for each in _chain(error):
                first = first.replace(_safely(repr, each), _name(each))
            event_dict["event"] = first
        return event_dict


def _traceback(error: BaseException, depth: int = 0) -> Iterator[str]:
    """Yield the lines that Python prints for *error*, without the messages that aren't ours."""
    for each in reversed(_chain(error)):
        if each.__traceback__ is not None:
            yield "Traceback (most recent call last):"
            for frame in traceback.format_tb(each.__traceback__):
                yield from frame.splitlines()
        yield _described(each)
        if isinstance(each, BaseExceptionGroup):
            if depth >= _DEEPEST_GROUP:
                yield "  | ... deeper"
                continue
            for number, part in enumerate(each.exceptions[:_LONGEST_CHAIN], 1):
                yield f"  +---------------- {number} of {len(each.exceptions)} ----------------"
                yield textwrap.indent("\n".join(_traceback(part, depth + 1)), "  | ")
        if each is not error:
            yield "\nThen, from it or while it was handled:\n"


def _chain(error: BaseException) -> list[BaseException]:
    """Return *error* and what led to it, the last first."""
    found = [error]
    while len(found) < _LONGEST_CHAIN:
        last = found[-1]
        earlier = last.__cause__ or (None if last.__suppress_context__ else last.__context__)
        if earlier is None or any(earlier is each for each in found):
            break
        found.append(earlier)
    return found


def _described(error: BaseException) -> str:
    if isinstance(error, _OUR_ERRORS) and not isinstance(error, _QUOTING_ERRORS):
        message = _safely(str, error)
        return f"{_name(error)}: {message}" if message else _name(error)
    return _name(error)


def _name(error: BaseException) -> str:
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _without_message(value: object) -> object:
    return _described(value) if isinstance(value, BaseException) else value


def _safely(convert: Callable[[object], str], value: object) -> str:
    """Convert *value*, whose methods may be anybody's, to text."""
    try:
        return convert(value)
    except Exception:  # noqa: BLE001 - it is code that isn't ours, and a line must not break
        return f"<{type(value).__name__} that can't be shown>"


class Redactor:
    """A structlog processor that masks secrets always and content unless it was asked for.

    It goes by the names of keys, at any depth, and for secrets also by the look
    of text. Numbers and truth values pass: lengths and counts are no content.
    """

    def __init__(self, *, show_content: bool, clean: Callable[[str], str] | None = None) -> None:
        self._show_content = show_content
        self._clean = clean

    def __call__(self, logger: WrappedLogger, method_name: str, event_dict: EventDict) -> EventDict:  # noqa: ARG002 - structlog's
        """Return the event with what must not be shown masked."""
        return {key: self._value(key, value, 0) for key, value in event_dict.items()}

    def _value(self, key: object, value: object, depth: int) -> object:
        if value is None or isinstance(value, bool | int | float):
            return value
        words = [word.lower() for word in _WORD.findall(str(key)[:_LONGEST])]
        if any(map(_SECRET_WORD.fullmatch, words)):
            return MASK
        if not self._show_content and words and _CONTENT_WORD.fullmatch(words[-1]):
            return f"[{len(value)} characters]" if isinstance(value, str) else "[hidden]"
        if isinstance(value, str):
            return value if key in _OURS else self._masked(value)
        if depth >= _DEEPEST:
            return "[deeper]"
        if isinstance(value, Mapping):
            return {self._masked(str(k)): self._value(k, v, depth + 1) for k, v in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            return [self._value(key, part, depth + 1) for part in value]
        if isinstance(value, BaseException) and not self._show_content:
            return self._masked(_described(value))
        return self._masked(_safely(repr, value))

    def _masked(self, text: str) -> str:
        masked = _masked(text)
        return masked if self._clean is None else self._clean(masked)


def _masked(text: str) -> str:
    return _SECRET_TEXT.sub(lambda found: next(filter(None, found.groups())) + MASK, _clipped(text))


def _clipped(text: str) -> str:
    """Return *text*, or the beginning and the last lines of one that is too long.

    Cut where no secret is cut in two: half of one doesn't look like a secret.
    """
    if len(text) <= _LONGEST:
        return text
    head = text[: _LONGEST - _LONGEST_END]
    space = max(map(head.rfind, " \n\t"), default=-1)
    head = head[: max(space, len(head) - _LONGEST_SECRET)]
    tail = text[-_LONGEST_END:].partition("\n")[2]
    return f"{head} [{len(text) - len(head) - len(tail)} characters clipped] {tail}".rstrip()


def _renderers(*, is_console: bool, use_colors: bool) -> list[Processor]:
    if is_console:
        # Its own default for exceptions shows locals.
        plain = structlog.dev.plain_traceback
        return [structlog.dev.ConsoleRenderer(colors=use_colors, exception_formatter=plain)]
    return [structlog.processors.JSONRenderer(serializer=_json)]


def _json(event: MutableMapping[str, Any], **_options: object) -> str:
    try:
        return orjson.dumps(event, default=repr).decode()
    except TypeError:
        # Huge integers and lone surrogates, which orjson refuses. A line that
        # can't be written would be the one that is needed.
        return json.dumps(event, default=repr)
