"""The filter of one stream of text, while it comes. No I/O, no clock.

The text is taken apart where nothing that is looked for can go on: at white space, unless what
stands before it is a number and what follows may be more of it. Each such part, a *segment*, is
held until its end is seen, looked at as a whole, and released with what was found replaced. Where
segments end depends on the text alone, never on the pieces it came in. Therefore:

- Whatever the pieces, the output is the same: that of the whole text in one piece.
- Nothing of what was found has left before it was found.
- Of what is in a segment nothing is held once the segment has ended; a segment that doesn't end
  is looked at in windows of :data:`MOST_HELD` characters, of numbers :data:`MOST_HELD_NUMBERS`. No match
  is longer than half a window, but for kinds that have no greatest length: of these, what
  follows is dropped without being held.
- Each character is looked at a bounded number of times.

What is ordinary, words of letters, never comes to the scanner: it costs about a microsecond a piece.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from typing import Final, Literal, TypeAlias

from unbroken.server.guards.leaks import coordinates
from unbroken.server.guards.leaks.canary import SpelledOut
from unbroken.server.guards.leaks.entities import Actions, Entity, Match
from unbroken.server.guards.leaks.private_key import PrivateKey
from unbroken.server.guards.leaks.scanner import LETTER, OTHER, Flattening, Scanner

__all__ = ["LONGEST_ORDINARY", "MOST_HELD", "MOST_HELD_NUMBERS", "LeakFilter", "Placeholder"]

MOST_HELD: Final = 1024
MOST_HELD_NUMBERS: Final = 96
"""Characters of a segment."""

_CONTEXT: Final = 64
"""Characters before a segment that say what it is."""
_MOST_CONTEXT: Final = 64
"""Pieces in which they are kept."""

LONGEST_ORDINARY: Final = 19
"""Characters of a word in which nothing can be, if it has no digit and no at sign: every secret has more."""

_LONGEST_GROUP: Final = 24
"""Characters of a word that continues a number."""

# Of ASCII all but digits, at signs, hyphens, and what can't be seen.
_SIGN: Final = re.compile(r"[^\n -,./:-?A-~]").search
_PLAIN: Final = re.compile(rf"[!-,./:-?A-~]{{0,{LONGEST_ORDINARY}}}+").fullmatch
_LETTERS: Final = re.compile(rf"[!-,./:-?A-~{LETTER}]{{0,{LONGEST_ORDINARY}}}+").fullmatch
# Ordinary words alone, of which the last one may go on.
_ORDINARY: Final = re.compile(
    rf"(?>(?:[!-,./:-?A-~]{{0,{LONGEST_ORDINARY}}}+[ \n])*)(?P<last>[!-,./:-?A-~]{{0,{LONGEST_ORDINARY}}}+)"
).fullmatch
_TELLING: Final = re.compile(r"[0-9@\0]|-----").search

_SEPARATORS: Final = re.compile(rf"[\s{OTHER}]++")
_WORD: Final = re.compile(rf"[^\s{OTHER}]++")
# Words that a number goes on with, and behind which it goes on once more.
_MORE: Final = re.compile(rf"(?>(?:[ \t][0-9][^\s{OTHER}]{{0,22}}+(?=[ \t][0-9]))+)")
_HAS_DIGIT: Final = re.compile(r"[0-9]").search
# Behind a bracket or a quotation mark, say, too.
_IBAN_HEAD: Final = re.compile(
    r"(?:.{0,7}[^A-Za-z0-9])?[A-Za-z]{2}\d\d[A-Za-z0-9]{0,4}", re.ASCII | re.DOTALL
).fullmatch
_IBAN_GROUP: Final = re.compile(r"[A-Za-z0-9]{1,4}").fullmatch
_LONGEST_IBAN: Final = 52
"""Characters, with what stands before it in its first word."""
_KEY_HEAD: Final = "-----BEGIN"
_SHORTEST: Final = 3
"""Characters of what can be found: an address, ``::1``."""
_SWALLOWED: Final = re.compile(r"[A-Za-z0-9+/=_.~-]++")

_Opening: TypeAlias = Literal["key", "iban", "number"]

Placeholder: TypeAlias = Callable[[Entity, str], str]
"""Told the kind of what is replaced, and what it is known again by, returns what stands in its place."""


class LeakFilter:
    """Filters one stream.

    Args:
        scanner: Finds what is looked for.
        actions: What is done about each.
        placeholder: Makes what stands in the place of what was found.
        spelled: Notices canaries in several words. None: there are no canaries.

    """

    def __init__(
        self,
        scanner: Scanner,
        actions: Actions,
        placeholder: Placeholder,
        *,
        spelled: SpelledOut | None = None,
    ) -> None:
        self._scanner = scanner
        self._actions = actions
        self._placeholder = placeholder
        self._spelled = spelled
        self._is_watched = spelled is not None  # what leaves, all of it
        self._finds_places = scanner.finds_coordinates
        self._flattening = Flattening(coordinates.SIGNS if self._finds_places else {})
        self.found: Counter[tuple[Entity, str]] = Counter()
        """How much was found, by kind and by what was done."""
        self.is_blocked = False
        """Whether something was found that nothing may follow."""
        self.steps = 0
        """Characters that were looked at closely, each as often as it was."""
        self._raw = ""  # what is held, as it came
        self._flat = ""  # the same, flat
        self._past: list[str] = []  # flat, what came before
        self._is_plain = True  # what is held is the beginning of an ordinary word, or nothing
        self._word = 0  # where the last word of the segment begins
        self._seen = 0  # up to where that word has been read
        self._opening: _Opening | None = None  # what its first word begins. None: nobody has asked
        self._swallowing: PrivateKey | re.Pattern[str] | None = None  # what goes on, and is dropped
        self._shown = 0  # characters of what is held that have left, as time was up
        self._is_quick = True  # the next piece may be taken without looking closely

    @property
    def held(self) -> int:
        """How many characters are held."""
        return len(self.held_text)

    @property
    def held_text(self) -> str:
        """What is held. Not for anybody to see."""
        return self._raw[self._shown :]

    def feed(self, piece: str) -> str:
        """Take in a piece, and return what may leave."""
        if self._is_quick:  # the usual case: nothing but what is told here may cost time
            raw = self._raw
            if len(raw) + len(piece) <= LONGEST_ORDINARY and _SIGN(piece) is None:
                cut = piece.rfind(" ") + 1
                if not cut:
                    self._raw = raw + piece
                    return ""
                passed = raw + piece[:cut]
                if not (self._finds_places and coordinates.ends_with_side(passed)):
                    self._raw = piece[cut:]
                    return self._passed(passed)
            elif (ordinary := _ORDINARY(raw + piece)) is not None:  # many words at once
                passed = ordinary.string[: ordinary.start("last")]
                if not (self._finds_places and coordinates.ends_with_side(passed)):
                    self._raw = ordinary["last"]
                    return self._passed(passed)
        return self._examine(piece) if piece else ""

    def _passed(self, text: str) -> str:
        """Return *text*, ordinary words of which nothing has left, as it leaves."""
        past = self._past
        past.append(text[-_CONTEXT:])
        if len(past) > _MOST_CONTEXT:
            self._past = [self._context()]
        return self._released(text) if self._is_watched else text

    def flush(self) -> str:
        """Return what is held, as it leaves when nothing follows. The filter can go on: with another text."""
        released = self._end_segment()
        self._past = []
        return released

    def show(self) -> str:
        """Return of what is held what may leave early: letters, which are ordinary nearly always.

        Should they turn out to be the beginning of a match, its rest will be replaced, and they
        have left. Everything else stays.
        """
        is_word = self._is_plain or _LETTERS(self._flat) is not None
        if not is_word or self._swallowing is not None or self.is_blocked:
            return ""
        shown = self._raw[self._shown :]
        self._shown = len(self._raw)
        self._is_quick = False
        return shown

    def _examine(self, piece: str) -> str:
        if self.is_blocked:
            return ""
        self._read_again()
        self._raw += piece
        flat = piece if piece.isascii() and "\0" not in piece else piece.translate(self._flattening)
        self._flat += flat
        return self._advance(is_last=False)

    def _end_segment(self) -> str:
        """Return what is held, as it leaves when what follows is apart from it. It stays known."""
        self._read_again()
        released = self._advance(is_last=True)
        self._swallowing = None
        self._is_plain, self._is_quick = True, not self.is_blocked
        return released

    def _read_again(self) -> None:
        """Begin with what is held, if that was held without being looked at."""
        if self._is_plain:
            self._flat = self._raw
            self._reset(0)

    def _context(self) -> str:
        return "".join(self._past)[-_CONTEXT:]

    def _advance(self, *, is_last: bool) -> str:
        """Release every segment that has ended."""
        out: list[str] = []
        raw, flat, size, position = self._raw, self._flat, len(self._raw), 0
        while position < size and not self.is_blocked:
            if self._swallowing is not None:
                after = self._swallow(position, is_last=is_last)
                if after == position:
                    if self._swallowing is not None:
                        break  # more is needed
                    continue
                self._dropped(after - position)
                position = after
                self._reset(position)
                continue
            if (gap := _SEPARATORS.match(flat, position)) is not None:
                out.append(self._released(raw[position : gap.end()]))
                self._remember(flat[position : gap.end()])
                self.steps += gap.end() - position
                position = gap.end()
                self._reset(position)
                continue
            end = self._segment_end(position, is_last=is_last)
            if end is None:
                break
            position = self._decide(position, end, out)
            self._reset(position)
        if self.is_blocked:
            position = size
        self._raw, self._flat = raw[position:], flat[position:]
        self._word = max(self._word - position, 0)
        self._seen = max(self._seen - position, 0)
        self._is_plain = self._swallowing is None and (not self._raw or _PLAIN(self._raw) is not None)
        self._is_quick = self._is_plain and not (self._shown or self.is_blocked)
        return "".join(out)

    def _reset(self, position: int) -> None:
        """Begin a segment."""
        self._word = self._seen = position
        self._opening = None

    def _segment_end(self, start: int, *, is_last: bool) -> int | None:
        """Return where the segment from *start* on ends, or its window; None: that can't be said yet."""
        flat, size = self._flat, len(self._flat)
        while True:
            is_spaced = self._word > start
            most = start + (MOST_HELD_NUMBERS if is_spaced else MOST_HELD)
            # Only where so much has come does it matter whether it is a key.
            if is_spaced and size >= (longest := self._word + _LONGEST_GROUP) < most:
                most = longest if flat.find(_KEY_HEAD, start, self._word) < 0 else most
            word = _WORD.match(flat, self._seen, min(most, size))
            if word is not None:
                self.steps += word.end() - self._seen
                self._seen = word.end()
            if self._seen >= most:
                # What comes next says whether this was the end.
                return most if size > most or is_last else None
            if self._seen == size:
                return size if is_last else None
            if flat[self._seen] not in " \t":
                return self._seen
            if self._seen + 1 == size:
                # What comes next decides, where anything may go on.
                return size - 1 if is_last or not self._may_go_on(start, "0") else None
            following = flat[self._seen + 1 : self._seen + 3]
            if len(following) == 1 and not is_last and self._depends_on_next(start, following):
                return None
            if not self._may_go_on(start, following):
                return self._seen
            if self._opening == "number":
                more = _MORE.match(flat, self._seen, min(start + MOST_HELD_NUMBERS, size))
                if more is not None:  # many at once
                    self.steps += more.end() - self._seen
                    self._seen = more.end()
            self._word = self._seen = self._seen + 1

    def _depends_on_next(self, start: int, following: str) -> bool:
        """Return whether a second character behind a space has to be seen, as *following* doesn't tell."""
        return self._finds_places and following in "-NSEWO" and self._may_go_on(start, following + "0")

    def _may_go_on(self, start: int, following: str) -> bool:
        """Return whether the segment may go on behind a space, with *following*: one character, or two."""
        last = self._flat[self._word : self._seen]
        opening = self._opening
        if opening is None:  # the first word has ended
            is_iban = _KEY_HEAD not in last and _IBAN_HEAD(last) is not None
            opening = self._opening = "key" if _KEY_HEAD in last else "iban" if is_iban else "number"
        if opening == "key":
            is_open = last.endswith(_KEY_HEAD) or (self._word > start and "-----" not in last)
            return is_open and following[0].isalnum()
        if opening == "iban" and self._seen - start < _LONGEST_IBAN:
            return following[0].isalnum() and (self._word == start or _IBAN_GROUP(last) is not None)
        if last == "/" and self._word > start:  # 030 / 123
            return following[0] in "0123456789"
        if self._finds_places and coordinates.goes_on(last, following):
            return True
        return following[0] in "0123456789(+/" and _HAS_DIGIT(last) is not None

    def _decide(self, start: int, end: int, out: list[str]) -> int:
        """Put what may leave of a segment to *out*, and return up to where it has been decided."""
        raw, flat = self._raw, self._flat
        text = flat[start:end]
        matches: list[Match] = []
        if len(text) > LONGEST_ORDINARY or (len(text) >= _SHORTEST and _TELLING(text) is not None):
            context = self._context()
            self.steps += len(text) + len(context)
            matches = self._fitted(self._scanner.find(context, text), text, flat[end : end + 1])
        is_window = end < len(flat) and _WORD.match(flat, end) is not None
        decided = end
        if is_window and end - self._word >= _LONGEST_GROUP and self._word > start:
            decided = self._word  # so long a word doesn't continue a number: it is looked at by itself
        elif is_window:
            decided = start + (MOST_HELD_NUMBERS if self._word > start else MOST_HELD) // 2
        position = start
        for match in matches:
            begin, finish = start + match.start, start + match.end
            if begin >= decided:
                break
            decided = max(decided, finish)
            action = self._note(match.entity)
            if action == "flag":
                continue
            if begin > position:
                out.append(self._released(raw[position:begin]))
            if action == "block":
                self.is_blocked = True
                return finish
            out.append(self._replaced(match, _known(flat[begin:finish], raw[begin:finish])))
            self._shown = max(self._shown - (finish - begin), 0)
            position = finish
            if match.rest == "key" or (match.rest and finish == end and is_window):
                self._swallowing = PrivateKey() if match.rest == "key" else _SWALLOWED
                self._remember(flat[start:finish])
                return finish
        out.append(self._released(raw[position:decided]))
        self._remember(flat[start:decided])
        return decided

    def _fitted(self, matches: list[Match], text: str, following: str) -> list[Match]:  # noqa: ARG002 - see arguments
        """Return which of the *matches* in *text* count, and how far they go. *following* comes behind it."""
        return matches

    def _note(self, entity: Entity) -> str:
        action = self._actions.get(entity, "ignore")
        self.found[entity, action] += 1
        return action

    def _replaced(self, match: Match, flat: str) -> str:
        """Return what stands in the place of *match*."""
        return self._placeholder(match.entity, "".join(filter(str.isalnum, flat)).lower())

    def _dropped(self, count: int) -> None:
        """Be told that the next *count* characters don't leave, with nothing in their place."""

    def _released(self, text: str) -> str:
        """Return what of *text* hasn't left yet, and watch what goes by."""
        if self._shown:
            cut = min(self._shown, len(text))
            self._shown -= cut
            text = text[cut:]
        if self._spelled is not None and (end := self._spelled.end_of(text)) is not None:
            if self._note("canary") == "block":
                self.is_blocked, self._is_quick = True, False
                return text[:end]
            self._spelled = None  # once is enough
        return text

    def _remember(self, flat: str) -> None:
        self._past.append(flat[-_CONTEXT:])
        if len(self._past) > _MOST_CONTEXT:
            self._past = [self._context()]

    def _swallow(self, position: int, *, is_last: bool) -> int:
        """Drop what belongs to what was found last. Return up to where; where nothing is dropped, either
        more is needed, or it has come to its end.
        """
        swallowing = self._swallowing
        if isinstance(swallowing, PrivateKey):
            end, is_over = swallowing.end_of(self._flat, position, is_last=is_last)
            if is_over:
                self._swallowing = None
            self.steps += end - position
            return end
        rest = _SWALLOWED.match(self._flat, position)
        end = position if rest is None else rest.end()
        self.steps += end - position
        if end < len(self._flat):
            self._swallowing = None
        return end


def _known(flat: str, raw: str) -> str:
    """Return *flat* with each letter as *raw* has it: by these it is known again."""
    if LETTER not in flat:
        return flat
    return "".join([its if char == LETTER else char for char, its in zip(flat, raw, strict=True)])
