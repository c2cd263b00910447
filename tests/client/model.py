"""The server as docs/protocol.md has it: one session, without sockets, and with faults on demand.

What it knows is :class:`State`, which can be copied, and so lost. Frames that were sent lie in a
:class:`Wire` until a test delivers them.
"""

from __future__ import annotations

import copy
import itertools
import json
from dataclasses import dataclass, field
from typing import Any, Final

__all__ = ["Reply", "Server", "State", "Wire"]

Frame = dict[str, Any]

PASSING: Final = ("server_overloaded", "store_unavailable", "input_queue_full", "response_queue_full")


@dataclass
class Reply:
    """A response that runs."""

    id: str
    metadata: Frame
    items: list[Frame] = field(default_factory=list)
    """The messages that it has begun, which are in the conversation too."""
    is_stopping: bool = False


@dataclass
class State:
    """What the server knows."""

    incarnation: int = 0
    log: list[Frame] = field(default_factory=list)
    floor: int = 0
    """How many of the log's first frames are forgotten."""
    items: list[Frame] = field(default_factory=list)
    names: dict[str, Frame | None] = field(default_factory=dict)
    """What was taken under which name, and how it was refused."""
    reply: Reply | None = None
    """What runs in the conversation. One at a time: the policy is `reject`."""
    begun: list[str] = field(default_factory=list)
    """The turns' rounds that were answered, in order; each once, but for further attempts."""
    texts: dict[str, dict[str, str]] = field(default_factory=dict)
    """By turn: its messages that stand, by their ids."""
    statuses: dict[str, str] = field(default_factory=dict)
    """By turn: how its last response ended."""


@dataclass
class Wire:
    """One connection: what is on its way in either direction."""

    up: list[bytes] = field(default_factory=list)
    down: list[bytes] = field(default_factory=list)


class Server:
    """One session. Fault verbs: :meth:`forget`, :meth:`lose_tail`, :meth:`refuse_next`."""

    def __init__(self) -> None:
        self.state = State()
        self.wire: Wire | None = None
        """The connection that is served."""
        self.refusals: list[str] = []
        """The codes with which the next inputs are refused, for the moment."""
        self._numbers = itertools.count()
        self._saved = copy.deepcopy(self.state)

    # Connections.

    def connect(self, query: dict[str, str]) -> Wire:
        """Take a connection; the one before it is served no more."""
        self.wire = wire = Wire()
        if "resume" not in query:
            self.state = State(incarnation=next(self._numbers))
            self.save()
            self._show(None)
            return wire
        place = self._place(query.get("after"))
        if place is None:
            self._show(False)
            self._show_snapshot()
        else:
            self._show(True, place)
            for frame in self.state.log[place:]:
                wire.down.append(_encoded(frame))
        return wire

    def _place(self, after: str | None) -> int | None:
        """Return how many frames of the log somebody has seen; None: nobody knows."""
        if after is None:
            return 0 if self.state.floor == 0 else None
        head, _, number = after.partition("-")[0].rpartition(".")
        if head != f"event_{self.state.incarnation}" or not number.isdigit():
            return None
        place = int(number)
        return place if self.state.floor <= place <= len(self.state.log) else None

    def _show(self, resumed: bool | None, place: int | None = None) -> None:
        ours: Frame = {"resume": "token", "concurrency": "reject", "reasoning": False}
        if resumed is not None:
            ours["resumed"] = resumed
        self._say({"type": "session.created", "session": {"id": "sess_1", "unbroken": ours}}, place)

    def _show_snapshot(self) -> None:
        """Show the conversation as it stands. Only the last frame has a place."""
        assert self.wire is not None
        frames: list[Frame] = [json.loads(self.wire.down.pop())]
        reply = self.state.reply
        if reply is not None and not reply.items:
            frames.append(self._created(reply))
        for item in self.state.items:
            if reply is not None and item in reply.items:
                if item is reply.items[0]:
                    frames.append(self._created(reply))
                text = item["content"][0]["text"]
                frames.append({"type": "conversation.item.added", "item": {**item, "content": []}})
                frames.append(_delta(reply, item, text))
            else:
                frames.append({"type": "conversation.item.added", "item": item})
                frames.append({"type": "conversation.item.done", "item": item})
        for frame in frames[:-1]:
            self.wire.down.append(_encoded({**frame, "event_id": f"event_{next(self._numbers):024x}"}))
        self._say(frames[-1])

    # What is said.

    def _write(self, *frames: Frame) -> None:
        """Write to the log, and show it."""
        for frame in frames:
            placed = {**frame, "event_id": f"event_{self.state.incarnation}.{len(self.state.log) + 1}"}
            self.state.log.append(copy.deepcopy(placed))
            if self.wire is not None:
                self.wire.down.append(_encoded(placed))

    def _say(self, frame: Frame, place: int | None = None) -> None:
        """Show what isn't in the log, to this connection alone."""
        if self.wire is not None:
            place = len(self.state.log) if place is None else place
            name = f"event_{self.state.incarnation}.{place}-{next(self._numbers):x}"
            self.wire.down.append(_encoded({**frame, "event_id": name}))

    # What clients say.

    def take(self, data: bytes) -> None:
        """Take in one frame, of whichever connection."""
        event = json.loads(data)
        kind, name = event["type"], event["event_id"]
        if kind == "conversation.item.retrieve":
            self._say(_error("item_not_found", name))
            return
        known = event.get("unbroken", {}).get("message_id") or event.get("item", {}).get("id") or name
        if known in self.state.names:
            if (refusal := self.state.names[known]) is not None:
                self._say({**refusal, "error": {**refusal["error"], "event_id": name}})
            return
        if self.refusals and kind in ("conversation.item.create", "response.create"):
            code = self.refusals.pop()
            if code != "response_queue_full":
                error = _error(code, name)
                if code == "input_queue_full":
                    del error["error"]["event_id"]  # it wasn't read
                self._say(error)
                return
            if kind == "response.create":
                self._refuse(code, name)  # it is remembered
                return
        self.state.names[known] = None
        match kind:
            case "conversation.item.create":
                self._add(event["item"], name)
            case "response.create":
                self._begin(event["response"], name)
            case "response.cancel":
                self._cancel(event.get("response_id"), name)
            case "conversation.item.delete":
                self._refuse("item_not_found", name)

    def _refuse(self, code: str, name: str) -> None:
        self.state.names[name] = _error(code, name)
        self._write(_error(code, name))

    def _add(self, item: Frame, name: str) -> None:
        if item["type"] == "function_call_output":
            calls = {each["call_id"] for each in self.state.items if each["type"] == "function_call"}
            outputs = {each["call_id"] for each in self.state.items if each["type"] == item["type"]}
            if item["call_id"] not in calls - outputs:
                is_there = item["call_id"] in calls
                self._refuse("function_call_answered" if is_there else "item_not_found", name)
                return
        item = {**item, "status": "completed"}
        self.state.items.append(item)
        self._write({"type": "conversation.item.added", "item": item})
        self._write({"type": "conversation.item.done", "item": item})

    def _begin(self, asked: Frame, name: str) -> None:
        if self.state.reply is not None:
            self._refuse("conversation_already_has_active_response", name)
            return
        self.begin(asked["metadata"])

    def begin(self, metadata: Frame) -> None:
        """Begin a response, for this client or another."""
        self.state.reply = reply = Reply(f"resp_{next(self._numbers)}", metadata)
        self.state.begun.append(metadata.get("unbroken_turn", ""))
        self._write(self._created(reply))

    def _cancel(self, response_id: str | None, name: str) -> None:
        reply = self.state.reply
        if reply is None or response_id not in (None, reply.id):
            self._refuse("response_cancel_not_active", name)
        else:
            reply.is_stopping = True

    # What the agent does.

    def speak(self, piece: str, *, anew: bool = False) -> None:
        """Say more: in the same message, or in another one."""
        reply = self.state.reply
        assert reply is not None
        if anew or not reply.items:
            item: Frame = {"id": f"item_{next(self._numbers)}", "type": "message", "role": "assistant"}
            item |= {"status": "in_progress", "content": [{"type": "output_text", "text": ""}]}
            reply.items.append(item)
            self.state.items.append(item)
            self._write({"type": "conversation.item.added", "item": {**item, "content": []}})
        item = reply.items[-1]
        item["content"][0]["text"] += piece
        self._texts(reply)[item["id"]] = item["content"][0]["text"]
        self._write(_delta(reply, item, piece))

    def end(self, status: str = "completed", *calls: str) -> None:
        """End the response, with calls of a function."""
        reply = self.state.reply
        assert reply is not None
        status = "cancelled" if reply.is_stopping else status
        self.state.reply = None
        output: list[Frame] = []
        whole = "completed" if status == "completed" else "incomplete"
        for item in reply.items:
            item["status"] = whole
            text = item["content"][0]["text"]
            said = {"response_id": reply.id, "item_id": item["id"], "text": text}
            self._write({"type": "response.output_text.done", **said})
            if text:
                output.append(item)
        for call_id in calls if status == "completed" else ():
            made = {"type": "function_call", "call_id": call_id, "name": "f", "arguments": "{}"}
            made |= {"id": f"item_{next(self._numbers)}", "status": "completed"}
            self.state.items.append(made)
            self._write({"type": "conversation.item.added", "item": made})
            output.append(made)
        self._end(reply, status, output, "agent_error")

    def interrupt(self, *, again: bool) -> None:
        """Lose the attempt, and perhaps make another: both are in the log at once."""
        reply = self.state.reply
        assert reply is not None
        for item in reply.items:
            item["status"] = "incomplete"
        self._end(reply, "failed", list(reply.items), "interrupted")
        self.state.reply = None
        if again and not reply.is_stopping:
            for item in reply.items:
                self.state.items.remove(item)
                self._texts(reply).pop(item["id"])
                self._write({"type": "conversation.item.deleted", "item_id": item["id"]})
            self.state.begun.pop()  # it is the same one
            self.begin(reply.metadata)

    def _end(self, reply: Reply, status: str, output: list[Frame], code: str) -> None:
        details: Frame = {"type": status, "reason": "client_cancelled"} if status == "cancelled" else {}
        if status == "failed":
            details = {"type": "failed", "error": {"type": "server_error", "code": code}}
        response = {"id": reply.id, "status": status, "output": output, "metadata": reply.metadata}
        response |= {"conversation_id": "conv_1", "status_details": details}
        response["usage"] = {"input_tokens": 1, "output_tokens": 1}
        self.state.statuses[_turn(reply)] = status
        self._write({"type": "response.done", "response": response})

    # Faults.

    def add_foreign(self) -> None:
        """Have another client say something."""
        item = {"id": f"theirs_{next(self._numbers)}", "type": "message", "role": "user"}
        self._add({**item, "content": [{"type": "input_text", "text": "theirs"}]}, "theirs")

    def forget(self) -> None:
        """Forget the log, but for what it comes to."""
        self.state.floor = len(self.state.log)

    def save(self) -> None:
        """Keep what is known now."""
        self._saved = copy.deepcopy(self.state)

    def lose_tail(self) -> None:
        """Know no more than when it was saved: the log is another one from there on."""
        self.state = copy.deepcopy(self._saved)
        self.state.incarnation = next(self._numbers)
        self.state.log = []
        self.state.floor = 0
        self.wire = None

    # Inside.

    def _texts(self, reply: Reply) -> dict[str, str]:
        return self.state.texts.setdefault(_turn(reply), {})

    def _created(self, reply: Reply) -> Frame:
        response = {"id": reply.id, "status": "in_progress", "metadata": reply.metadata, "output": []}
        return {"type": "response.created", "response": {**response, "conversation_id": "conv_1"}}


def _turn(reply: Reply) -> str:
    name: str = reply.metadata.get("unbroken_turn", "theirs.0")
    return name.partition(".")[0]


def _delta(reply: Reply, item: Frame, text: str) -> Frame:
    place = {"response_id": reply.id, "item_id": item["id"]}
    return {"type": "response.output_text.delta", **place, "delta": text}


def _error(code: str, name: str) -> Frame:
    error = {"type": "invalid_request_error", "code": code, "message": code, "event_id": name}
    return {"type": "error", "error": error}


def _encoded(frame: Frame) -> bytes:
    return json.dumps(frame).encode()
