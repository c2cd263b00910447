from __future__ import annotations

import re

from unbroken.server.guards.canary import Canaries


def test_a_session_has_one_canary_on_every_node_with_the_secret() -> None:
    one, other = Canaries(b"s" * 32), Canaries(b"s" * 32)

    assert one.of("sess_1") == other.of("sess_1")
    assert re.fullmatch("[0-9a-f]{20}", one.of("sess_1"))
    assert len({one.of("sess_1"), one.of("sess_2"), Canaries(b"t" * 32).of("sess_1")}) == 3


def test_instructions_get_it_behind_them_and_none_get_none() -> None:
    canaries = Canaries(b"s" * 32)

    planted = canaries.planted("Be brief.", "sess_1")

    assert planted.startswith("Be brief.\n")
    assert canaries.of("sess_1") in planted
    assert canaries.planted(" ", "sess_1") == " "
