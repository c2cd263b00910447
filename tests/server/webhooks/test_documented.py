"""The receivers in docs/webhooks.md, as they stand there, and webhooks of a whole server."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Final

import httpx2
import pytest

from tests.fakes.archive import MemoryQueue
from tests.server.realtime.agent import ManualAgent
from tests.server.realtime.serving import eventually, serving
from unbroken.server.agents.scripted import ScriptedAgent
from unbroken.server.archive.base import Delivery
from unbroken.server.webhook_settings import WebhookEndpoint
from unbroken.server.webhooks.sending import Sender, SendingLimits, Target
from unbroken.sessions.clock import SystemClock

BLOCKS: Final = re.findall(
    r"```python\n(.*?)```", (Path(__file__).parents[3] / "docs" / "webhooks.md").read_text(), re.DOTALL
)
OTHER: Final = "whsec_" + "B" * 43 + "="


def documented(number: int) -> dict[str, Any]:
    names: dict[str, Any] = {}
    exec(compile(BLOCKS[number], "docs/webhooks.md", "exec"), names)
    return names


class Tee(httpx2.AsyncBaseTransport):
    """Notes what is sent to an application, and what that answers."""

    def __init__(self, app: Any) -> None:
        self._inner = httpx2.ASGITransport(app=app)
        self.seen: list[tuple[dict[str, str], bytes, int]] = []

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        body = await request.aread()
        answer = await self._inner.handle_async_request(request)
        self.seen.append((dict(request.headers), body, answer.status_code))
        return answer


async def sent(receiver: dict[str, Any], *secrets: str) -> Tee:
    """Have one webhook sent to a receiver, and return what was seen of it."""
    tee, queue, clock = Tee(receiver["app"]), MemoryQueue(), SystemClock()
    queue.put(Delivery("msg_1", "crm", "x", '{"type":"x","data":{"session_id":"s"}}'), at=clock.time())
    sender = Sender(
        [Target("crm", "http://receiver/unbroken", secrets)],
        queue,
        SendingLimits(),
        clock,
        on_outcome=lambda *_: None,
        on_passed_over=lambda *_: None,
        transport=tee,
    )
    await sender.start()
    await eventually(lambda: len(tee.seen) > 0)
    await sender.aclose()
    return tee


async def test_the_receiver_with_a_library_takes_what_is_genuine(capsys: pytest.CaptureFixture[str]) -> None:
    receiver = documented(0)
    for secrets, status in (
        ((receiver["SECRET"],), 204),
        ((OTHER, receiver["SECRET"]), 204),
        ((OTHER,), 400),
    ):
        tee = await sent(receiver, *secrets)
        assert [each[2] for each in tee.seen] == [status]
    assert capsys.readouterr().out == "x s\n"


async def test_the_receiver_without_a_library_takes_the_same() -> None:
    receiver, genuine = documented(0), documented(1)["is_genuine"]
    tee = await sent(receiver, OTHER, receiver["SECRET"])
    ((headers, body, _),) = tee.seen

    assert genuine(receiver["SECRET"], headers, body)
    assert genuine(OTHER, headers, body)
    assert not genuine("whsec_" + "C" * 43 + "=", headers, body)
    assert not genuine(OTHER, headers, body + b" ")
    assert not genuine(OTHER, headers | {"webhook-timestamp": "1000"}, body)


def receiving(monkeypatch: pytest.MonkeyPatch) -> tuple[Tee, WebhookEndpoint]:
    """Have servers' webhooks come to the receiver, and return what is seen of it, and how it is set."""
    receiver = documented(0)
    tee = Tee(receiver["app"])
    monkeypatch.setattr(
        "unbroken.server.archive_selection.Sender",
        lambda *args, **options: Sender(*args, **options, transport=tee),
    )
    return tee, WebhookEndpoint.model_validate(
        {"url": "http://receiver/unbroken", "secrets": receiver["SECRET"]}
    )


async def test_a_server_tells_what_happens_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tee, endpoint = receiving(monkeypatch)
    url = f"sqlite:///{tmp_path / 'archive.db'}"
    async with serving(
        ManualAgent(), archive_url=url, archive_retention="0", webhooks={"crm": endpoint}
    ) as served:
        client = await served.client()
        await client.ask("secret thought")
        (await served.agent.turn(0)).end()
        await client.done()
        await eventually(lambda: len(tee.seen) == 1)
        ((_, body, status),) = tee.seen
        assert status == 204
        assert b'"turn.completed"' in body
        assert b"secret thought" not in body

        await client.send({"type": "response.create"})
        turn = await served.agent.turn(1)
        await client.close()
        await served.no_connections()
        turn.end()
        await eventually(lambda: len(tee.seen) == 3)
        assert sum(b'"turn.finished_while_away"' in each[1] for each in tee.seen) == 1
        count = served.app.metrics.webhooks.labels("crm", "delivered")
        await eventually(lambda: count._value.get() == 3)


async def test_a_session_that_is_deleted_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tee, endpoint = receiving(monkeypatch)
    url = f"sqlite:///{tmp_path / 'archive.db'}"
    async with serving(ScriptedAgent(), archive_url=url, webhooks={"crm": endpoint}) as served:
        client = await served.client()
        await client.ask("secret thought")
        await client.done()
        await eventually(lambda: len(tee.seen) == 1)
        async with httpx2.AsyncClient(trust_env=False) as http:
            deleted = await http.delete(
                f"http://127.0.0.1:{served.port}/v1/conversations/{client.session_id}",
                headers={"authorization": "Bearer alice"},
            )
        assert deleted.status_code == 200, deleted.text
        await eventually(lambda: len(tee.seen) == 2)
        _, body, status = tee.seen[-1]
        assert status == 204
        event = json.loads(body)
        assert (event["type"], event["data"]["session_id"]) == ("session.ended", client.session_id)
        assert event["data"]["turns"] == 1
        assert b"secret thought" not in body


async def test_of_what_goes_with_everything_of_a_user_s_nothing_is_told_and_all_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tee, endpoint = receiving(monkeypatch)
    url = f"sqlite:///{tmp_path / 'archive.db'}"
    async with serving(ScriptedAgent(), archive_url=url, webhooks={"crm": endpoint}) as served:
        clients = [await served.client(key) for key in ("bob", "bob", "bob", "alice")]
        for client in clients:
            await client.ask("secret thought")
            await client.done()
        await eventually(lambda: len(tee.seen) == 4)
        async with httpx2.AsyncClient(trust_env=False) as http:

            async def delete(path: str, key: str) -> Any:
                url = f"http://127.0.0.1:{served.port}/v1/{path}"
                return (await http.delete(url, headers={"authorization": f"Bearer {key}"})).json()

            erased = (await delete("users/me/data", "bob"))["erased"]
            await delete(f"conversations/{clients[-1].session_id}", "alice")
        assert (erased["archived_turns"], erased["conversations"]) == (3, 3)
        await eventually(lambda: len(tee.seen) == 5)
        assert json.loads(tee.seen[-1][1])["data"]["session_id"] == clients[-1].session_id
