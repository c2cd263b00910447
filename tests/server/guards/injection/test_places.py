from __future__ import annotations

from unbroken.server.guards.injection.places import Places
from unbroken.sessions.ids import PrincipalId

ANN, BEN, CAT = (PrincipalId(name) for name in ("ann", "ben", "cat"))


def test_there_are_so_many_and_a_share_of_them_for_each() -> None:
    places = Places(4, 0.5)
    assert [places.take(name) for name in (ANN, ANN, ANN, BEN, BEN, CAT)] == [
        True,
        True,
        False,
        True,
        True,
        False,
    ]
    places.leave(BEN)
    assert not places.take(ANN)
    assert places.take(CAT)


def test_some_need_several() -> None:
    places = Places(8, 0.5)
    assert places.take(ANN, 3)
    assert not places.take(ANN, 2)
    assert places.take(ANN, 1)
    places.leave(ANN, 3)
    assert places.take(ANN, 2)


def test_who_has_none_gets_more_than_a_share_and_only_while_one_is_free() -> None:
    places = Places(8, 0.5)
    assert places.take(ANN, 6)
    assert not places.take(ANN)
    assert places.take(BEN, 20)
    assert not places.take(CAT)
    places.leave(BEN, 20)
    assert places.take(CAT)
