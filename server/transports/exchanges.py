"""Where a response that is asked for over HTTP belongs, and how it comes to be there.

A request names the response that it goes on from, or a conversation, or neither. The first goes on in the
same session, if that response is the last word there, and in a copy of its own otherwise. What is not to be
stored is in a session that this node alone has, and that goes a moment after its last response.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Final

from msgspec import UNSET
from msgspec.structs import replace

from unbroken.server.auth.base import Grant
from unbroken.server.guards.injection.screening import Screen
from unbroken.server.models import Models
from unbroken.server.protocols.asked import Asked
from unbroken.server.protocols.conversation_names import session_named
from unbroken.server.protocols.items import DecodeError
from unbroken.server.quota.gate import Gate
from unbroken.server.resume import ResumeTokens
from unbroken.server.transports.awaiting import until_ended
from unbroken.server.transports.beginning import WIDER, Beginnings, Place, Speaker, is_known
from unbroken.server.transports.exchange import Exchange, soon
from unbroken.server.transports.submission import Admit, Refer, Submission
from unbroken.sessions.clock import Clock
from unbroken.sessions.concurrency import moved_on
from unbroken.sessions.endings import Ended
from unbroken.sessions.errors import CursorLost, NodeDraining, Refusal, SessionNotFound
from unbroken.sessions.event_log import Position
from unbroken.sessions.gates import Gates
from unbroken.sessions.ids import (
    ChainId,
    ResponseId,
    SessionId,
    belongs_to,
    is_transient,
    new_chain_id,
    new_session_id,
    session_of,
)
from unbroken.sessions.items import Item, SessionConfig
from unbroken.sessions.node import Attachment, Node
from unbroken.sessions.session import Session

__all__ = ["Exchanges", "Speaker"]

_STOPPING: Final = 5.0
"""Seconds that whoever stops an answer waits for its end: agents clean up."""

_ELSEWHERE: Final = "With `resume` a request goes on in that session. Name it as its `conversation`."


class _BegunElsewhere(CursorLost):
    """Another node has begun the session in this moment, and nothing was said in it here."""


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
        admit: Asked ahead of the first input of a session.
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
        admit: Admit,
        gate: Gate | None,
        clock: Clock,
    ) -> None:
        self._node = node
        self._transient = transient
        self._models = models
        self._defaults = defaults
        self._tokens = tokens
        self._beginnings = Beginnings(screen, refer, admit, gate, clock)
        self._gates = Gates()

    # One that is there.

    async def find(self, speaker: Speaker, response_id: str, *, watches: bool = True) -> Exchange:
        """Return the hold of *speaker* on a response of theirs. Its session is there; look whether it is.

        Whoever stops it, or looks at it once, *watches* nothing: see :meth:`Node.attach`. Nor does whoever
        reads one that has ended on a node that drains; one that runs is followed on others.

        Raises:
            SessionNotFound: There is none, or it is another's.
            SessionError: It can't be had now.

        """
        session_id = session_of(response_id)
        if session_id is None:
            raise SessionNotFound
        chain = new_chain_id()
        is_leaving = watches and self._node_of(session_id).is_draining
        attachment = await self._attach(speaker, session_id, chain, watches=watches and not is_leaving)
        session, named = attachment.session, ResponseId(response_id)
        try:
            if not self._knows(attachment, named):
                await attachment.catch_up()  # this node may not have heard of it
        except BaseException:
            attachment.close()
            raise
        if _is_deleted(session, named):
            attachment.close()
            raise SessionNotFound
        if is_leaving and named in session.responses:
            attachment.close()
            raise NodeDraining
        return Exchange(attachment, named, chain, resume=self.token(attachment, chain, speaker))

    @staticmethod
    def _knows(attachment: Attachment, response_id: ResponseId) -> bool:
        session = attachment.session
        is_there = response_id in session.responses or session.endings.get(response_id) is not None
        return is_there or attachment.log.beginning_of(response_id) is not None

    async def _attach(
        self,
        speaker: Speaker,
        session_id: SessionId,
        chain: ChainId,
        position: Position | None = None,
        *,
        whole: bool = True,
        watches: bool = True,
    ) -> Attachment:
        """Attach to a session of the speaker's: another's is told from theirs without asking anybody."""
        if not belongs_to(session_id, speaker.principal):
            raise SessionNotFound
        if speaker.resume is not None:
            named = self._tokens.check(speaker.resume, speaker.principal)
            if named is None or named[0] != session_id:
                raise SessionNotFound
        attachment = await self._node_of(session_id).attach(
            session_id, speaker.principal, position, chain, whole=whole, watches=watches
        )
        pins = speaker.grant.pins
        if pins is not None and not pins.allows(attachment.session.config):
            attachment.close()
            raise DecodeError("session_pinned", WIDER)
        return attachment

    def _node_of(self, session_id: SessionId) -> Node:
        return self._transient if is_transient(session_id) else self._node

    def token(self, attachment: Attachment, chain: ChainId, speaker: Speaker) -> str | None:
        """Return with what a session is gone on with over a WebSocket. None: it can't be."""
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
        async with self._alone(speaker, asked):
            try:
                return await self._begin(speaker, asked, model)
            except CursorLost:
                if asked.message_id is None:  # else nothing is done twice
                    raise
                has_moved_on = False
            except Refusal as exc:
                if exc.code != moved_on().code:
                    raise
                has_moved_on = True
            # Somebody on another node was first: theirs is the last word, or the session of that name.
            return await self._begin(speaker, asked, model, has_moved_on=has_moved_on)

    async def _begin(
        self, speaker: Speaker, asked: Asked, model: str, *, has_moved_on: bool = False
    ) -> Exchange:
        async with soon():
            place = await self._place(speaker, asked, has_moved_on=has_moved_on)
        try:
            return await self._beginnings.begin(
                speaker, asked, place, model, self.token(place.attachment, place.chain, speaker)
            )
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
            with suppress(_BegunElsewhere):
                return await self._begin_in(speaker, session_id, decide)
            return await self._begin_in(speaker, session_id, decide)  # there it is

    async def _begin_in(
        self,
        speaker: Speaker,
        session_id: SessionId,
        decide: Callable[[Session | None], Asked | ResponseId],
    ) -> Exchange:
        chain = new_chain_id()
        async with soon():
            try:
                attachment = await self._attach(speaker, session_id, chain)
            except SessionNotFound:
                decided = decide(None)
                if isinstance(decided, Asked):
                    self._model(decided.model, speaker.grant)  # what can't be begins nothing
                attachment = await self._create(speaker, chain, session_id)
        try:
            return await self._decided(speaker, Place(attachment, chain), decide)
        except BaseException as exc:
            attachment.close()
            if isinstance(exc, CursorLost) and not attachment.session.applied:
                raise _BegunElsewhere from exc
            raise

    async def _decided(
        self, speaker: Speaker, place: Place, decide: Callable[[Session | None], Asked | ResponseId]
    ) -> Exchange:
        attachment, chain = place.attachment, place.chain
        decided = decide(attachment.session)
        if isinstance(decided, Asked) and decided.supersedes and attachment.session.is_running:
            self._model(decided.model, speaker.grant)
            async with soon():
                await self._make_way(place)
            decided = decide(attachment.session)  # there is more by now
        if isinstance(decided, Asked):
            model = self._model(decided.model, speaker.grant)
            token = self.token(attachment, chain, speaker)
            return await self._beginnings.begin(speaker, decided, place, model, token)
        return Exchange(attachment, decided, chain, resume=self.token(attachment, chain, speaker))

    async def stop_in(self, speaker: Speaker, session_id: SessionId) -> bool:
        """Stop what is being answered in a session of the speaker's, and return whether there was anything.

        Raises:
            Refusal: It can't be stopped now.
            SessionError: It can't be had now.

        """
        chain = new_chain_id()
        async with soon():
            try:
                attachment = await self._attach(speaker, session_id, chain, watches=False)
            except SessionNotFound:
                return False
            try:
                return await self._make_way(Place(attachment, chain))
            finally:
                attachment.close()

    async def _make_way(self, place: Place) -> bool:
        """Stop what is being answered in the conversation, and what waits."""
        running = [
            Exchange(place.attachment, response.id, place.chain)
            for response in place.attachment.session.responses.values()
            if response.request.in_conversation
        ]
        stopped = [await each.stop() for each in reversed(running)]  # else the next one would begin
        for each in running:
            await until_ended(each, _STOPPING)
        return any(stopped)

    async def stand(self, speaker: Speaker, session_id: SessionId) -> Attachment:
        """Return the hold of *speaker* on a session of theirs, to look at how it stands. It watches nothing.

        Raises:
            SessionNotFound: There is none, or it is another's.
            SessionError: It can't be had now.

        """
        return await self._attach(speaker, session_id, new_chain_id(), watches=False)

    async def open(
        self, speaker: Speaker, metadata: dict[str, str], session_id: SessionId | None = None
    ) -> Attachment:
        """Return the hold on a session that begins. It is in no store before its first input.

        One that has a *session_id* of its own, by a name of the client's, may be there already.

        Raises:
            DecodeError: The speaker is here for another one.
            SessionError: It can't be had now.

        """
        chain = new_chain_id()
        if session_id is not None:
            with suppress(SessionNotFound):
                return await self._attach(speaker, session_id, chain)
        return await self._create(speaker, chain, session_id, metadata)

    def submission(self, speaker: Speaker, attachment: Attachment) -> Submission:
        """Return the way of a speaker's inputs into a session."""
        return self._beginnings.submission(speaker, attachment)

    async def listen(self, speaker: Speaker, session_id: SessionId, position: Position | None) -> Attachment:
        """Return the hold of *speaker* on a session of theirs, to be told of it from *position* on.

        None: from its beginning. Where that isn't possible, from how it stands: see :class:`Attachment`.

        Raises:
            SessionNotFound: There is none, or it is another's.
            SessionError: It can't be had now.

        """
        return await self._attach(speaker, session_id, new_chain_id(), position, whole=False)

    @asynccontextmanager
    async def _alone(self, speaker: Speaker, asked: Asked) -> AsyncIterator[None]:
        """Let one request at a time find out whether it has the last word somewhere, and have it."""
        session_id = _session_named(asked)
        async with AsyncExitStack() as stack:
            # Nobody waits for another's: they would learn that there is one.
            if session_id is not None and belongs_to(session_id, speaker.principal):
                async with soon():
                    await stack.enter_async_context(self._gates.through(session_id))
            yield

    def _model(self, wanted: str | None, grant: Grant) -> str:
        pinned = UNSET if grant.pins is None else grant.pins.model
        model = self._models.resolve(wanted if pinned is UNSET else pinned)
        if model is None or (
            pinned is not UNSET and wanted not in (None, "default") and self._models.resolve(wanted) != model
        ):
            message = f"The model isn't offered here. Use one of: {', '.join(self._models.names)}."
            raise DecodeError("model_not_found", message, param="model")
        return model

    async def _place(self, speaker: Speaker, asked: Asked, *, has_moved_on: bool) -> Place:
        session_id, chain = _session_named(asked), new_chain_id()
        if asked.conversation is not None and session_id is not None:
            if asked.store == is_transient(session_id):
                message = "A conversation is stored as a whole, or not at all: leave out `store`."
                raise DecodeError("invalid_request", message, param="store")
            return Place(await self._attach(speaker, session_id, chain), chain)
        if asked.previous is not None:
            return await self._behind(speaker, asked, asked.previous, has_moved_on=has_moved_on)
        return await self._anew(speaker, asked)

    async def _behind(self, speaker: Speaker, asked: Asked, previous: str, *, has_moved_on: bool) -> Place:
        """Return the place behind a response: where it is, or in a copy of what was said until then."""
        session_id, chain = session_of(previous), new_chain_id()
        if session_id is None:
            raise SessionNotFound
        attachment = await self._attach(speaker, session_id, chain)
        session = attachment.session
        try:
            if not has_moved_on and await is_known(attachment, chain, asked):
                return Place(attachment, chain)  # it was asked for before, and had the last word then
        except BaseException:
            attachment.close()
            raise
        if has_moved_on:
            await attachment.catch_up()
        previous = session.later_attempt(ResponseId(previous)) or previous  # what stands for it
        if ResponseId(previous) in session.responses:
            attachment.close()
            message = f"Response {previous} is in progress. Wait until it is done, or cancel it."
            raise Refusal("conversation_already_has_active_response", message, param="previous_response_id")
        ended, items = session.endings.get(previous), session.items()
        end = _place_behind(ended, items)
        if ended is None or end is None:
            attachment.close()
            raise SessionNotFound
        is_last_word = end == len(items) and not (session.is_running or has_moved_on)
        if is_last_word and not asked.is_lone and asked.store != is_transient(session_id):
            return Place(attachment, chain, behind=ended.end)
        attachment.close()
        return await self._anew(speaker, asked, tuple(items[:end]))

    async def _anew(self, speaker: Speaker, asked: Asked, before: Sequence[Item] = ()) -> Place:
        """Return a place in a session that begins with it, or has begun with the same request before."""
        chain = new_chain_id()
        if not asked.store:
            config = self._config(speaker)
            if not asked.has_tools:
                config = replace(config, tools=(), server_tools=False)
            attachment = await self._transient.create(speaker.principal, config, chain)
            return Place(attachment, chain, tuple(before))
        session_id = None
        if asked.message_id is not None:
            session_id = new_session_id(speaker.principal, seed=f"response:{asked.message_id}")
            try:
                return Place(await self._attach(speaker, session_id, chain), chain, tuple(before))
            except SessionNotFound:
                pass
        attachment = await self._create(speaker, chain, session_id)
        return Place(attachment, chain, tuple(before))

    async def _create(
        self,
        speaker: Speaker,
        chain: ChainId,
        session_id: SessionId | None,
        metadata: dict[str, str] | None = None,
    ) -> Attachment:
        config = self._config(speaker)
        if metadata:
            config = replace(config, metadata=metadata)
        return await self._node.create(speaker.principal, config, chain, session_id=session_id)

    def _config(self, speaker: Speaker) -> SessionConfig:
        """Return how a session of the speaker's begins."""
        if speaker.resume is not None:
            raise DecodeError("session_pinned", _ELSEWHERE, param="conversation")
        pins = speaker.grant.pins
        return self._defaults if pins is None else pins.applied(self._defaults)


def _session_named(asked: Asked) -> SessionId | None:
    """Return the session that a request names, by itself or by a response of it. None: none."""
    if asked.conversation is not None:
        return session_named(asked.conversation)
    return None if asked.previous is None else session_of(asked.previous)


def _is_deleted(session: Session, response_id: ResponseId) -> bool:
    """Return whether a response was deleted: where it was cut off, the attempt that stands for it."""
    ended = session.endings.get(session.later_attempt(response_id) or response_id)
    return ended is not None and ended.is_deleted


def _place_behind(ended: Ended | None, items: Sequence[Item]) -> int | None:
    """Return how many of *items* had been said when a response had ended; None: nobody can say any more."""
    if ended is None or ended.is_deleted:
        return None
    if ended.end is None:
        return 0
    return next((index for index, item in enumerate(items, 1) if item.id == ended.end), None)
