"""What a client might send, right and wrong: events, events with something changed, and bytes."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

__all__ = ["Grammar"]

_STRINGS: Final = (
    "",
    " ",
    "root",
    "inf",
    "none",
    "auto",
    "default",
    "realtime",
    "null",
    "\x00",
    "\x7f\u0085\u2028\ufeff",
    "\ud800",
    "\udc00\ud800",
    "😀👩‍🚀e\u0301",
    "\u202eabc",
    '"\\/\b\f\n\r\t',
    "x" * 129,
    "y" * 5000,
    "../../etc/passwd",
    "<script>",
    "{}",
    "item_",
    "resp_",
    "event_0a0a0a0a.1.64.0",
)
_NUMBERS: Final = (0, -1, 1, 4096, 2**31 - 1, 2**31, 2**53 + 1, 2**63, 2**64, 10**400, 0.5, -0.0, 1e308)
_KEYS: Final = (
    *("type", "event_id", "item", "session", "response", "item_id", "previous_item_id", "unbroken"),
    *("id", "role", "content", "text", "audio", "tools", "metadata", "input", "conversation", "instructions"),
    *("message_id", "concurrency", "max_output_tokens", "call_id", "arguments", "output", "name", "status"),
)
_FRAGMENTS: Final = (
    *(b"{", b"}", b"[", b"]", b'"', b",", b":", b"\\", b"\\u", b"\\ud800", b"\\u0000", b"null", b"true"),
    *(b"1e999", b"-0", b"NaN", b"-Infinity", b"0x1", b"01", b"1E400", b"9" * 50, b"/**/", b" ", b"\n"),
    *(b"\x00", b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xef\xbb\xbf", b"[" * 40),
    *(b'{"type":"response.create"}', b'"type":"session.update",', b'"event_id":7,', b'{"a":' * 40),
)

Event = dict[str, Any]


class Grammar:
    """Draws what is sent. The same *chance* draws the same.

    Attributes:
        ids: Names that the client has seen or made up; they are used again.
        mark: A word that is in much of the text.

    """

    def __init__(self, chance: random.Random, mark: str) -> None:
        self.chance = chance
        self.mark = mark
        self.ids = ["root", "gone"]

    def event(self) -> Event:
        """Draw an event that is right, as far as one can tell without knowing the session."""
        event = self.chance.choice(_EVENTS)(self)
        if self.chance.random() < 0.3:
            event["event_id"] = self.chance.choice(("e1", "e2", self.name()))
        if self.chance.random() < 0.1:
            event["unbroken"] = {"message_id": self.name()}
        return event

    def changed(self) -> Any:
        """Draw an event in which up to four things are replaced, removed, added or doubled."""
        event: Any = copy.deepcopy(self.event())
        for _ in range(self.chance.randint(1, 4)):
            places = list(_places(event))
            if not places:
                break
            holder, key = self.chance.choice(places)
            match self.chance.randrange(4):
                case 0:
                    holder[key] = self.junk()
                case 1:
                    del holder[key]
                case 2 if isinstance(holder, dict):
                    holder[self.chance.choice((*_KEYS, self.string()))] = self.junk()
                case _ if isinstance(holder, list):
                    holder.insert(key, copy.deepcopy(holder[key]))
        return event if self.chance.random() < 0.97 else self.junk()

    def text(self, event: object) -> str:
        """Write *event* as JSON, in one of the ways that mean the same."""
        separators = self.chance.choice(((",", ":"), (", ", ": "), (" ,\n", "\t:\r\n ")))
        return json.dumps(event, ensure_ascii=self.chance.random() < 0.5, separators=separators)

    def damaged(self) -> bytes:
        """Draw the bytes of an event, cut, repeated, spliced or written over in places."""
        data = bytearray(self.text(self.event()).encode("utf-8", "surrogatepass"))
        for _ in range(self.chance.randint(1, 6)):
            start = self.chance.randrange(len(data) + 1)
            end = min(len(data), start + self.chance.choice((0, 1, 1, 2, 8, 64)))
            match self.chance.randrange(4):
                case 0:
                    data[start:end] = self.chance.choice(_FRAGMENTS)
                case 1:
                    data[start:end] = b""
                case 2:
                    data[start:start] = data[start:end] * self.chance.randint(1, 3)
                case _:
                    data[start:end] = self.chance.randbytes(end - start)
        return bytes(data)

    def noise(self) -> bytes:
        """Draw bytes that were never an event."""
        if self.chance.random() < 0.5:
            return self.chance.randbytes(self.chance.randrange(200))
        return b"".join(self.chance.choices(_FRAGMENTS, k=self.chance.randrange(30)))

    def junk(self, depth: int = 3) -> Any:
        """Draw a value that JSON has, and that has no business to be where it is put."""
        kind = self.chance.randrange(9 if depth else 6)
        if kind < 2:
            return self.string()
        if kind < 4:
            return self.chance.choice(_NUMBERS)
        if kind < 6:
            return self.chance.choice((None, True, False))
        size = self.chance.randrange(4)
        if kind == 6:
            return [self.junk(depth - 1) for _ in range(size)]
        if kind == 7:
            return {self.chance.choice(_KEYS): self.junk(depth - 1) for _ in range(size)}
        nested: Any = self.string()
        for _ in range(self.chance.randrange(50)):
            nested = [nested] if self.chance.random() < 0.5 else {"x": nested}
        return nested

    def string(self) -> str:
        return self.chance.choice((*_STRINGS, self.mark, self.name()))

    def name(self) -> str:
        """Draw a name that is in use, or make one up."""
        if self.chance.random() < 0.7:
            return self.chance.choice(self.ids)
        made = f"own-{self.chance.randrange(10**6)}"
        self.ids[2:] = [*self.ids[-60:], made]
        return made

    def words(self) -> str:
        return f"{self.mark} {self.chance.choice((*_STRINGS, 'hello', 'how are you?'))}"

    def maybe(self, **fields: Any) -> Event:
        """Return some of the fields."""
        return {name: value for name, value in fields.items() if self.chance.random() < 0.4}


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(value, (dict, list)):
        for key in list(value) if isinstance(value, dict) else range(len(value)):
            yield value, key
            yield from _places(value[key])


# The events, one function for each kind.


def _session_update(grammar: Grammar) -> Event:
    chance = grammar.chance
    session = grammar.maybe(
        instructions=grammar.words(),
        max_output_tokens=chance.choice((1, 4096, "inf")),
        unbroken={"concurrency": chance.choice(("reject", "queue", "interrupt", "merge"))},
        output_modalities=[chance.choice(("text", "audio"))],
        tools=[{"type": "function", "name": "f", "parameters": {"type": "object"}}],
        tool_choice="auto",
        audio={"input": {"turn_detection": None}},
        tracing="auto",
    )
    return {"type": "session.update", "session": {"type": "realtime", **session}}


def _item(grammar: Grammar) -> Event:
    role, kind = grammar.chance.choice(
        (
            ("user", "input_text"),
            ("user", "input_text"),
            ("system", "input_text"),
            ("assistant", "output_text"),
        )
    )
    parts = [{"type": kind, "text": grammar.words()} for _ in range(grammar.chance.choice((1, 1, 1, 2, 3)))]
    return {"type": "message", "role": role, "content": parts, **grammar.maybe(id=grammar.name())}


def _other_item(grammar: Grammar) -> Event:
    name = grammar.name()
    return grammar.chance.choice(
        (
            {"type": "function_call_output", "call_id": name, "output": grammar.words()},
            {"type": "function_call", "call_id": name, "name": "f", "arguments": "{}"},
            {"type": "item_reference", "id": name},
            {"type": "message", "role": "user", "content": [{"type": "input_audio", "audio": "AAAA"}]},
            {"type": "message", "role": "user", "content": [{"type": "input_image", "image_url": "data:,"}]},
            {"type": "message", "role": "user", "content": [{"type": "input_file", "file_id": name}]},
            {
                "type": "message",
                "role": "user",
                "content": [{"type": "input_image", "image_url": f"file-{name}"}],
            },
        )
    )


def _item_create(grammar: Grammar) -> Event:
    item = _item(grammar) if grammar.chance.random() < 0.9 else _other_item(grammar)
    return {
        "type": "conversation.item.create",
        "item": item,
        **grammar.maybe(previous_item_id=grammar.name()),
    }


def _response_create(grammar: Grammar) -> Event:
    chance = grammar.chance
    items = [chance.choice((_item, _other_item))(grammar) for _ in range(chance.randrange(4))]
    response = grammar.maybe(
        conversation=chance.choice(("auto", "none")),
        instructions=grammar.words(),
        max_output_tokens=chance.choice((1, 100, "inf")),
        metadata={"k": grammar.words()[:512]},
        input=items,
        output_modalities=["text"],
        tools=[],
    )
    return {"type": "response.create", **grammar.maybe(response=response)}


def _named(kind: str, field: str) -> Callable[[Grammar], Event]:
    return lambda grammar: {"type": kind, field: grammar.name()}


def _cancel(grammar: Grammar) -> Event:
    return {"type": "response.cancel", **grammar.maybe(response_id=grammar.name())}


def _truncate(grammar: Grammar) -> Event:
    place = {"item_id": grammar.name(), "content_index": 0, "audio_end_ms": 10}
    return {"type": "conversation.item.truncate", **place}


def _unsupported(grammar: Grammar) -> Event:
    kinds = ("append", "commit", "clear")
    event = {"type": f"input_audio_buffer.{grammar.chance.choice(kinds)}", "audio": "AAAA"}
    other = {"type": grammar.chance.choice(("output_audio_buffer.clear", "session.created", "x"))}
    return grammar.chance.choice((event, other))


_EVENTS: Final[Sequence[Callable[[Grammar], Event]]] = (
    *(3 * (_item_create,)),
    *(3 * (_response_create,)),
    _session_update,
    _named("conversation.item.retrieve", "item_id"),
    _named("conversation.item.delete", "item_id"),
    _cancel,
    _truncate,
    _unsupported,
)
