"""The tests of doors that need the server's own WebSocket class, each with what uvicorn's can't do.

All others run over both. docs/decisions/0002-asgi-server.md has the same list in words.
"""

from __future__ import annotations

from typing import Final

__all__ = ["NEEDS_OWN_CLASS"]

NEEDS_OWN_CLASS: Final = {
    "test_a_client_that_floods_and_does_not_read_is_closed": "a peer that doesn't read is never cut",
    "test_c11_a_client_that_goes_half_while_it_is_sent_to": "a half that is closed isn't noticed",
    "test_d2_what_is_sent_to_a_peer_just_found_dead_is_no_mistake": "one that is dead isn't cut, either",
    "test_who_gives_up_as_a_crowd_is_served_is_not_looked_at": "it isn't told of who leaves before that",
    "test_who_leaves_in_the_moment_in_which_its_turn_comes_costs_no_session": "nor who leaves just then",
    "test_who_leaves_while_its_key_is_looked_at_costs_no_session": "nor who leaves then",
    "test_who_leaves_takes_nobody_s_place_and_keeps_the_key": "likewise",
    "test_who_is_cut_off_by_the_handshake_s_time_counts_no_more": "a handshake takes as long as it likes",
    "test_too_many_pings_are_closed_with_a_reason": "pings are not counted",
}
