"""One speaker's inputs on their way into a session: looked at, paid for ahead, and written.

Every door takes what comes through here, so that there is no way around a guard or a budget.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, suppress
from typing import Final, TypeAlias

from msgspec.structs import replace

from unbroken.server.auth.principal import Principal
from unbroken.server.files.references import Referring, needs_files
from unbroken.server.guards.injection.screening import Screen
from unbroken.server.quota.asker import Asker
from unbroken.server.quota.base import Decision
from unbroken.server.quota.refusal import QuotaRefusal
from unbroken.sessions.backends.base import Receipt
from unbroken.sessions.entries import Command, CreateResponse, Submitted
from unbroken.sessions.errors import Refusal, SessionError, StoreUnavailable
from unbroken.sessions.ids import PrincipalId, SessionId
from unbroken.sessions.node import Attachment

__all__ = ["Admit", "Refer", "Submission"]

_CATCHING_UP: Final = 0.5
"""Seconds that an input waits for the one before it to be part of the session."""

Refer: TypeAlias = Callable[[Command, PrincipalId], AbstractAsyncContextManager[Referring]]
"""Has an input's references stand for files."""

Admit: TypeAlias = Callable[[Principal, SessionId], Awaitable[None]]
"""Has a session begin in the store, or refuses it."""


class Submission:
    """Takes one speaker's inputs to a session, one after another. Use from one task at a time.

    Args:
        attachment: Their hold on the session.
        principal: Who speaks.
        asker: Asks for budgets. None: nothing is counted.
        screen: Looks for attacks.
        refer: Finds files.
        admit: Asked ahead of the first input of a session.
        on_decision: Told of what was reserved, and what is left.
        trace: The trace that what they ask for belongs to. None: to none.

    """

    def __init__(
        self,
        attachment: Attachment,
        principal: Principal,
        asker: Asker | None,
        screen: Screen,
        refer: Refer,
        admit: Admit,
        on_decision: Callable[[Decision], None],
        *,
        trace: str | None = None,
    ) -> None:
        self._attachment = attachment
        self._principal = principal
        self._asker = asker
        self._screen = screen
        self._refer = refer
        self._admit = admit
        self._on_decision = on_decision
        self._trace = trace
        self._submitted = 0  # the last input that was written
        self._awaited = 0  # the last one that another waited for

    async def catch_up(self) -> None:
        """Wait until what was sent just now is part of the session.

        Not for ever: a store that loses something may have lost that, and its number is another's then.
        """
        if self._awaited == self._submitted:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(_CATCHING_UP):
                await self._attachment.answered(self._submitted)
        self._awaited = self._submitted

    async def check(self, command: Command) -> None:
        """Have the guards look at *command*: for milliseconds, and never longer than their time-out.

        What files of the store say is looked at part by part, and that holds for each of them.

        Raises:
            Refusal: It doesn't pass, or couldn't be checked.

        """
        await self._screen(command, self._principal, self._attachment.session)

    async def charge(self) -> None:
        """Count a request for the session, which is to begin.

        Raises:
            QuotaRefusal: There are too many.

        """
        if self._asker is not None:
            self._on_decision(await self._asker.charge(self._attachment.session.id))

    async def write(self, submitted: Submitted) -> Receipt:
        """Write an input, once per key. Before a response is asked for, what it may take is reserved.

        Raises:
            QuotaRefusal: There is too little of something.
            Refusal: It can't be taken, or was a duplicate of one that was refused; or it would begin one
                session more than its principal may have.
            NodeFull, TooManySessions: The node can't hold more, or not of this principal's.
            StoreError: It could not be written.

        """
        command = submitted.command
        if self._trace is not None and isinstance(command, CreateResponse):
            traced = replace(command, request=replace(command.request, trace=self._trace))
            submitted = replace(submitted, command=traced)
        receipt = await self._write_within_budget(submitted)
        self._submitted = max(self._submitted, receipt.seq)  # a duplicate's is an old one
        return receipt

    async def _write_within_budget(self, submitted: Submitted) -> Receipt:
        command, asker, attachment = submitted.command, self._asker, self._attachment
        if asker is None or not isinstance(command, CreateResponse):
            return await self._write(submitted)
        await self.catch_up()  # what was sent just now is part of what it takes
        try:
            decision = await asker.reserve(attachment.session, command)
        except QuotaRefusal:
            if not await attachment.recall(submitted):
                raise
            return await self._write(submitted)  # it was granted before
        try:
            receipt = await self._write(submitted)
        except BaseException as exc:
            (asker.release if _is_unwritten(exc) else asker.loosen)(attachment.session, command)
            raise
        if receipt.duplicate:
            asker.release(attachment.session, command)
        else:
            asker.follow(attachment, command, receipt.seq)
        self._on_decision(decision)
        return receipt

    async def _write(self, submitted: Submitted) -> Receipt:
        if not self._attachment.session.applied:  # last: what is admitted is counted
            await self._admit(self._principal, self._attachment.session.id)
        if not needs_files(submitted.command):
            return await self._attachment.submit(submitted)
        async with self._refer(submitted.command, self._principal.id) as referring:
            whole = replace(submitted, command=referring.command)
            receipt = await self._attachment.submit(whole)
            referring.is_wanted = not receipt.duplicate
        return receipt


def _is_unwritten(exc: BaseException) -> bool:
    """Return whether what couldn't be written is not in the log, for sure."""
    if isinstance(exc, StoreUnavailable) or (isinstance(exc, Refusal) and exc.code == "store_unavailable"):
        return False
    return isinstance(exc, SessionError)
