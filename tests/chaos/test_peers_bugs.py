"""What went wrong elsewhere, by name: it doesn't here, and is noticed where it is planted."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

import pytest

from tests.chaos import peers, peers_faults
from tests.sessions.town import Town, open_town

SEEDS: Final = (None, 1, 2, 3)
"""None: the store answers at once; else in an order, and after delays, of chance."""


@dataclass(frozen=True, slots=True)
class Bug:
    """A scenario, what has to be planted for it to fail, and what it says then."""

    scenario: Callable[[Town], Awaitable[None]]
    fault: peers_faults.Fault
    complaint: str


BUGS: Final = {
    "LibreChat #11710": Bug(
        peers.librechat_11710_words_said_while_a_node_begins_to_follow,
        peers_faults.subscribe_late,
        "what was said in between is left out",
    ),
    "LibreChat #13117": Bug(
        peers.librechat_13117_a_tab_that_left_sees_the_next_answer,
        peers_faults.expect_the_next_number,
        "the next answer was taken for a duplicate",
    ),
    "LibreChat #14411": Bug(
        peers.librechat_14411_a_tab_that_stays_sees_the_next_answer,
        peers_faults.expect_the_next_number,
        "the next answer was taken for a duplicate",
    ),
    "LibreChat #14411, what is replayed": Bug(
        peers.librechat_14411_what_is_replayed_is_not_shown_again,
        peers_faults.replay_and_go_on_from_there,
        "words are shown again",
    ),
    "Vercel resumable-stream #41": Bug(
        peers.vercel_41_coming_back_before_the_first_word,
        peers_faults.listen_once_something_was_said,
        "whoever came early got nothing",
    ),
    "Vercel resumable-stream #44": Bug(
        peers.vercel_44_coming_back_after_the_end,
        peers_faults.attach_behind_the_end,
        "whoever came late got nothing",
    ),
    "Vercel resumable-stream #47": Bug(
        peers.vercel_47_an_end_that_nobody_is_told_of,
        peers_faults.never_look,
        "the answer never ends",
    ),
    "Socket.IO #5423": Bug(
        peers.socketio_5423_a_storm_of_reconnects_reads_each_log_once,
        peers_faults.read_all_logs,
        "not once more for each reader",
    ),
    "open-webui #15162": Bug(
        peers.openwebui_15162_a_question_that_comes_to_another_node,
        peers_faults.drop_what_comes_from_elsewhere,
        "the chat hangs",
    ),
    "open-webui #27104": Bug(
        peers.openwebui_27104_stop_works_where_news_do_not,
        peers_faults.hear_of_stop_by_news_alone,
        "it goes on",
    ),
    "zombies without a fence": Bug(
        peers.zombie_that_comes_back_writes_nothing, peers_faults.have_no_fence, "two have written"
    ),
}

pytestmark = [
    pytest.mark.parametrize("seed", SEEDS),
    pytest.mark.parametrize("bug", BUGS.values(), ids=BUGS),
]


async def test_what_goes_wrong_elsewhere_does_not_here(bug: Bug, seed: int | None) -> None:
    async with open_town(seed=seed) as town:
        await bug.scenario(town)


async def test_it_is_noticed_where_it_is_planted(
    bug: Bug, seed: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_town(seed=seed) as town:
        bug.fault(monkeypatch, town)
        with pytest.raises(AssertionError, match=bug.complaint):
            await bug.scenario(town)
