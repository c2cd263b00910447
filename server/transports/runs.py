"""Runs of AG-UI: begun in a thread, come back to and stopped, through whichever of its doors."""

from __future__ import annotations

from typing import Final

from unbroken.server.protocols.agui.decode import Run
from unbroken.server.protocols.agui.encode import RunEncoder
from unbroken.server.protocols.agui.events import offset_of
from unbroken.server.protocols.agui.history import response_of, run_id_of, wanted_of_run
from unbroken.server.protocols.agui.messages import messages_of
from unbroken.server.protocols.items import DecodeError
from unbroken.server.protocols.ui.chunks import Fields
from unbroken.server.transports.chats import Chats, told_of
from unbroken.server.transports.exchange import Exchange
from unbroken.server.transports.exchanges import Speaker
from unbroken.sessions.errors import Refusal
from unbroken.sessions.ids import ResponseId
from unbroken.sessions.session import Session

__all__ = ["Runs"]

_FROM_THE_BEGINNING: Final = "-1"
"""The offset of whoever has seen nothing."""

_INSTRUCTIONS: Final = ("instructions", "response.instructions")
"""What parts of a request that say so are called."""


class Runs:
    """The runs of all speakers. A thread is a chat by that name, and each run an answer in it.

    Args:
        chats: The chats.

    """

    def __init__(self, chats: Chats) -> None:
        self._chats = chats

    async def ask(self, speaker: Speaker, run: Run) -> Exchange:
        """Have a run be begun, unless it is there already, and return the hold on it, at its beginning.

        Raises:
            DecodeError: It asks for what can't be.
            HttpRefusal: It is there, and can't be told any more piece by piece.
            Refusal: It may not, or not now.
            SessionError: It can't be had now.

        """
        plan = speaker.grant.principal.plan
        try:
            return await self._chats.ask_in(
                speaker, run.thread_id, lambda session: wanted_of_run(run, session, plan)
            )
        except (DecodeError, Refusal) as exc:
            if exc.param in _INSTRUCTIONS and run.context and run.chat.extension.instructions is None:
                exc.param = "context"  # the agent is told of it among these
            raise

    async def find(
        self, speaker: Speaker, thread_id: str | None, run_id: str | None, offset: str
    ) -> tuple[Exchange, int] | None:
        """Return the hold on a run, at its beginning, and the number of the last event that was seen of it.

        An offset says of which response it is. From the beginning, it is the run of that id in the thread, or
        whichever is being made there. None: none is.

        Raises:
            DecodeError: It isn't said which run it is.
            HttpRefusal: It can't be told any more piece by piece.
            SessionNotFound: There is none.
            SessionError: It can't be had now.

        """
        if offset != _FROM_THE_BEGINNING:
            seen = offset_of(offset)
            if seen is None:
                message = "`offset` must be an event's `id`, as it came, or -1 for all events."
                raise DecodeError("invalid_request", message, param="offset")
            return await self._chats.find(speaker, seen[0]), seen[1]
        if thread_id is None:
            message = "Say in which thread the run is: add `threadId` to the address."
            raise DecodeError("invalid_request", message, param="threadId")
        if run_id is None:
            running = await self._chats.find_running(speaker, thread_id)
            return None if running is None else (running, -1)

        def named(session: Session) -> ResponseId | None:
            return response_of(session, run_id)

        return await self._chats.find_named(speaker, thread_id, named), -1

    async def stop(self, speaker: Speaker, thread_id: str) -> bool:
        """Stop what runs in a thread, and return whether there was anything.

        Raises:
            SessionError: It can't be stopped now.

        """
        return await self._chats.stop(speaker, thread_id)

    async def look(self, speaker: Speaker, thread_id: str) -> Fields:
        """Return how a thread stands: its messages, and what runs. A thread comes to be with its first run.

        Raises:
            SessionError: It can't be had now.

        """

        def seen(session: Session) -> Fields:
            active = next(
                (each.id for each in session.responses.values() if each.request.in_conversation), None
            )
            run_id = None if active is None else run_id_of(session, active) or active
            return {
                "messages": messages_of(session),
                "activeRun": None if run_id is None else {"runId": run_id},
            }

        stands = await self._chats.read(speaker, thread_id, seen)
        return {"threadId": thread_id, **(stands or {"messages": [], "activeRun": None})}

    @staticmethod
    def encoder(exchange: Exchange, thread_id: str | None, run_id: str | None) -> RunEncoder:
        """Return what says a run, in a client's own names as far as they are known."""
        return RunEncoder(exchange.response_id, thread_id=thread_id, run_id=run_id, told=told_of(exchange))
