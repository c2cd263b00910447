"""What every balancer that comes with a configuration must do: each trap that these avoid has a test.

A test module makes a subclass named ``Test...`` that names its :class:`~tests.deploy.balanced.Program`.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import httpx2
import pytest
import pytest_asyncio
import websockets
from websockets.asyncio.client import ClientConnection
from websockets.frames import Frame, Opcode
from websockets.protocol import Event

from tests.deploy.balanced import PATIENCE, Balanced, Nodes, Program, Talk
from tests.deploy.fake_node import EventSource, FakeNode, spoken
from tests.server.realtime.serving import eventually
from unbroken.server.connection_settings import ConnectionSettings

__all__ = ["BalancerContract", "CheckingBalancerContract"]

KEY = {"Authorization": "Bearer me"}
SPOOFED = {"X-Forwarded-For": "9.9.9.9", "X-Forwarded-Proto": "https"}


class Pinged(ClientConnection):
    """Notes the server's pings."""

    pings: asyncio.Queue[None]

    def process_event(self, event: Event) -> None:
        if isinstance(event, Frame) and event.opcode is Opcode.PING:
            self.pings.put_nowait(None)
        super().process_event(event)


def logged(folder: Path) -> str:
    """Return all that was logged."""
    return "".join(path.read_text() for path in folder.glob("*.log"))


class BalancerContract:
    program: ClassVar[Program]
    idle_timeouts: ClassVar[Sequence[float]]
    """Seconds that open connections may be silent for, by the configuration that ships."""

    @pytest.fixture(scope="class")
    @classmethod
    def balancer(cls, running_nodes: Nodes, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Balanced]:
        """Run the balancer before the nodes, as they may be."""
        running_nodes.mend()
        folder = tmp_path_factory.mktemp("balancer")
        with cls.program.running(folder, running_nodes.ports) as (port, log):
            yield Balanced(running_nodes, port, log)

    @pytest_asyncio.fixture
    async def balanced(self, balancer: Balanced) -> Balanced:
        """Return nodes that all serve, behind the balancer."""
        await asyncio.to_thread(balancer.nodes.mend)
        await balancer.all_serve()
        return balancer

    @contextlib.asynccontextmanager
    async def before_fakes(self, folder: Path, count: int = 3) -> AsyncIterator[tuple[int, list[FakeNode]]]:
        """Run the balancer before stand-ins for nodes."""
        async with contextlib.AsyncExitStack() as stack:
            fakes = [await stack.enter_async_context(FakeNode.listening()) for _ in range(count)]
            port, _ = stack.enter_context(self.program.running(folder, [fake.port for fake in fakes]))
            yield port, fakes

    async def notice_return(self, balanced: Balanced) -> None:
        """Wait until the balancer knows that a node is back: one that asks no node knows at once."""

    # Stickiness.

    async def test_a_session_sticks_to_a_node_without_cookies(self, balanced: Balanced) -> None:
        """Of those that make up an affinity from the first connection on; of others from the second on."""
        used = set()
        for number in range(24):
            named = Talk(balanced.port, {"affinity": f"a{number}"})
            for _ in range(2):
                await named.connect()
                await named.close()
            assert len(set(named.nodes)) == 1
            used |= set(named.nodes)
        assert len(used) == 3
        for _ in range(4):
            unnamed = Talk(balanced.port)
            await unnamed.connect()
            await unnamed.ask("/say hi")
            await unnamed.until(lambda talk=unnamed: bool(talk.endings))  # type: ignore[misc]
            for _ in range(3):
                await unnamed.close()
                await unnamed.connect()
            await unnamed.close()
            assert len(set(unnamed.nodes[1:])) == 1

    async def test_a_client_can_say_not_that_node(self, balanced: Balanced) -> None:
        found = set()
        for number in range(12):
            talk = Talk(balanced.port, {"affinity": "mine"} | ({"try": str(number)} if number else {}))
            await talk.connect()
            await talk.close()
            found |= set(talk.nodes)
        assert len(found) > 1

    # Nodes that go.

    async def test_a_node_that_drains_says_farewell_and_its_answers_go_on(self, balanced: Balanced) -> None:
        """And nothing new comes to it: what it refuses is asked elsewhere at once, for a page too."""
        talk = await balanced.answering(affinity="mine")
        first = balanced.number_of(talk)
        process = balanced.nodes.terminate(first)
        await talk.until(lambda: len(talk.nodes) == 2)
        assert talk.codes == [1012]
        assert talk.failures == 0

        for headers in ({}, {"Origin": f"http://127.0.0.1:{balanced.port}"}):
            for number in range(6):
                other = Talk(balanced.port, {"affinity": f"b{number}" if number else "mine"}, headers)
                await other.connect_once()
                assert balanced.number_of(other) != first
                await other.close()

        await talk.until(lambda: bool(talk.endings))
        assert balanced.number_of(talk) != first
        assert talk.endings == ["completed"]
        assert talk.words_are_whole()
        assert len(talk.text.split()) == 120
        await talk.close()
        assert await asyncio.to_thread(process.wait, PATIENCE) == 0

    async def test_a_killed_node_s_conversation_goes_on_elsewhere_and_returns(
        self, balanced: Balanced
    ) -> None:
        """All connections of a session return: some balancers try a node that is back with one, for hours."""
        talk = await balanced.answering(affinity="mine")
        first = balanced.number_of(talk)
        balanced.nodes.kill(first)
        await talk.until(lambda: bool(talk.endings))

        assert balanced.number_of(talk) != first
        assert talk.endings == ["failed"]
        assert talk.words_are_whole()
        await talk.ask("/say here again")
        await talk.until(lambda: len(talk.endings) == 2)
        assert talk.text.endswith("here again")
        await talk.close()

        await asyncio.to_thread(balanced.nodes.mend)
        await self.notice_return(balanced)
        tabs = [Talk(balanced.port, {"affinity": "mine"}) for _ in range(4)]
        for tab in tabs:
            await tab.connect_once()
        assert [balanced.number_of(tab) for tab in tabs] == 4 * [first]
        for tab in tabs:
            await tab.close()

    @pytest.mark.parametrize("body", [b"hello", b""])
    async def test_what_changes_something_is_not_repeated_on_another_node(
        self, tmp_path: Path, body: bytes
    ) -> None:
        """A node that took an upload and died may have stored it: whoever sent it decides."""
        async with self.before_fakes(tmp_path) as (port, fakes):
            for fake in fakes:
                fake.deaths = 1
            answer = await spoken(port, b"POST /v1/files HTTP/1.1\r\ncontent-length: %d" % len(body), body)
            assert answer.startswith(b"HTTP/1.1 502 ")
            assert sum(len(fake.heads) for fake in fakes) == 1

    async def test_what_only_asks_is_repeated_on_another_node(self, tmp_path: Path) -> None:
        async with self.before_fakes(tmp_path) as (port, fakes):
            for fake in fakes[1:]:
                fake.deaths = 1
            for _ in range(8):
                answer = await spoken(port, b"GET /v1/files HTTP/1.1")
                assert answer.startswith(b"HTTP/1.1 200 ")
            assert sum(fake.deaths for fake in fakes) < 2

    async def test_secrets_are_not_logged_when_nodes_fail(self, tmp_path: Path) -> None:
        async with self.before_fakes(tmp_path) as (port, fakes):
            for fake in fakes:
                fake.deaths = 9
            head = b"GET /v1/realtime?resume=rt_hidden HTTP/1.1\r\nauthorization: Bearer sk-hidden"
            answer = await spoken(port, head + b"\r\nsec-websocket-protocol: realtime, key.ek_hidden")
            assert answer.startswith(b"HTTP/1.1 502 ")
        assert "hidden" not in logged(tmp_path)

    async def test_a_new_configuration_ends_no_conversation(
        self, running_nodes: Nodes, tmp_path: Path
    ) -> None:
        """Whoever comes meets it. Who is being answered, and asks again, does so on the old connection."""
        await asyncio.to_thread(running_nodes.mend)
        with self.program.started(tmp_path, running_nodes.ports) as (port, log, process):
            balanced = Balanced(running_nodes, port, log)
            await balanced.all_serve()
            talk = await balanced.answering()
            config = tmp_path / self.program.config
            config.write_text(config.read_text().replace("x-node", "x-other"))
            process.send_signal(self.program.renewing)
            newcomer = Talk(port)
            async with asyncio.timeout(PATIENCE):
                while newcomer.nodes[-1:] != [""]:  # the new one doesn't tell who answers
                    await newcomer.connect()
                    await newcomer.close()
            await talk.until(lambda: bool(talk.endings))
            await talk.ask("/say still here")
            await talk.until(lambda: len(talk.endings) == 2)
            await talk.close()

        assert talk.codes == []
        assert talk.endings == ["completed", "completed"]
        assert talk.text.endswith("word120 still here")

    # Streams.

    def test_open_connections_may_be_silent_for_longer_than_pings_take(self) -> None:
        fields = ConnectionSettings.model_fields
        pings = fields["ping_interval"].default + fields["ping_timeout"].default
        assert min(self.idle_timeouts) > pings

    async def test_an_idle_connection_outlives_the_balancer_s_time_out(self, balanced: Balanced) -> None:
        """By the node's pings, which come more often."""
        Pinged.pings = asyncio.Queue()
        async with websockets.connect(
            f"ws://127.0.0.1:{balanced.port}/v1/realtime",
            create_connection=Pinged,
            additional_headers=KEY,
            ping_interval=None,
            proxy=None,
        ) as socket:
            await socket.recv()
            for _ in range(3):
                await asyncio.wait_for(Pinged.pings.get(), PATIENCE)
            assert socket.close_code is None
            await socket.send('{"type": "session.update", "session": {"type": "realtime"}}')
            assert "session.updated" in str(await asyncio.wait_for(socket.recv(), PATIENCE))

    async def test_events_come_one_by_one_as_they_are_made(self, tmp_path: Path) -> None:
        """And who leaves isn't streamed to for long."""
        async with contextlib.AsyncExitStack() as stack:
            source = await stack.enter_async_context(EventSource.listening())
            port, _ = stack.enter_context(self.program.running(tmp_path, 3 * [source.port]))
            client = await stack.enter_async_context(httpx2.AsyncClient(trust_env=False, timeout=PATIENCE))
            async with client.stream("GET", f"http://127.0.0.1:{port}/events") as response:
                lines = response.aiter_lines()
                for number in range(5):
                    source.events.put_nowait(f"event {number}")
                    # The next is made only when this one has come.
                    assert await anext(lines) == f"data: event {number}"
                    assert await anext(lines) == ""
            async with asyncio.timeout(PATIENCE):
                while not source.is_over.is_set():
                    await source.events.put("to nobody")
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(source.is_over.wait(), 0.05)

    # Who comes, and with what.

    async def test_a_client_can_t_say_whom_it_comes_from(self, tmp_path: Path) -> None:
        async with self.before_fakes(tmp_path, 1) as (port, (fake,)):
            lines = [f"{name}: {value}".encode() for name, value in SPOOFED.items()]
            await spoken(port, b"\r\n".join([b"GET / HTTP/1.1", *lines, *lines]))
            assert fake.values_of("x-forwarded-for") == ["127.0.0.1"]
            assert fake.values_of("x-forwarded-proto") == ["http"]
            assert fake.values_of("host") == ["x"]

    async def test_addresses_are_counted_as_they_are(self, balanced: Balanced) -> None:
        """Eight connections of one may be open, whatever each makes up, and another address has its own."""
        address = f"ws://127.0.0.1:{balanced.port}/v1/realtime?affinity=mine"
        async with contextlib.AsyncExitStack() as stack:
            for number in range(9):
                spoofed = {"X-Forwarded-For": f"9.9.{number}.9", **KEY}
                opening = websockets.connect(address, additional_headers=spoofed, proxy=None)
                if number < 8:
                    await stack.enter_async_context(opening)
                    continue
                with pytest.raises(websockets.InvalidStatus) as refused:
                    await opening
                assert refused.value.response.status_code == 429
            await stack.enter_async_context(
                websockets.connect(address, additional_headers=KEY, proxy=None, local_addr=("127.0.0.2", 0))
            )

    async def test_uploads_are_bounded_by_the_nodes(self, balanced: Balanced) -> None:
        """In JSON, while they come; and below that bound by nobody (nginx: a megabyte, unless told)."""
        async with httpx2.AsyncClient(
            base_url=f"http://127.0.0.1:{balanced.port}/v1", headers=KEY, trust_env=False, timeout=PATIENCE
        ) as client:
            answers = [await _uploaded(client, size) for size in (1_800_000, 2_200_000, 6_000_000)]
        assert [answer.status_code for answer in answers] == [200, 413, 413]
        assert [answer.json()["error"]["code"] for answer in answers[1:]] == 2 * ["file_too_large"]

    @pytest.mark.parametrize("is_silent", [True, False])
    async def test_who_sends_no_header_is_cut_off_and_no_node_sees_it(
        self, tmp_path: Path, is_silent: bool
    ) -> None:
        """Whether nothing comes, or a byte at a time (slowloris)."""
        async with FakeNode.listening() as fake, asyncio.timeout(PATIENCE):
            with self.program.running(tmp_path, [fake.port]) as (port, _):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                with contextlib.closing(writer), contextlib.suppress(OSError):
                    for byte in itertools.cycle(b"GET / HTTP/1.1\r\nx: "):
                        try:
                            # What it trickles, it trickles for ever.
                            await asyncio.wait_for(reader.read(), None if is_silent else 0.1)
                            break
                        except TimeoutError:
                            writer.write(bytes([byte]))
            await eventually(lambda: fake.open == 0)
            assert (fake.heads, fake.fragments) == ([], [])


class CheckingBalancerContract(BalancerContract):
    """What one must do that asks nodes whether they are ready."""

    async def notice_return(self, balanced: Balanced) -> None:
        await balanced.all_serve()

    async def test_a_node_that_drains_is_left_its_streams(self, tmp_path: Path) -> None:
        """Some balancers cut them once they know."""
        async with contextlib.AsyncExitStack() as stack:
            source = await stack.enter_async_context(EventSource.listening())
            port, _ = stack.enter_context(self.program.running(tmp_path, 3 * [source.port]))
            client = await stack.enter_async_context(httpx2.AsyncClient(trust_env=False, timeout=PATIENCE))
            async with client.stream("GET", f"http://127.0.0.1:{port}/events") as response:
                lines = response.aiter_lines()
                source.drain()
                for number in range(12):  # four for each of the three that it takes the source for
                    await asyncio.wait_for(source.checks.get(), PATIENCE)
                    source.events.put_nowait(f"event {number}")
                    assert await anext(lines) == f"data: event {number}"
                    assert await anext(lines) == ""


async def _uploaded(client: httpx2.AsyncClient, size: int) -> httpx2.Response:
    """Return what is answered to a file of so many bytes.

    Who still sends after being refused may be cut off before having read that: balancers don't wait for long.
    """
    form: Any = {"data": {"purpose": "user_data"}, "files": {"file": ("a.txt", size * b"a")}}
    for _ in range(9):
        with contextlib.suppress(httpx2.ReadError, httpx2.WriteError):
            return await client.post("/files", **form)
    return await client.post("/files", **form)
