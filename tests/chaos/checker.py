"""What must hold of every history and of every log, whatever went wrong. Pure: no I/O, no clock.

The rules are named for the invariants of a session's log. That each owner's token is above the last one's is
what I3 shows of the log: nothing else tells tokens.

====  ==============================================================================================
I1    what a client is shown is contiguous: nothing is left out, shown twice or shown out of order
I2    what a client has been shown is what the log holds
I3    a log has one author at a time: its entries follow from one another
I4    who comes back with a place that the log holds goes on from there
I5    an input is in the log once
I6    an input is answered once; another attempt follows only when the one before was lost, and is told;
      what an agent was asked for it was asked for once, and somebody was told, or can be
I7    every attempt ends once, and nothing of it follows
I8    the pieces of an answer are its text, and the text is what the agent said: no word more or less;
      and the agent was told of all that was said before, in order, as it stands in the conversation
I9    what was acknowledged is in the log, or the client was told to start over
I10   what the store keeps of a session is bounded
I12   every attempt ends
I13   what the leak filter keeps back is nowhere: in no log, and shown to nobody
I14   what a turn has used is counted once, as the log says that it ended
====  ==============================================================================================
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from tests.chaos.history import Frame, History, Segment
from tests.chaos.talk import Talk
from tests.chaos.words import answer_to, digest_of, fails, key_of, restored
from unbroken.server.protocols.cursor import parse_cursor

__all__ = [
    "Violation",
    "acknowledged",
    "check_generations",
    "check_history",
    "check_words",
    "status_of",
    "turn_of",
]


@dataclass(frozen=True, slots=True)
class Violation:
    """A rule that was broken, where, and how."""

    rule: str
    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.rule} {self.where}: {self.what}"


@dataclass(slots=True)
class _Shown:
    """What a client has been shown of one response."""

    turn: str
    texts: dict[str, str] = field(default_factory=dict)
    status: str | None = None


def turn_of(response: Frame) -> str:
    """Return what a response, as clients see it, was asked; it is in its metadata."""
    turn: str = (response.get("metadata") or {}).get("turn", "")
    return turn


def status_of(response: Frame) -> str:
    """Return how a response ended, by this server's own word where it has one."""
    status: str = response.get("unbroken", {}).get("status", response["status"])
    return status


def acknowledged(frames: Iterable[Frame]) -> set[str]:
    """Return the ids of the items, and the turns of the requests, that the server has shown to have taken."""
    known: set[str] = set()
    for frame in frames:
        if frame["type"] == "conversation.item.added":
            known.add(frame["item"]["id"])
        elif frame["type"] == "response.created":
            known.add(turn_of(frame["response"]))
    return known


def check_history(
    history: History, *, is_over: bool = True, answers: Mapping[str, str] | None = None
) -> list[Violation]:
    """Check what one tab was shown.

    *is_over*: it was connected to the end, and nothing should be open. *answers*: what each item of
    the session's answers was asked, as far as anybody knows.
    """
    found: list[Violation] = []
    segments = history.segments()
    for number, segment in enumerate(segments):
        where = f"{history.session} {history.tab} part {number}"
        reader = _Reader(where, answers or {})
        reader.read(segment)
        if is_over and number == len(segments) - 1:
            reader.close()
        found += reader.found
    return found


class _Reader:
    """Reads a segment as a careful client would."""

    def __init__(self, where: str, answers: Mapping[str, str]) -> None:
        self.found: list[Violation] = []
        self._where = where
        self._answers = answers
        self._talk = Talk()
        self._pasts: dict[str, str | None] = {}  # what was said before each answer, by its item
        self._responses: dict[str, _Shown] = {}
        self._place: tuple[int, int] | None = None
        self._incarnation: str | None = None
        self._asked: dict[str, str] = {}  # what the client's items say, by their turns

    def read(self, segment: Segment) -> None:
        for frame in segment.frames:
            self._advance(frame)
            match frame["type"]:
                case "conversation.item.added":
                    self._stand(frame)
                case "conversation.item.deleted":
                    self._talk.delete(frame["item_id"])
                case "conversation.item.done":
                    self._stand(frame)
                    self._item(frame)
                case "response.created":
                    self._created(frame["response"])
                case "response.output_text.delta":
                    self._delta(frame)
                case "response.output_text.done":
                    self._text_done(frame)
                case "response.done":
                    self._done(frame["response"])
                case _:
                    pass

    def close(self) -> None:
        """Note what never ended."""
        for response_id, shown in self._responses.items():
            if shown.status is None:
                self._blame("I12", f"{response_id} ({shown.turn}) never ended")

    def _blame(self, rule: str, what: str) -> None:
        self.found.append(Violation(rule, self._where, what))

    def _advance(self, frame: Frame) -> None:
        """Check that cursors only go on. Frames of the connection's own carry the last one, and a suffix."""
        parsed = parse_cursor(frame["event_id"])
        if parsed is None:
            return
        position, remaining = parsed
        if self._incarnation is not None and position.incarnation != self._incarnation:
            self._blame("I1", f"{frame['event_id']} is of another log than what came before")
        self._incarnation = position.incarnation
        place = (position.seq, -remaining)
        is_own = "-" in frame["event_id"]
        if self._place is not None and (place < self._place or (place == self._place and not is_own)):
            self._blame("I1", f"{frame['event_id']} of {frame['type']} came after {self._place}")
        self._place = place if self._place is None else max(place, self._place)

    def _stand(self, frame: Frame) -> None:
        item = frame["item"]
        self._talk.add(item["id"], item["role"], _text(item), frame.get("previous_item_id"))
        if item["role"] == "assistant" and item["id"] not in self._pasts:
            self._pasts[item["id"]] = self._talk.before(item["id"])

    def _item(self, frame: Frame) -> None:
        """Check an item as it stands, also where nothing of how it came to be was shown.

        Which turn it answers is known of its response, if anybody has seen that; else its words say it.
        It need not be the item before, if that was asked again.
        """
        item = frame["item"]
        text = _text(item)
        self._talk.close(item["id"], text)
        if item["role"] == "user":
            self._asked[key_of(text)] = text
        elif text:
            turn = self._answers.get(item["id"]) or self._asked.get(text.partition(".")[0])
            status = "completed" if item["status"] == "completed" else "incomplete"
            if turn is None:
                self._blame("I8", f"{item['id']} answers nothing that was asked: {text[:40]!r}")
            else:
                self.found += check_words(self._where, turn, status, text, self._pasts[item["id"]])

    def _created(self, response: Frame) -> None:
        response_id, turn = response["id"], turn_of(response)
        if response_id in self._responses:
            self._blame("I1", f"{response_id} was begun twice")
            return
        for other_id, other in self._responses.items():
            if other.turn == turn and other.status != "interrupted":
                self._blame("I6", f"{response_id} answers {turn!r}, which {other_id} does: {other.status}")
        self._responses[response_id] = _Shown(turn)

    def _of(self, response_id: str, what: str) -> _Shown | None:
        shown = self._responses.get(response_id)
        if shown is None:
            self._blame("I1", f"{what} of {response_id}, which was never begun")
        elif shown.status is not None:
            self._blame("I7", f"{what} of {response_id} after its end")
        return shown

    def _delta(self, frame: Frame) -> None:
        if shown := self._of(frame["response_id"], "a delta"):
            item = frame["item_id"]
            shown.texts[item] = shown.texts.get(item, "") + frame["delta"]

    def _text_done(self, frame: Frame) -> None:
        if shown := self._of(frame["response_id"], "a text's end"):
            said = shown.texts.get(frame["item_id"], "")
            if said != frame["text"]:
                self._blame("I8", f"the pieces of {frame['item_id']} are {_differ(said, frame['text'])}")

    def _done(self, response: Frame) -> None:
        shown = self._of(response["id"], "the end")
        if shown is None or shown.status is not None:
            return
        shown.status = status_of(response)
        for item in response["output"]:
            text = "".join(part.get("text", "") for part in item.get("content", ()))
            said = shown.texts.get(item["id"], "")
            if said != text:
                self._blame("I8", f"the pieces of {item['id']} are {_differ(said, text)}")
        said = "".join(shown.texts.values())
        past = next((self._pasts.get(item) for item in shown.texts), None)
        self.found += check_words(self._where, shown.turn, shown.status, said, past)


def _text(item: Frame) -> str:
    return "".join(part.get("text", "") for part in item.get("content", ()))


def check_words(where: str, turn: str, status: str, said: str, past: str | None) -> list[Violation]:
    """Check an answer against what the agent says to *turn*.

    *past*: digest of what was said before; None: that isn't known, and the answer's own word is taken.
    """
    whole, said = answer_to(turn, digest_of(said) if past is None else past), restored(said)
    if status == "completed" and fails(turn):
        return [Violation("I8", where, f"the answer to {turn!r} is whole, and its agent failed")]
    if status == "completed" and said != whole:
        return [Violation("I8", where, f"the answer to {turn!r} is {_differ(said, whole)}")]
    if not whole.startswith(said):
        return [Violation("I8", where, f"the part of the answer to {turn!r} is {_differ(said, whole)}")]
    return []


def _differ(said: str, whole: str) -> str:
    """Say where two texts part."""
    same = next((i for i, (a, b) in enumerate(zip(said, whole, strict=False)) if a != b), None)
    at = min(len(said), len(whole)) if same is None else same
    return f"{said[max(0, at - 20) : at + 20]!r} and not {whole[max(0, at - 20) : at + 20]!r} at {at}"


def check_generations(
    journal: Sequence[tuple[str, str]], shown: Mapping[str, str], *, may_drop: bool
) -> Iterator[Violation]:
    """Check what agents were asked for: pairs of a response, and the key of its turn.

    *shown* are the responses that somebody was shown, or that a log holds, with the keys of their
    turns. *may_drop*: an owner may have gone on without the store, and what it said alone may be lost.
    Then another may have taken the session, and have asked for the same: whoever was shown what is lost
    was told to start over, or else what is shown isn't what the log holds, which is checked (I2).
    """
    for response_id, times in Counter(response_id for response_id, _ in journal).items():
        if times > 1 and not may_drop:
            yield Violation("I6", response_id, f"was produced {times} times")
    for response_id, key in dict(journal).items():
        if response_id not in shown:
            if not may_drop:
                yield Violation("I6", response_id, f"was produced for {key}, and nobody was told")
        elif shown[response_id] != key:
            yield Violation("I6", response_id, f"was produced for {key}, and answers {shown[response_id]}")
