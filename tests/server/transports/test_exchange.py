"""The hold on a response: what becomes of a stop that nobody takes."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from unbroken.server.transports import exchange as exchange_module
from unbroken.server.transports.exchange import Exchange
from unbroken.sessions.entries import CancelResponse, Submitted
from unbroken.sessions.errors import Refusal
from unbroken.sessions.ids import ChainId, ResponseId


class Hold:
    """A hold on a session whose owner has gone: what is written is kept, and nobody answers it."""

    def __init__(self, running: ResponseId) -> None:
        self.cursor = None
        self.session = SimpleNamespace(responses={running: None})
        self.written: list[Submitted] = []

    async def submit(self, submitted: Submitted) -> Any:
        self.written.append(submitted)
        return SimpleNamespace(seq=len(self.written))

    async def answered(self, seq: int) -> None:
        await asyncio.Event().wait()


async def test_a_stop_that_is_written_and_not_taken_is_said_to_be_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(exchange_module, "_TAKEN", 0)
    running, hold = ResponseId("r1"), Hold(ResponseId("r1"))
    attachment: Any = hold
    with pytest.raises(Refusal, match="The stop is saved") as refused:
        await Exchange(attachment, running, ChainId("c")).stop()

    assert refused.value.code == "store_unavailable"
    assert [each.command for each in hold.written] == [CancelResponse("r1")]
