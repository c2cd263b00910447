"""What went wrong elsewhere, by name: scenarios that fail on the behaviour that their docstrings tell of.

``peers_faults.py`` has that behaviour, to plant.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Any

from tests.sessions.conversation import Client, World, settle
from tests.sessions.town import Town, asked, tab_on
from unbroken.sessions.backends.base import NOBODY, Page
from unbroken.sessions.entries import Deltas, ResponseDone
from unbroken.sessions.event_log import Position
from unbroken.sessions.ids import NodeId, SessionId

__all__ = [
    "librechat_11710_words_said_while_a_node_begins_to_follow",
    "librechat_13117_a_tab_that_left_sees_the_next_answer",
    "librechat_14411_a_tab_that_stays_sees_the_next_answer",
    "librechat_14411_what_is_replayed_is_not_shown_again",
    "openwebui_15162_a_question_that_comes_to_another_node",
    "openwebui_27104_stop_works_where_news_do_not",
    "socketio_5423_a_storm_of_reconnects_reads_each_log_once",
    "vercel_41_coming_back_before_the_first_word",
    "vercel_44_coming_back_after_the_end",
    "vercel_47_an_end_that_nobody_is_told_of",
    "zombie_that_comes_back_writes_nothing",
]


async def come(client: Client, world: World) -> None:
    """Have *client* come to *world*, from where it was; its old connection is gone."""
    client.world = world
    await client.resume()


async def while_answering(world: World, work: Any) -> list[str]:
    """Do *work* while words are said, one in each step of the loop; return them."""
    task = asyncio.ensure_future(work)
    words: list[str] = []
    while not task.done() or len(words) < 5:
        words.append(f"w{len(words)} ")
        world.responder.last.say(words[-1])
        await asyncio.sleep(0)
    await task
    return words


async def see(*clients: Client) -> None:
    await settle()
    for client in clients:
        client.read()


async def librechat_11710_words_said_while_a_node_begins_to_follow(town: Town) -> None:
    """There, SUBSCRIBE was sent and not awaited: what was published before it took effect was dropped.

    Here a node is a follower before it reads, so that nothing falls in between.
    """
    one, two, client = await asked(town, "a ")
    client.disconnect()
    words = await while_answering(one, come(client, two))
    await see(client)
    # Before the answer's end moves the session here.
    assert client.text() == "a " + "".join(words), "what was said in between is left out"

    one.responder.last.end()
    await see(client)
    assert client.statuses() == ["completed"]


async def librechat_13117_a_tab_that_left_sees_the_next_answer(town: Town) -> None:
    """There, a replica kept the number that it expected next (945) when its last reader had left.

    The next answer began at 0, and was dropped as a duplicate. Here numbers are the session's, and never
    begin again.
    """
    one, two, client = await asked(town, *[f"w{number} " for number in range(945)])
    tab = await tab_on(two, client)
    one.responder.last.end()
    await see(client, tab)
    tab.disconnect()
    await settle()
    await client.ask("and now?")
    await come(tab, two)
    await see(tab)
    await next_answer_is_shown(one, client, tab)


async def librechat_14411_a_tab_that_stays_sees_the_next_answer(town: Town) -> None:
    """There, the same came of a reader that had stayed, at another replica than that of the answer."""
    one, two, client = await asked(town, *[f"w{number} " for number in range(945)])
    tab = await tab_on(two, client)
    one.responder.last.end()
    await see(client, tab)
    await client.ask("and now?")
    await next_answer_is_shown(one, client, tab)


async def next_answer_is_shown(one: World, client: Client, tab: Client) -> None:
    seen = len(tab.frames)
    one.responder.last.say("short")
    one.responder.last.end()
    await see(client, tab)
    deltas = [frame.get("delta") for frame in tab.frames[seen:] if frame["type"].endswith("text.delta")]
    assert deltas == ["short"], "the next answer was taken for a duplicate"
    assert tab.statuses() == ["completed", "completed"]


async def librechat_14411_what_is_replayed_is_not_shown_again(town: Town) -> None:
    """There, a tab that came early got the first pieces from a buffer, and then once more as they came.

    Here what was and what comes are one log, which the tab reads once.
    """
    one, two, client = await asked(town, "first ")
    one.responder.last.end()
    await see(client)
    await client.ask("again")
    tab = Client(two, client.session_id)
    words = await while_answering(one, tab.connect())
    one.responder.last.end()
    await see(client, tab)

    assert tab.text() == client.text() == "first " + "".join(words), "words are shown again"
    ids = [frame["event_id"] for frame in tab.frames]
    assert len(ids) == len(set(ids))


async def vercel_41_coming_back_before_the_first_word(town: Town) -> None:
    """There, a stream was announced before its producer listened: who resumed in between got nothing.

    Here a request that was taken is in the log before there is anybody to ask.
    """
    one, two = town.worlds
    client = await one.client()
    await client.ask()
    client.disconnect()
    await come(client, two)
    await settle()
    one.responder.last.say("late")
    await see(client)
    assert client.text() == "late", "whoever came early got nothing"

    one.responder.last.end()
    await see(client)
    assert client.statuses() == ["completed"]


async def vercel_44_coming_back_after_the_end(town: Town) -> None:
    """There, nothing could be resumed any more once the stream had ended: its end was never seen."""
    one, two, client = await asked(town, "a ", "b ")
    client.disconnect()
    one.responder.last.say("c")
    one.responder.last.end()
    await settle()
    await come(client, two)
    await see(client)

    assert client.resumed
    shown = client.text(), client.statuses()
    assert shown == ("a b c", ["completed"]), "whoever came late got nothing"


async def vercel_47_an_end_that_nobody_is_told_of(town: Town) -> None:
    """There, the message that said so could get lost: the stream stayed open for ever.

    Here the end is in the log, and who follows looks there from time to time.
    """
    one, two, client = await asked(town, "a ")
    client.disconnect()
    await come(client, two)
    await settle()
    town.is_silent = True
    one.responder.last.say("b")
    one.responder.last.end()
    await see(client)
    assert client.statuses() == []

    town.poll()
    await see(client)
    assert (client.text(), client.statuses()) == ("a b", ["completed"]), "the answer never ends"


class Counting:
    """Counts what is read of which session."""

    def __init__(self, town: Town) -> None:
        self.entries: Counter[SessionId] = Counter()
        self._read = town.memory.read
        town.memory.read = self.read  # type: ignore[method-assign]

    async def read(
        self, session_id: SessionId, after: Position, limit: int, *, node: NodeId = NOBODY
    ) -> Page:
        page = await self._read(session_id, after, limit, node=node)
        self.entries[session_id] += sum(entry.last - entry.seq + 1 for entry in page.entries)
        return page


async def socketio_5423_a_storm_of_reconnects_reads_each_log_once(town: Town) -> None:
    """There, all rooms share one stream: each client that came back read everything that anybody was told.

    Here a client's node reads the client's own session, once.
    """
    clients = [(await asked(town, "a ", "b ", "c "))[2] for _ in range(20)]
    lengths = {each.session_id: len(await log_of(town, each)) for each in clients}
    counting = Counting(town)
    one, two = town.worlds
    town.kill(one)
    town.notice(one)
    await settle()
    for client in clients:
        client.disconnect()
        await come(client, two)
    await see(*clients)

    assert [client.text() for client in clients] == 20 * ["a b c "]
    for session_id, count in counting.entries.items():
        assert count <= 3 * lengths[session_id], "it is read to be loaded, not once more for each reader"
    assert set(counting.entries) == set(lengths)


async def openwebui_15162_a_question_that_comes_to_another_node(town: Town) -> None:
    """There, what a client sent to another worker than its session's was relayed to nobody: the chat hung."""
    one, two, client = await asked(town, "a")
    one.responder.last.end()
    await see(client)
    tab = await tab_on(two, client)
    await tab.ask("from elsewhere")
    await settle()
    running = one.responder.open + two.responder.open
    assert len(running) == 1, "the chat hangs"
    running[0].say("b")
    running[0].end()
    await see(client, tab)

    assert client.text() == tab.text() == "ab"
    assert client.statuses() == tab.statuses() == ["completed", "completed"]


async def openwebui_27104_stop_works_where_news_do_not(town: Town) -> None:
    """There, whoever listened for Stop died of a time-out when nothing was stopped for a while, silently.

    Here Stop is an entry of the log: the owner finds it the next time that it writes.
    """
    one, two, client = await asked(town, "a ")
    tab = await tab_on(two, client)
    town.is_silent = True
    await tab.send({"type": "response.cancel"})
    await settle()
    one.responder.last.say("b ")
    await settle()
    town.poll()
    await see(client, tab)

    assert one.responder.open == [], "it goes on"
    assert client.statuses() == tab.statuses() == ["cancelled"]


async def zombie_that_comes_back_writes_nothing(town: Town) -> None:
    """Elsewhere a lease alone keeps two from writing: who slept through its end goes on where it was.

    Here the store asks for proof with each write, in the very step that writes.
    """
    one, two, client = await asked(town, "a ")
    client.disconnect()
    town.is_silent = True  # it is asleep, hears nothing, and wakes up below
    town.notice(one)
    await come(client, two)
    await see(client)
    assert client.statuses() == ["failed"]
    one.responder.turns[0].say("zombie ")
    await see(client)

    entries = await log_of(town, client)
    end = next(number for number, body in enumerate(entries) if isinstance(body, ResponseDone))
    assert not any(isinstance(body, Deltas) for body in entries[end:]), "two have written"
    assert client.text() == "a "
    assert town.owner_of(client) is two.node


async def log_of(town: Town, client: Client) -> Sequence[Any]:
    """Return the bodies of a session's log."""
    session_id = SessionId(client.session_id or "")
    opened = await town.memory.inspect(session_id)
    start = Position(opened.fence.incarnation, opened.floor, opened.floor_nonce)
    page = await town.memory.read(session_id, start, 10_000)
    return [entry.body for entry in page.entries]
