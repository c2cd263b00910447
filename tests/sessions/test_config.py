"""A session's configuration, field by field: what a change doesn't name stays, wherever the session goes."""

from __future__ import annotations

from typing import Any, Final

import pytest
from msgspec.structs import asdict, replace

from tests.sessions.conversation import ALICE, Client, settle
from tests.sessions.told import CHAIN, ID
from tests.sessions.town import actor_on, move, open_town
from unbroken.sessions.entries import (
    ConfigUpdated,
    Entry,
    SessionOpened,
    Submitted,
    UpdateConfig,
    decode_entry,
    encode_entry,
)
from unbroken.sessions.ids import Nonce
from unbroken.sessions.items import Concurrency, FunctionTool, NamedTool, SessionConfig
from unbroken.sessions.session import Session, SessionLimits

SEARCH, BUY = FunctionTool("search", "Find shoes."), FunctionTool("buy")

FULL: Final = SessionConfig(
    model="m",
    instructions="Sell shoes.",
    max_output_tokens=50,
    concurrency=Concurrency.QUEUE,
    tools=(SEARCH, BUY),
    tool_choice=NamedTool("search"),
    parallel_tool_calls=False,
    reasoning=True,
    server_tools=False,
    metadata={"topic": "shoes"},
)
"""Every field is set, and to something else than what it is by itself."""

CHANGES: Final[dict[str, Any]] = {
    "instructions": "Sell hats.",
    "max_output_tokens": None,
    "concurrency": Concurrency.MERGE,
    "tools": (SEARCH,),
    "tool_choice": "auto",
    "parallel_tool_calls": True,
    "reasoning": False,
    "metadata": {"topic": "hats", "mood": "good"},
}
"""Another value for each field that can be changed."""

changed = pytest.mark.parametrize("names", [[], *([name] for name in CHANGES), list(CHANGES)], ids=" ".join)


def change_of(names: list[str]) -> tuple[UpdateConfig, SessionConfig]:
    """Return a change of those fields, and what it makes of the full configuration."""
    fields = {name: CHANGES[name] for name in names}
    return UpdateConfig(**fields), replace(FULL, **fields)


def test_every_field_is_walked() -> None:
    """Whoever adds one says here what it is like, or that it can't be changed."""
    bare, full = asdict(SessionConfig(model="")), asdict(FULL)

    assert [name for name in full if full[name] == bare[name]] == []
    assert tuple(CHANGES) == UpdateConfig.__struct_fields__
    assert set(full) - set(CHANGES) == {"model", "server_tools"}


@changed
def test_what_a_change_leaves_out_stays_also_in_the_log_and_in_snapshots(names: list[str]) -> None:
    change, expected = change_of(names)
    session, log = Session(ID, SessionLimits()), []

    def write(*bodies: Any) -> None:
        for body in bodies:
            log.append(encode_entry(Entry(session.applied + 1, Nonce(7), body)))
            session.apply(decode_entry(log[-1]))

    write(SessionOpened(ALICE, FULL))
    write(Submitted(change, CHAIN))
    _, bodies = session.decide()
    write(*bodies)
    assert bodies == [ConfigUpdated(expected, 2)]

    rebuilt = Session(ID, SessionLimits())
    for data in log:
        rebuilt.apply(decode_entry(data))
    again = Session.restore(
        ID, SessionLimits(), Session.restore(ID, SessionLimits(), session.snapshot()).snapshot()
    )

    assert [each.config for each in (session, rebuilt, again)] == 3 * [expected]


@changed
@pytest.mark.parametrize("seed", [None, 1])
async def test_what_a_change_leaves_out_stays_through_a_takeover_and_a_resume(
    names: list[str], seed: int | None
) -> None:
    change, expected = change_of(names)
    async with open_town(seed=seed) as town:
        one, two = town.worlds
        client = Client(one)
        attachment = await one.node.create(ALICE, FULL, client.chain)
        client.session_id = attachment.session.id
        client.attach(attachment, None, is_new=True)
        client.read()
        await attachment.submit(Submitted(change, client.chain))
        await settle()
        client.read()
        assert actor_on(one, client).session.config == expected
        await move(client, two)
        assert client.resumed
        town.kill(one)
        town.notice(one)
        await settle()
        await client.ask()
        client.read()

        assert town.owner_of(client) is two.node
        assert actor_on(two, client).session.config == expected
        assert two.responder.last.turn.config == expected
        assert client.attachment is not None
        await client.attachment.submit(Submitted(UpdateConfig(), client.chain))
        await settle()
        assert actor_on(two, client).session.config == expected
