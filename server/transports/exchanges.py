"""Where a response that is asked for over HTTP belongs, and how it comes to be there.

A request names the response that it goes on from, or a conversation, or neither. The first goes on in the
same session, if that response is the last word there, and in a copy of its own otherwise. What is not to be
stored is in a session that this node alone has, and that goes a moment after its last response.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass
from typing import Final

from msgspec import UNSET
from msgspec.structs import replace

from unbroken.server.auth.base import Grant
from unbroken.server.files.references import Referring
from unbroken.server.guards.injection.screening import Screen
from unbroken.server.models import Models
from unbroken.server.protocols.items import DecodeError, check_pairs
from unbroken.server.protocols.responses.decode import Asked
from unbroken.server.quota.base import Decision
from unbroken.server.quota.gate import Gate
from unbroken.server.resume import ResumeTokens
from unbroken.server.transports.exchange import Exchange
from unbroken.server.transports.submission import Refer, Submission
from unbroken.sessions.clock import Clock
from unbroken.sessions.entries import Command, CreateItem, CreateResponse, InputKey, ResponseMerged, Submitted
from unbroken.sessions.errors import Refusal, SessionNotFound, StoreUnavailable
from unbroken.sessions.gates import Gates
from unbroken.sessions.ids import (
    ChainId,
    PrincipalId,
    ResponseId,
    SessionId,
    belongs_to,
    is_transient,
    new_chain_id,
    new_response_id,
    new_session_id,
    session_of,
)
from unbroken.sessions.items import Item, ResponseRequest, SessionConfig
from unbroken.sessions.node import Attachment, Node

__all__ = ["Exchanges", "Speaker"]

_BEGINNING: Final = 15.0
"""Seconds within which a response has been accepted, or can't be for the moment."""

_PINNED: Final = (
    "Whoever made your short-lived key has settled this for its sessions. "
    "Leave the field out, or have the key made otherwise."
)


_WIDER: Final = "The session is wider than this key allows. Go on with a key of its own kind."


@dataclass(frozen=True, slots=True)
class Speaker:
    """Who asks, and from where."""

    grant: Grant
    address: bytes | None

    @property
    def principal(self) -> PrincipalId:
        """Whose sessions these are."""
        return self.grant.principal.id


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a response belongs."""

    attachment: Attachment
    chain: ChainId
    before: tuple[Item, ...] = ()
    """What was said elsewhere before, and has to be said here first."""


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


class Exchanges:
    """Begins responses, and finds them again.

    Args:
        node: Has the sessions that are stored.
        transient: Has those that aren't.
        models: Which there are.
        defaults: How a session is that says nothing else.
        tokens: What sessions are gone on with over a WebSocket.
        screen: Looks for attacks.
        refer: Finds files.
        gate: Counts. None: nobody does.
        clock: Where time comes from.

    """

    def __init__(
        self,
        *,
        node: Node,
        transient: Node,
        models: Models,
        defaults: SessionConfig,
        tokens: ResumeTokens,
        screen: Screen,
        refer: Refer,
        gate: Gate | None,
        clock: Clock,
    ) -> None:
        self._node = node
        self._transient = transient
        self._models = models
        self._defaults = defaults
        self._tokens = tokens
        self._screen = screen
        self._refer = refer
        self._gate = gate
        self._clock = clock
        self._gates = Gates()

    # One that is there.

    async def find(self, speaker: Speaker, response_id: str) -> Exchange:
        """Return the hold of *speaker* on a response of theirs. Its session is there; look whether it is.

        Raises:
            SessionNotFound: There is none, or it is another's.
            SessionError: It can't be had now.

        """
        session_id = session_of(response_id)
        if session_id is None:
            raise SessionNotFound
        chain = new_chain_id()
        attachment = await self._attach(speaker, session_id, chain)
        return Exchange(
            attachment, ResponseId(response_id), chain, resume=self._token(attachment, chain, speaker)
        )

    async def _attach(self, speaker: Speaker, session_id: SessionId, chain: ChainId) -> Attachment:
        """Attach to a session of the speaker's: another's is told from theirs without asking anybody."""
        if not belongs_to(session_id, speaker.principal):
            raise SessionNotFound
        node = self._transient if is_transient(session_id) else self._node
        return await node.attach(session_id, speaker.principal, None, chain, whole=True)

    def _token(self, attachment: Attachment, chain: ChainId, speaker: Speaker) -> str | None:
        session_id = attachment.session.id
        if is_transient(session_id):
            return None
        return self._tokens.mint(session_id, chain, speaker.principal)

    # One that isn't.

    async def begin(self, speaker: Speaker, asked: Asked) -> Exchange:
        """Have what is asked for be begun, and return the hold on it: it is in the log.

        Raises:
            DecodeError: It asks for what can't be.
            SessionNotFound: It names a response, or a conversation, that isn't there.
            Refusal: It may not, or not now.
            SessionError: It can't be had now.

        """
        model = self._model(asked.model, speaker.grant)
        async with self._alone(asked):
            async with _soon():
                place = await self._place(speaker, asked)
            try:
                return await self._begin(speaker, asked, place, model)
            except BaseException:
                (place.attachment.drop if asked.is_lone else place.attachment.close)()
                raise

    def _alone(self, asked: Asked) -> AbstractAsyncContextManager[None]:
        """Let one request at a time find out whether it has the last word somewhere, and have it."""
        named = asked.conversation or (None if asked.previous is None else session_of(asked.previous))
        return nullcontext() if named is None else self._gates.through(SessionId(named))

    def _model(self, wanted: str | None, grant: Grant) -> str:
        pinned = UNSET if grant.pins is None else grant.pins.model
        model = self._models.resolve(wanted if pinned is UNSET else pinned)
        if model is None or (
            pinned is not UNSET and wanted is not None and self._models.resolve(wanted) != model
        ):
            message = f"The model isn't offered here. Use one of: {', '.join(self._models.names)}."
            raise DecodeError("model_not_found", message, param="model")
        return model

    async def _place(self, speaker: Speaker, asked: Asked) -> _Place:
        if asked.conversation is not None:
            named = asked.conversation.removeprefix("conv_")
            chain = new_chain_id()
            return _Place(await self._attach(speaker, SessionId(f"sess_{named}"), chain), chain)
        if asked.previous is not None:
            return await self._behind(speaker, asked, asked.previous)
        return await self._anew(speaker, asked)

    async def _behind(self, speaker: Speaker, asked: Asked, previous: str) -> _Place:
        """Return the place behind a response: where it is, or in a copy of what was said until then."""
        session_id, chain = session_of(previous), new_chain_id()
        if session_id is None:
            raise SessionNotFound
        attachment = await self._attach(speaker, session_id, chain)
        session = attachment.session
        if ResponseId(previous) in session.responses:
            attachment.close()
            message = f"Response {previous} is in progress. Wait until it is done, or cancel it."
            raise Refusal("conversation_already_has_active_response", message, param="previous_response_id")
        ended, items = session.endings.get(previous), session.items()
        if ended is None:
            attachment.close()
            raise SessionNotFound
        end = next((index for index, item in enumerate(items, 1) if item.id == ended.end), 0)
        is_last_word = end == len(items) and not session.is_running
        if is_last_word and asked.store != is_transient(session_id):
            return _Place(attachment, chain)
        attachment.close()
        return await self._anew(speaker, asked, tuple(items[:end]))

    async def _anew(self, speaker: Speaker, asked: Asked, before: Sequence[Item] = ()) -> _Place:
        """Return a place in a session that begins with it, or has begun with the same request before."""
        config, pins, chain = self._defaults, speaker.grant.pins, new_chain_id()
        if pins is not None:
            config = pins.applied(config)
        if not asked.store:
            attachment = await self._transient.create(speaker.principal, config, chain)
            return _Place(attachment, chain, tuple(before))
        session_id = None
        if asked.message_id is not None:
            session_id = new_session_id(speaker.principal, seed=asked.message_id)
            try:
                return _Place(await self._attach(speaker, session_id, chain), chain, tuple(before))
            except SessionNotFound:
                pass
        attachment = await self._node.create(speaker.principal, config, chain, session_id=session_id)
        return _Place(attachment, chain, tuple(before))

    async def _begin(self, speaker: Speaker, asked: Asked, place: _Place, model: str) -> Exchange:
        attachment, session, chain = place.attachment, place.attachment.session, place.chain
        decisions: list[Decision] = []
        luggage = _Luggage(self._refer)
        gate, principal = self._gate, speaker.grant.principal
        submission = Submission(
            attachment,
            principal,
            None if gate is None else gate.asker(principal, speaker.address),
            self._screen,
            luggage.refer if asked.is_lone else self._refer,
            decisions.append,
        )
        response_id = new_response_id(session.id, self._clock.time())
        request = replace(asked.request, model=None if model == session.config.model else model)
        self._check(speaker, asked, place, response_id)
        # All of it at once, and ahead of all: what is refused leaves nothing behind.
        await submission.check(CreateResponse(response_id, replace(request, input=asked.items)))
        try:
            async with _soon():
                seq = await self._write(submission, asked, place, response_id, request)
        except BaseException:
            await luggage.remove()
            raise
        return Exchange(
            attachment,
            _response_of(attachment, seq, response_id),
            chain,
            resume=self._token(attachment, chain, speaker),
            decision=decisions[0] if decisions else None,
            on_drop=luggage.remove,
        )

    async def _write(
        self,
        submission: Submission,
        asked: Asked,
        place: _Place,
        response_id: ResponseId,
        request: ResponseRequest,
    ) -> int:
        """Have a request be part of the session, and return its number there once it has been accepted."""
        attachment, session, chain = place.attachment, place.attachment.session, place.chain
        if asked.is_lone:
            said = (*place.before, *session.items(), *asked.items)
            check_pairs(list(said))
            request = replace(request, input=said)
            created = Submitted(CreateResponse(response_id, request), chain)
            receipt = await submission.write(created)
        else:
            await self._say(attachment, submission, asked, place)
            created = Submitted(CreateResponse(response_id, request), chain, key=_key(asked, "response"))
            receipt = await submission.write(created)
        await attachment.answered(receipt.seq)
        if (refused := session.refusals.get(receipt.seq)) is not None:
            raise Refusal(refused.code, refused.message, param=refused.param)
        return receipt.seq

    def _check(self, speaker: Speaker, asked: Asked, place: _Place, response_id: ResponseId) -> None:
        """Refuse what names items that aren't there, or changes what is settled."""
        session = place.attachment.session
        known = {item.id for item in place.before}
        for item_id in asked.references:
            if item_id not in known and session.item(item_id) is None:
                raise DecodeError("item_not_found", "The item referred to doesn't exist.", param="input")
        if (pins := speaker.grant.pins) is not None:
            if not pins.allows(session.config):
                raise DecodeError("session_pinned", _WIDER)
            command = CreateResponse(response_id, replace(asked.request, input=asked.items))
            if (field := pins.violation(command)) is not None:
                raise DecodeError("session_pinned", _PINNED, param=field.removeprefix("response."))

    async def _say(self, attachment: Attachment, submission: Submission, asked: Asked, place: _Place) -> None:
        """Have the items that come with a request be part of the conversation."""
        written: list[int] = []
        for index, item in enumerate((*place.before, *asked.items)):
            submitted = Submitted(CreateItem(item), place.chain, key=_key(asked, f"item {index}"))
            written.append((await submission.write(submitted)).seq)
        if written:
            await attachment.answered(max(written))
        for seq in written:
            if (refused := attachment.session.refusals.get(seq)) is not None:
                raise Refusal(refused.code, refused.message, param=refused.param)


@asynccontextmanager
async def _soon() -> AsyncIterator[None]:
    """Give up what isn't done in time: what it waits for is out of reach."""
    try:
        async with asyncio.timeout(_BEGINNING):
            yield
    except TimeoutError:
        raise StoreUnavailable from None


def _key(asked: Asked, what: str) -> InputKey | None:
    """Return the name that a part of a request is known again by. None: the request has none."""
    if asked.message_id is None:
        return None
    return InputKey(f"h:{what}:{asked.message_id}", asked.digest)


def _response_of(attachment: Attachment, seq: int, response_id: ResponseId) -> ResponseId:
    """Return which response answers the request that is input *seq*: an earlier one may, or another's."""
    given = attachment.log.input_at(seq)
    if given is not None and isinstance(given.command, CreateResponse):
        response_id = given.command.response_id
    if attachment.session.was_merged(response_id):
        for record in attachment.log.read(max(seq, attachment.log.floor), 64):
            body = getattr(record, "body", None)
            if isinstance(body, ResponseMerged) and body.input == seq:
                return body.response_id
    return response_id
