"""Feeds the codec anything, for as long as it is told, and checks all that comes out.

``python -m tests.conformance.fuzz --seconds 600`` prints a seed. The same seed feeds the same, but for the
ids that the server draws, world by world; ``--world N`` feeds one of them alone. Inputs are drawn by
`tests.conformance.grammar`.

What must hold, whatever comes in: `RealtimeConnection.receive` returns or raises `DecodeError`, in words
that are documented; what it returns can be decided, written and read back; every frame is an event
of the protocol, each in its place; and nobody is shown anything of another session.
"""

from __future__ import annotations

import argparse
import random
import secrets
import sys
import time
from collections import Counter
from typing import Final

from tests.conformance.grammar import Grammar
from tests.conformance.sans_io import Chain, Room, Violation
from unbroken.server.errors import ERROR_MEANINGS
from unbroken.server.protocols.items import DecodeError
from unbroken.server.protocols.realtime.decode import decode_event
from unbroken.sessions.entries import Submitted

__all__ = ["INPUTS", "World", "main"]

INPUTS: Final = 400
"""How many one world is fed."""

_DEPTH: Final = 32


class World:
    """Two people, each with a session of their own, one of whom says anything."""

    def __init__(self, seed: str) -> None:
        self.seed = seed
        self.outcomes: Counter[str] = Counter()
        self._chance = random.Random(seed)
        self._attacker = Room("mallory", self._chance)
        self._victim = Room("victim", self._chance)
        self._grammar = Grammar(self._chance, self._attacker.mark)
        self._quiet = Grammar(self._chance, self._victim.mark)
        self._chains = [self._attacker.join() for _ in range(2)]
        self._own = self._victim.join()
        self.latest: object = None
        """What was fed last."""

    def run(self) -> None:
        """Feed everything.

        Raises:
            Exception: Something doesn't hold; :attr:`latest` was fed last.

        """
        for _ in range(INPUTS):
            self._feed(self._chance.choice(self._chains))
            if self._chance.random() < 0.2:
                self._say_something_right()
            for room in (self._attacker, self._victim):
                room.go_on()
            self._look()
        for room in (self._attacker, self._victim):
            room.settle()
        self._look()
        for room in (self._attacker, self._victim):
            room.check_copies()

    def _look(self) -> None:
        for room, other in ((self._attacker, self._victim), (self._victim, self._attacker)):
            for chain in room.chains:
                for frame in chain.look():
                    if other.mark.encode() in frame:
                        raise Violation(f"shown to another session: {frame!r}")
        seen = self._chains[0].ids
        self._grammar.ids += seen
        # Another's names are known, and are of no use.
        self._grammar.ids += self._own.ids[:1]
        del self._grammar.ids[2:-80]
        seen.clear()
        self._own.ids.clear()

    def _say_something_right(self) -> None:
        text = self._quiet.text(self._quiet.event())
        self._outcome(self._own, text.encode("utf-8", "surrogatepass").decode("utf-8", "replace"))

    def _feed(self, chain: Chain) -> None:
        kind = self._chance.random()
        if kind < 0.3:
            self._outcome(chain, self._grammar.text(self._grammar.event()))
        elif kind < 0.7:
            self._outcome(chain, self._grammar.text(self._grammar.changed()))
        else:
            data = self._grammar.damaged() if kind < 0.9 else self._grammar.noise()
            if self._chance.random() < 0.05:
                self._outcome(chain, data)
                return
            self._decode(data)
            self._outcome(chain, data.decode("utf-8", self._chance.choice(("replace", "surrogateescape"))))

    def _decode(self, data: bytes) -> None:
        """Bytes that no transport would pass on are refused as well."""
        self.latest = data
        try:
            decode_event(data, max_depth=_DEPTH)
        except DecodeError as error:
            _check_refusal(error)

    def _outcome(self, chain: Chain, data: str | bytes) -> None:
        self.latest = data
        try:
            answer = chain.connection.receive(data)
        except DecodeError as error:
            _check_refusal(error)
            self.outcomes[error.code] += 1
            chain.refuse(error)
            return
        if isinstance(data, bytes):
            raise Violation("a binary frame was taken")
        if isinstance(answer, Submitted):
            self.outcomes[f"({type(answer.command).__name__})"] += 1
            chain.submit(answer)
        else:
            self.outcomes[f"({answer['type']})"] += 1
            chain.answer(answer)


def _check_refusal(error: DecodeError) -> None:
    if error.code not in ERROR_MEANINGS:
        raise Violation(f"not documented: {error.code}")
    if len(error.message) > 1000 or "Traceback" in error.message:
        raise Violation(f"not for people: {error.message}")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Feed the codec anything.")
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", default=secrets.token_hex(4))
    parser.add_argument("--world", type=int, help="only this one")
    chosen = parser.parse_args(arguments)
    end = time.monotonic() + chosen.seconds
    tell = sys.stdout.write
    tell(f"seed {chosen.seed}\n")
    outcomes: Counter[str] = Counter()
    number = chosen.world or 0
    while True:
        world = World(f"{chosen.seed}:{number}")
        try:
            world.run()
        except Exception as error:  # noqa: BLE001 - whatever it is, it is told how to see it again
            tell(f"{type(error).__name__}: {error!s:.1000}\nafter {world.latest!r:.2000}\n")
            tell(f"see it again: --seed {chosen.seed} --world {number}\n")
            return 1
        outcomes += world.outcomes
        number += 1
        if chosen.world is not None or time.monotonic() > end:
            break
    for outcome, count in outcomes.most_common():
        tell(f"{count:10,} {outcome}\n")
    tell(f"{outcomes.total():10,} inputs, in {number} worlds; everything held\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
