from __future__ import annotations

import pytest

from tests.sessions.backends.outbox_contract import PART_BYTES, OutboxContract
from unbroken.sessions.backends.base import SessionStore
from unbroken.sessions.backends.memory import MemoryStore
from unbroken.sessions.backends.memory_outbox import MemoryOutbox
from unbroken.sessions.backends.outbox import Outbox, OutboxLimits


class TestMemoryOutbox(OutboxContract):
    @pytest.fixture
    def stored(self) -> tuple[SessionStore, Outbox]:
        outbox = MemoryOutbox(OutboxLimits(part_bytes=PART_BYTES))
        return MemoryStore(outbox=outbox), outbox
