from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from tests.fakes.surroundings import free_port
from unbroken.sessions.backends.redis.connection import Address, Client, connect
from unbroken.sessions.backends.redis.keys import Keys
from unbroken.sessions.backends.redis.kinship import ForeignNodes, Kinship

KEYS = Keys("test")
ONE, OTHER = b"x" * 32, b"y" * 32


async def test_nodes_with_one_secret_have_nothing_to_tell(client: Client) -> None:
    nodes = [Kinship(client, KEYS, ONE) for _ in range(2)]
    with capture_logs() as logs:
        for node in nodes:
            await node.check()
            await node.look()
    assert logs == []
    assert not any(node.has_foreign for node in nodes)
    with pytest.raises(ForeignNodes):
        await Kinship(client, KEYS, OTHER).check()


async def test_a_store_that_was_emptied_is_given_the_sign_again(client: Client) -> None:
    node = Kinship(client, KEYS, ONE)
    await node.check()
    await client.flushall()
    await node.look()
    assert not node.has_foreign
    with pytest.raises(ForeignNodes):
        await Kinship(client, KEYS, OTHER).check()


async def test_both_sides_find_out_that_they_share_a_store(client: Client) -> None:
    """Whoever was faster after the store was emptied: neither knows which of them is wrong."""
    one, other = Kinship(client, KEYS, ONE), Kinship(client, KEYS, OTHER)
    await one.check()
    await client.flushall()
    await other.check()
    with capture_logs() as logs:
        for _ in range(3):
            await one.look()
            await other.look()
    assert one.has_foreign
    assert other.has_foreign
    assert [log["event"] for log in logs] == 2 * ["foreign nodes in redis"]


async def test_they_are_told_of_as_long_as_they_may_be_there(client: Client) -> None:
    """Of several nodes of a side, one finds the others' sign, and the next its own again."""
    one, other = Kinship(client, KEYS, ONE), Kinship(client, KEYS, OTHER)
    await other.check()
    await one.look()
    with capture_logs() as logs:
        await one.look()
        assert one.has_foreign
        for _ in range(4):
            await one.look()
    assert not one.has_foreign
    assert [log["event"] for log in logs] == ["no foreign nodes in redis any more"]


async def test_what_can_t_be_compared_changes_nothing(client: Client) -> None:
    one = Kinship(client, KEYS, ONE)
    await Kinship(client, KEYS, OTHER).check()
    await one.look()
    one._client = gone = connect(Address(f"redis://127.0.0.1:{free_port()}/0"), name="test")
    for _ in range(9):
        await one.look()
    assert one.has_foreign
    await gone.aclose()
