"""Whose answers are filtered how: by plan, with placeholders that are stable within a session."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from unbroken.server.guards.leaks.answer import Watch
from unbroken.server.guards.leaks.entities import DEFAULT_ACTIONS, Actions, Entity
from unbroken.server.guards.leaks.scanner import Scanner
from unbroken.server.guards.leaks.verbatim import Instructions
from unbroken.server.guards.plan import DEFAULT_PLAN, PlanOf
from unbroken.server.plan_tables import Mode
from unbroken.sessions.ids import SessionId
from unbroken.sessions.responder import Turn

__all__ = ["LeakPolicy", "LeakRules", "placeholder_of"]

_INSTRUCTIONS_KNOWN: Final = 64
"""Instructions that are kept ready; those of which nobody made use for longest are made anew."""
_WORDS_KNOWN: Final = 50_000
"""Words of these together: about 14 MB."""

_TAG: Final = 5
"""Letters and digits that tell things apart: one in 33 million pairs looks the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeakRules:
    """What the operator wants."""

    mode: Mode = "shadow"
    modes: Mapping[str, Mode] = field(default_factory=dict)
    """Of plans that have one of their own."""
    actions: Mapping[str, Actions] = field(default_factory=lambda: {DEFAULT_PLAN: DEFAULT_ACTIONS})
    """By plan; what plans have that aren't named is under :data:`DEFAULT_PLAN`."""
    tool_outputs: bool = False
    hold: float = 0.25
    """Seconds that an ordinary word waits for what follows it; at most twice that."""


async def _everybody(turn: Turn) -> str:
    return DEFAULT_PLAN if turn.request.plan is None else turn.request.plan


class LeakPolicy:
    """Says what is watched for in each answer.

    Args:
        rules: What is done about what.
        secret: A key that all nodes have, under which placeholders are made.
        plan_of: Says by which plan a turn was asked for.
        canaries_of: Says which words no answer of a session has to hold.
        count: Told of what was found: its kind, what was done, and how often.

    """

    def __init__(
        self,
        rules: LeakRules,
        secret: bytes,
        *,
        plan_of: PlanOf = _everybody,
        canaries_of: Callable[[SessionId], tuple[str, ...]] = lambda _: (),
        count: Callable[[str, str, int], None] = lambda *_: None,
    ) -> None:
        self.rules = rules
        self._secret = secret
        self._plan_of = plan_of
        self._canaries_of = canaries_of
        self._count = count
        self._scanners = {plan: Scanner(actions) for plan, actions in rules.actions.items()}
        self._instructions: OrderedDict[bytes, Instructions] = OrderedDict()  # by their text's digest

    async def watch_for(self, turn: Turn) -> Watch | None:
        """Return what is watched for in the answer to *turn*; None: nothing is."""
        rules = self.rules
        if rules.mode == "off" and not rules.modes:
            return None
        plan = DEFAULT_PLAN
        if len(rules.actions) > 1 or rules.modes:
            plan = await self._plan_of(turn)
        mode = rules.modes.get(plan, rules.mode)
        if mode == "off":
            return None
        if plan not in rules.actions:
            plan = DEFAULT_PLAN
        actions = self.rules.actions[plan]
        request = turn.request
        text = turn.config.instructions if request.instructions is None else request.instructions
        watches = actions.get("canary", "ignore") != "ignore"
        canaries = self._canaries_of(turn.session_id) if watches else ()
        scanner = self._scanners[plan]
        return Watch(
            scanner=scanner.watching(canaries) if canaries else scanner,
            actions=actions,
            placeholder=placeholder_of(self._secret, turn.session_id),
            canaries=canaries,
            instructions=await self._watched(text)
            if actions.get("instructions", "ignore") != "ignore"
            else None,
            tools=request.tools_with(turn.config),
            tool_outputs=self.rules.tool_outputs,
            is_shadow=mode == "shadow",
        )

    def note(self, found: Mapping[tuple[Entity, str], int], *, is_shadow: bool) -> None:
        """Count what was found in an answer that has ended."""
        for (entity, action), count in found.items():
            self._count(entity, f"{action}_shadow" if is_shadow else action, count)

    async def _watched(self, text: str) -> Instructions | None:
        """Return what is watched for of *text*. Others have their turn while it is read at first."""
        if not text:
            return None
        digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
        known = self._instructions.get(digest)
        if known is None:
            known = self._instructions[digest] = Instructions(text)
            words = sum(len(each.pairs) for each in self._instructions.values())
            while len(self._instructions) > 1 and (
                len(self._instructions) > _INSTRUCTIONS_KNOWN or words > _WORDS_KNOWN
            ):
                words -= len(self._instructions.popitem(last=False)[1].pairs)
        else:
            self._instructions.move_to_end(digest)
        known.read_on()
        while not known.is_whole:  # who else waits for it reads on, too
            await asyncio.sleep(0)
            known.read_on()
        return known or None


def placeholder_of(secret: bytes, session_id: SessionId) -> Callable[[Entity, str], str]:
    """Return what makes the placeholders of one session.

    The same thing has the same placeholder for as long as the session lives, on every node, in every
    attempt, and another one in every other session. Nobody who doesn't have the secret can find out
    from it what it stands for; nothing has to be remembered.
    """

    def placeholder(entity: Entity, known_by: str) -> str:
        if entity == "instructions":
            return "[instructions]"
        named = f"leak\0{session_id}\0{entity}\0{known_by}"
        digest = hmac.digest(secret, named.encode("utf-8", "replace"), hashlib.sha256)
        return f"[{entity.replace('_', ' ')} {base64.b32encode(digest[:5]).decode().lower()[:_TAG]}]"

    return placeholder
