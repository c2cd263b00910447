"""What every tally must do. Subclass, and provide ``books``."""

from __future__ import annotations

import asyncio
from typing import Protocol

from unbroken.sessions.backends.tally import Claim, Kind, Tally
from unbroken.sessions.ids import PrincipalId

ANN = PrincipalId("0123456789abcdef")
BEN = PrincipalId("strange: {name} *")


class Books(Protocol):
    """Where nodes tell their numbers."""

    async def node(self) -> Tally:
        """Return the view of another node."""

    async def kill(self, tally: Tally) -> None:
        """End a node as ``kill -9`` does, and return when all others know."""

    async def lose(self) -> None:
        """Have everything forgotten that was told."""


def claim(
    held: int = 0, wanted: int = 0, most: int = 3, kind: Kind = "connection", principal: str = ANN
) -> Claim:
    return Claim(kind, principal, held, wanted, most)


class TallyContract:
    """Run over each implementation."""

    async def test_so_many_are_given_as_there_may_be_on_all_nodes(self, books: Books) -> None:
        a, b = await books.node(), await books.node()

        assert await a.settle([claim(wanted=2)]) == [2]
        assert await b.settle([claim(wanted=2)]) == [1]
        assert await b.settle([claim(held=1, wanted=1)]) == [0]
        assert await a.settle([claim(held=2, wanted=1)]) == [0]

    async def test_what_goes_on_one_node_may_come_on_another(self, books: Books) -> None:
        a, b = await books.node(), await books.node()
        await a.settle([claim(wanted=3)])
        assert await b.settle([claim(wanted=1)]) == [0]

        assert await a.settle([claim(held=2)]) == [0]
        assert await b.settle([claim(wanted=2)]) == [1]

    async def test_numbers_are_whole_so_that_telling_them_again_changes_nothing(self, books: Books) -> None:
        a, b = await books.node(), await books.node()
        for _ in range(3):
            await a.settle([claim(held=2)])

        assert await b.settle([claim(wanted=3)]) == [1]
        assert await b.settle([claim(held=0, wanted=3)]) == [1], "as after an answer that was lost"

    async def test_what_a_node_holds_counts_whether_it_may_or_not(self, books: Books) -> None:
        a, b = await books.node(), await books.node()
        await a.settle([claim(held=5)])

        assert await b.settle([claim(wanted=1)]) == [0]
        await a.settle([claim(held=2)])
        assert await b.settle([claim(wanted=1)]) == [1]

    async def test_principals_and_kinds_are_counted_apart(self, books: Books) -> None:
        a, b = await books.node(), await books.node()
        await a.settle([claim(wanted=3)])

        assert await b.settle(
            [
                claim(wanted=1),
                claim(wanted=4, kind="response"),
                claim(wanted=1, principal=BEN),
                claim(wanted=4, kind="response", principal=BEN),
            ]
        ) == [0, 3, 1, 3]

    async def test_tenants_and_addresses_are_counted_too(self, books: Books) -> None:
        a, b, c = [await books.node() for _ in range(3)]
        acme = claim(wanted=2, kind="tenant_connection", principal="tenant:ab12")
        home = claim(wanted=2, kind="address_connection", principal="address:cb007101")
        assert await a.settle([acme, home]) == [2, 2]
        assert await b.settle([acme, home]) == [1, 1]
        await books.kill(a)

        assert await c.settle([acme, home]) == [2, 2]

    async def test_many_are_told_in_one_call(self, books: Books) -> None:
        a, b = await books.node(), await books.node()
        many = [PrincipalId(f"p{number}") for number in range(256)]
        assert await a.settle([claim(wanted=2, principal=each) for each in many]) == [2] * 256

        assert await b.settle([claim(wanted=2, principal=each) for each in many]) == [1] * 256

    async def test_nodes_agree_in_which_part_somebody_s_numbers_are(self, books: Books) -> None:
        a, b = await books.node(), await books.node()
        many = [PrincipalId(f"p{number}") for number in range(64)]
        parts: dict[str, list[PrincipalId]] = {}
        for each in many:
            parts.setdefault(a.part_of(each), []).append(each)
        assert [b.part_of(each) for each in many] == [a.part_of(each) for each in many]

        given = [
            await a.settle([claim(wanted=4, principal=each) for each in part]) for part in parts.values()
        ]

        assert sum(map(sum, given)) == 3 * len(many)

    async def test_nobody_is_given_more_when_all_ask_at_once(self, books: Books) -> None:
        nodes = [await books.node() for _ in range(4)]

        given = await asyncio.gather(*(node.settle([claim(wanted=2, most=5)]) for node in nodes))

        assert sum(each for (each,) in given) == 5

    async def test_a_dead_node_counts_no_more(self, books: Books) -> None:
        a, b, c = [await books.node() for _ in range(3)]
        await a.settle([claim(wanted=2), claim(wanted=3, kind="response")])
        await c.settle([claim(wanted=1)])
        assert await b.settle([claim(wanted=2)]) == [0]
        await books.kill(a)

        assert await b.settle([claim(wanted=3), claim(wanted=3, kind="response")]) == [2, 3]
        assert await c.settle([claim(held=1, wanted=1)]) == [0]

    async def test_what_was_lost_is_there_again_when_it_is_told_again(self, books: Books) -> None:
        a, b = await books.node(), await books.node()
        await a.settle([claim(wanted=2)])
        await books.lose()

        await a.settle([claim(held=2)])
        assert await b.settle([claim(wanted=2)]) == [1]
