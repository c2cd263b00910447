"""The real model, in its threads; and one that fails."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from unbroken.server.cache.base import CacheUnavailable
from unbroken.server.cache.comparison import agree
from unbroken.server.cache.embedder import OnnxEmbedder, cosine, packaged_files


@pytest.mark.long
async def test_what_means_the_same_is_near_and_nothing_is_downloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("it went to the network")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    embedder = OnnxEmbedder(*packaged_files())
    with pytest.raises(CacheUnavailable, match="isn't loaded"):
        await embedder.embed("early")
    await embedder.start()
    texts = ("How do I reset my password?", "How can I reset my password?", "Why is the sky blue?")
    one, same, other = [await embedder.embed(text) for text in texts]
    assert cosine(one, same) > 0.95
    assert cosine(one, other) < 0.3
    assert abs(cosine(one, one) - 1) < 0.01
    assert len(await embedder.embed("word " * 10_000)) == len(one), "a long one is cut, not refused"
    assert await agree("Press the button.", "You press the button.", embedder)
    await embedder.stop()
    with pytest.raises(CacheUnavailable):
        await embedder.embed("late")


def loaded(embed: Callable[[str], bytes]) -> OnnxEmbedder:
    return OnnxEmbedder(Path("m"), Path("t"), load=lambda *_: embed)


async def test_more_than_may_wait_are_refused() -> None:
    gate = threading.Event()

    def embed(text: str) -> bytes:
        gate.wait(20)
        return text.encode()

    embedder = loaded(embed)
    await embedder.start()
    waiting = [asyncio.create_task(embedder.embed(str(number))) for number in range(33)]
    await asyncio.sleep(0)
    with pytest.raises(CacheUnavailable, match="too much"):
        await embedder.embed("one more")
    waiting[0].cancel()
    gate.set()
    assert await asyncio.gather(*waiting[1:]) == [str(number).encode() for number in range(1, 33)]
    assert await embedder.embed("later") == b"later"
    await embedder.stop()


async def test_a_model_that_fails_is_unavailable() -> None:
    def embed(text: str) -> bytes:
        raise RuntimeError(text)

    embedder = loaded(embed)
    await embedder.start()
    with pytest.raises(CacheUnavailable, match="RuntimeError"):
        await embedder.embed("secret")
    await embedder.stop()


async def test_another_model_is_not_taken(tmp_path: Path) -> None:
    model = tmp_path / "model.onnx"
    model.write_bytes(b"not the one")
    embedder = OnnxEmbedder(model, packaged_files()[1])
    await embedder.start()
    with pytest.raises(CacheUnavailable, match="isn't loaded"):
        await embedder.embed("hello")
    await embedder.stop()


async def test_without_an_embedder_answers_are_compared_by_their_words() -> None:
    assert await agree(
        "Hold the red button for ten seconds.", "Hold the red button for ten seconds, then wait.", None
    )
    assert not await agree("Yes.", "No.", None)
    assert await agree("", "", None)
