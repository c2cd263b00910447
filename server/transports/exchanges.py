"""Where a response that is asked for over HTTP belongs, and how it comes to be there.

A request names the response that it goes on from, or a conversation, or neither. The first goes on in the
same session, if that response is the last word there, and in a copy of its own otherwise. What is not to be
stored is in a session that this node alone has, and that goes a moment after its last response.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
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
from unbroken.server.transports.awaiting import until_ended
from unbroken.server.transports.exchange import Exchange
from unbroken.server.transports.submission import Refer, Submission
from unbroken.sessions.clock import Clock
from unbroken.sessions.entries import (
    Command,
    CreateItem,
    CreateResponse,
    DeleteItem,
    InputKey,
    ResponseMerged,
    Submitted,
    UpdateConfig,
)
from unbroken.sessions.errors import Refusal, SessionNotFound, StoreUnavailable
from unbroken.sessions.gates import Gates
from unbroken.sessions.ids import (
    ChainId,
    ItemId,
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
from unbroken.sessions.session import Session

__all__ = ["Exchanges", "Speaker"]

_BEGINNING: Final = 15.0
"""Seconds within which a response has been accepted, or can't be for the moment."""

_STOPPING: Final = 5.0
"""Seconds that whoever stops an answer waits for its end: agents clean up."""

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

    async def begin_in(
        self,
        speaker: Speaker,
        session_id: SessionId,
        decide: Callable[[Session | None], Asked | ResponseId],
    ) -> Exchange:
        """As :meth:`begin`, in a session of the speaker's choice, which begins with it if it isn't there.

        *decide* looks at the session, or at None, and says what is to be asked for; or which response there
        is, if that is what was asked for. It may be called more than once.

        Raises:
            DecodeError: It asks for what can't be.
            Refusal: It may not, or not now.
            SessionError: It can't be had now.

        """
        async with self._gates.through(session_id):
            chain = new_chain_id()
            async with _soon():
                try:
                    attachment = await self._attach(speaker, session_id, chain)
                except SessionNotFound:
                    decided = decide(None)
                    if isinstance(decided, Asked):
                        self._model(decided.model, speaker.grant)  # what can't be begins nothing
                    attachment = await self._create(speaker, chain, session_id)
            try:
                return await self._decided(speaker, _Place(attachment, chain), decide)
            except BaseException:
                attachment.close()
                raise

    async def _decided(
        self, speaker: Speaker, place: _Place, decide: Callable[[Session | None], Asked | ResponseId]
    ) -> Exchange:
        attachment, chain = place.attachment, place.chain
        decided = decide(attachment.session)
        if isinstance(decided, Asked) and decided.supersedes and attachment.session.is_running:
            self._model(decided.model, speaker.grant)
            async with _soon():
                await self._make_way(place)
            decided = decide(attachment.session)  # there is more by now
        if isinstance(decided, Asked):
            return await self._begin(speaker, decided, place, self._model(decided.model, speaker.grant))
        return Exchange(attachment, decided, chain, resume=self._token(attachment, chain, speaker))

    async def stop_in(self, speaker: Speaker, session_id: SessionId) -> bool:
        """Stop what is being answered in a session of the speaker's, and return whether there was anything.

        Raises:
            Refusal: It can't be stopped now.
            SessionError: It can't be had now.

        """
        chain = new_chain_id()
        async with _soon():
            try:
                attachment = await self._attach(speaker, session_id, chain)
            except SessionNotFound:
                return False
            try:
                return await self._make_way(_Place(attachment, chain))
            finally:
                attachment.close()

    async def _make_way(self, place: _Place) -> bool:
        """Stop what is being answered in the conversation, and what waits."""
        running = [
            Exchange(place.attachment, response.id, place.chain)
            for response in place.attachment.session.responses.values()
            if response.request.in_conversation
        ]
        stopped = [await each.cancel() for each in reversed(running)]  # else the next one would begin
        for each in running:
            await until_ended(each, _STOPPING)
        return any(stopped)

    async def stand(self, speaker: Speaker, session_id: SessionId) -> Attachment:
        """Return the hold of *speaker* on a session of theirs, to look at how it stands.

        Raises:
            SessionNotFound: There is none, or it is another's.
            SessionError: It can't be had now.

        """
        return await self._attach(speaker, session_id, new_chain_id())

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
        chain = new_chain_id()
        if not asked.store:
            config = self._config(speaker)
            attachment = await self._transient.create(speaker.principal, config, chain)
            return _Place(attachment, chain, tuple(before))
        session_id = None
        if asked.message_id is not None:
            session_id = new_session_id(speaker.principal, seed=asked.message_id)
            try:
                return _Place(await self._attach(speaker, session_id, chain), chain, tuple(before))
            except SessionNotFound:
                pass
        attachment = await self._create(speaker, chain, session_id)
        return _Place(attachment, chain, tuple(before))

    async def _create(self, speaker: Speaker, chain: ChainId, session_id: SessionId | None) -> Attachment:
        return await self._node.create(speaker.principal, self._config(speaker), chain, session_id=session_id)

    def _config(self, speaker: Speaker) -> SessionConfig:
        pins = speaker.grant.pins
        return self._defaults if pins is None else pins.applied(self._defaults)

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
        pins = speaker.grant.pins
        request = replace(
            asked.request,
            model=None if model == session.config.model else model,
            settled=None if pins is None else pins.settled,
        )
        self._check(speaker, asked, place, response_id)
        # All of it at once, and ahead of all: what is refused leaves nothing behind.
        await submission.check(CreateResponse(response_id, replace(request, input=asked.items)))
        try:
            async with _soon():
                await self._configure(speaker, submission, asked, place)
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

    async def _configure(self, speaker: Speaker, submission: Submission, asked: Asked, place: _Place) -> None:
        """Change of the session what a request says of it."""
        if asked.reasoning in (None, place.attachment.session.config.reasoning is True):
            return
        command = UpdateConfig(reasoning=asked.reasoning is True)
        if (pins := speaker.grant.pins) is not None and pins.violation(command) is not None:
            raise DecodeError("session_pinned", _PINNED, param="unbroken.reasoning")
        await submission.write(Submitted(command, place.chain))

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
        for item_id in asked.removed:
            if attachment.session.item(item_id) is not None:  # else it went with another
                await self._remove(attachment, place, item_id)
        written: list[int] = []
        for index, item in enumerate((*place.before, *asked.items)):
            named = f"item {item.id if asked.are_named else index}"
            submitted = Submitted(CreateItem(item), place.chain, key=_key(asked, named))
            written.append((await submission.write(submitted)).seq)
        if written:
            await attachment.answered(max(written))
        for seq in written:
            if (refused := attachment.session.refusals.get(seq)) is not None:
                raise Refusal(refused.code, refused.message, param=refused.param)

    async def _remove(self, attachment: Attachment, place: _Place, item_id: ItemId) -> None:
        receipt = await attachment.submit(Submitted(DeleteItem(item_id), place.chain))
        await attachment.answered(receipt.seq)
        refused = attachment.session.refusals.get(receipt.seq)
        if refused is not None and refused.code != "item_not_found":  # another was faster
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
