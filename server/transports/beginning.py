"""How a response begins that is asked for over HTTP: looked at, written, accepted, or taken back again."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from msgspec import UNSET, UnsetType
from msgspec.structs import replace

from unbroken.server.auth.base import Grant
from unbroken.server.files.references import Referring
from unbroken.server.guards.injection.screening import Screen
from unbroken.server.protocols.asked import Asked
from unbroken.server.protocols.items import DecodeError, check_pairs
from unbroken.server.quota.base import Decision
from unbroken.server.quota.gate import Gate
from unbroken.server.transports.exchange import Exchange, soon
from unbroken.server.transports.submission import Admit, Refer, Submission
from unbroken.sessions.clock import Clock
from unbroken.sessions.entries import (
    Command,
    CreateResponse,
    InputKey,
    ResponseMerged,
    Submitted,
    UpdateConfig,
)
from unbroken.sessions.errors import Refusal
from unbroken.sessions.ids import (
    ChainId,
    ItemId,
    PrincipalId,
    ResponseId,
    new_response_id,
)
from unbroken.sessions.items import Item, ResponseRequest
from unbroken.sessions.node import Attachment

__all__ = ["WIDER", "Beginnings", "Place", "Speaker", "accepted", "is_known"]

_PINNED: Final = (
    "Whoever made your short-lived key has settled this for its sessions. "
    "Leave the field out, or have the key made otherwise."
)


WIDER: Final = "The session is wider than this key allows. Go on with a key of its own kind."


@dataclass(frozen=True, slots=True)
class Speaker:
    """Who asks, and from where."""

    grant: Grant
    address: bytes | None
    resume: str | None = None
    """The resume token that comes with it: then they are here for its session, and for no other."""
    trace: str | None = None
    """The trace that what they ask for belongs to."""

    @property
    def principal(self) -> PrincipalId:
        """Whose sessions these are."""
        return self.grant.principal.id


@dataclass(frozen=True, slots=True)
class Place:
    """Where a response belongs."""

    attachment: Attachment
    chain: ChainId
    before: tuple[Item, ...] = ()
    """What was said elsewhere before, and has to be said here first."""
    behind: ItemId | UnsetType | None = UNSET
    """The item that has to be the last one there by then. Unset: whichever is."""


class _Luggage:
    """Has the references of a request stand for files that nobody needs behind its answer."""

    def __init__(self, refer: Refer) -> None:
        self._refer = refer
        self._brought: list[tuple[Referring, PrincipalId]] = []

    @asynccontextmanager
    async def refer(self, command: Command, principal: PrincipalId) -> AsyncIterator[Referring]:
        """See :data:`Refer`."""
        async with self._refer(command, principal) as referring:
            yield referring
        if referring.is_wanted:
            self._brought.append((referring, principal))

    async def remove(self) -> None:
        """Remove the files that came with the request. Those that it named are another's matter."""
        for referring, principal in self._brought:
            await referring.remove(principal)


class Beginnings:
    """Begins responses where they belong.

    Args:
        screen: Looks for attacks.
        refer: Finds files.
        admit: Asked ahead of the first input of a session.
        gate: Counts. None: nobody does.
        clock: Where time comes from.

    """

    def __init__(self, screen: Screen, refer: Refer, admit: Admit, gate: Gate | None, clock: Clock) -> None:
        self._screen = screen
        self._admit = admit
        self._refer = refer
        self._gate = gate
        self._clock = clock

    async def begin(
        self, speaker: Speaker, asked: Asked, place: Place, model: str, resume: str | None
    ) -> Exchange:
        """Have what is asked for be begun in *place*, and return the hold on it: it is in the log.

        Args:
            speaker: Who asks.
            asked: For what.
            place: Where.
            model: Of which model.
            resume: The token with which the session is gone on with over a WebSocket. None: it can't be.

        Raises:
            DecodeError: It asks for what can't be.
            Refusal: It may not, or not now. Nothing of it is left, unless it has a name to come again by.
            SessionError: It can't be had now.

        """
        attachment, session, chain = place.attachment, place.attachment.session, place.chain
        decisions: list[Decision] = []
        luggage = _Luggage(self._refer)
        refer = luggage.refer if asked.is_lone else self._refer
        submission = self._submission(speaker, attachment, refer, decisions.append)
        response_id = new_response_id(session.id, self._clock.time())
        pins = speaker.grant.pins
        is_unsaid = asked.model is None and (pins is None or pins.model is UNSET)  # as the session has it
        request = replace(
            asked.request,
            model=None if is_unsaid or model == session.config.model else model,
            settled=None if pins is None else pins.settled,
        )
        self._check(speaker, asked, place, response_id)
        # All of it at once, and ahead of all: what is refused leaves nothing behind.
        await submission.check(CreateResponse(response_id, replace(request, input=asked.items)))
        try:
            async with soon():
                await self._configure(speaker, submission, asked, place)
                seq = await self._write(submission, asked, place, response_id, request)
        except BaseException:
            await luggage.remove()
            raise
        response_id = _response_of(attachment, seq, response_id)
        return Exchange(
            attachment,
            session.later_attempt(response_id) or response_id,  # asked for before, and cut off
            chain,
            resume=resume,
            decision=decisions[0] if decisions else None,
            on_drop=luggage.remove,
        )

    def submission(self, speaker: Speaker, attachment: Attachment) -> Submission:
        """Return the way of a speaker's inputs into a session, where no response is asked for."""
        return self._submission(speaker, attachment, self._refer, lambda _: None)

    def _submission(
        self,
        speaker: Speaker,
        attachment: Attachment,
        refer: Refer,
        on_decision: Callable[[Decision], None],
    ) -> Submission:
        gate, principal = self._gate, speaker.grant.principal
        asker = None if gate is None else gate.asker(principal, speaker.address)
        return Submission(
            attachment,
            principal,
            asker,
            self._screen,
            refer,
            self._admit,
            on_decision,
            trace=speaker.trace,
        )

    async def _write(
        self,
        submission: Submission,
        asked: Asked,
        place: Place,
        response_id: ResponseId,
        request: ResponseRequest,
    ) -> int:
        """Have a request be part of the session, and return its number there once it has been accepted."""
        attachment, session = place.attachment, place.attachment.session
        if asked.is_lone:
            said = (*place.before, *session.items(), *asked.items)
            check_pairs(list(said))
            if asked.most_tokens is not None:
                request = replace(request, max_output_tokens=asked.most_tokens(said))
            said += asked.closing
            command, key = CreateResponse(response_id, replace(request, input=said)), None
        else:
            said = (*place.before, *asked.items)
            command = CreateResponse(response_id, request, asked.removed, said, place.behind)
            key = _key(asked)
        receipt = await submission.write(Submitted(command, place.chain, key=key))
        await accepted(attachment, receipt.seq)
        return receipt.seq

    async def _configure(self, speaker: Speaker, submission: Submission, asked: Asked, place: Place) -> None:
        """Change of the session what a request says of it."""
        if asked.reasoning in (None, place.attachment.session.config.reasoning is True):
            return
        command = UpdateConfig(reasoning=asked.reasoning is True)
        if (pins := speaker.grant.pins) is not None and pins.violation(command) is not None:
            raise DecodeError("session_pinned", _PINNED, param="unbroken.reasoning")
        await submission.write(Submitted(command, place.chain))

    def _check(self, speaker: Speaker, asked: Asked, place: Place, response_id: ResponseId) -> None:
        """Refuse what names items that aren't there, or changes what is settled."""
        session = place.attachment.session
        known = {item.id for item in place.before}
        for item_id in asked.references:
            if item_id not in known and session.item(item_id) is None:
                raise DecodeError("item_not_found", "The item referred to doesn't exist.", param="input")
        if (pins := speaker.grant.pins) is not None:
            if not pins.allows(session.config):
                raise DecodeError("session_pinned", WIDER)
            command = CreateResponse(response_id, replace(asked.request, input=asked.items))
            if (field := pins.violation(command)) is not None:
                raise DecodeError("session_pinned", _PINNED, param=field.removeprefix("response."))


async def accepted(attachment: Attachment, seq: int) -> None:
    """Wait until input *seq* has been accepted.

    Raises:
        Refusal: It hasn't.

    """
    await attachment.answered(seq)
    if (refused := attachment.session.refusals.get(seq)) is not None:
        raise Refusal(refused.code, refused.message, param=refused.param)


def _key(asked: Asked) -> InputKey | None:
    """Return the name that a request is known again by. None: it has none."""
    return None if asked.message_id is None else InputKey(f"h:response:{asked.message_id}", asked.digest)


def _response_of(attachment: Attachment, seq: int, response_id: ResponseId) -> ResponseId:
    """Return which response answers the request that is input *seq*: an earlier one may, or another's."""
    given, session = attachment.log.input_at(seq), attachment.session
    if given is not None and isinstance(given.command, CreateResponse):
        response_id = given.command.response_id
    elif (ended := session.endings.of_turn(seq)) is not None:
        response_id = ended.id
    else:
        response_id = next((each.id for each in session.responses.values() if each.turn == seq), response_id)
    if attachment.session.was_merged(response_id):
        for record in attachment.log.read(max(seq, attachment.log.floor), 64):
            body = getattr(record, "body", None)
            if isinstance(body, ResponseMerged) and body.input == seq:
                return body.response_id
    return response_id


async def is_known(attachment: Attachment, chain: ChainId, asked: Asked) -> bool:
    """Return whether a request has been written here before, by its name."""
    if (key := _key(asked)) is None:
        return False
    return await attachment.recall(Submitted(CreateResponse(ResponseId(""), asked.request), chain, key=key))
