"""llama.cpp in this process: loading a model, and running it from an event loop.

``xllamacpp`` is llama.cpp's own server as a library. Its calls block without holding
the interpreter's lock, so each runs in a thread, which hands over what comes. To stop one, the
callback that llama.cpp calls for each token, and for each step of reading the
prompt, returns True.

The library can't be had without its HTTP listener. That gets a Unix socket in a directory
which only this user may enter, asks for a random key, and once it runs the socket is
removed: nobody can connect, from this machine or another.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import shutil
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, Protocol

import msgspec

__all__ = ["Chunk", "Failure", "Generation", "Llama", "default_threads", "load", "server_parameters"]

_STEP_TOKENS: Final = 64
"""How much of a prompt is read at a time. Other turns' tokens wait for one step, and stopping for the one
that runs and the one that follows: 0.9 s at the 140 tokens/s of one slow core. With smaller steps
reading gets slower, with larger ones it gets no faster."""

_PROMPT_CACHE_MIB: Final = 256


# What llama.cpp sends back, as far as it is read here.


class Delta(msgspec.Struct):
    """A piece of the answer."""

    content: str | None = None


class Choice(msgspec.Struct):
    """One answer. There is never more than one."""

    delta: Delta = msgspec.field(default_factory=Delta)
    finish_reason: str | None = None


class Bill(msgspec.Struct):
    """What the whole run came to, in the last chunk."""

    prompt_tokens: int = 0
    completion_tokens: int = 0


class Failure(msgspec.Struct):
    """What went wrong. The text that comes with it is left out: it may quote the prompt."""

    type: str = ""
    n_prompt_tokens: int = 0
    n_ctx: int = 0

    @property
    def is_overflow(self) -> bool:
        """Whether it is that the prompt is longer than the context."""
        return self.type == "exceed_context_size_error"


class Chunk(msgspec.Struct):
    """One step of a run: a token, some progress with the prompt, the bill or a failure."""

    choices: list[Choice] = []
    usage: Bill | None = None
    error: Failure | None = None


class Llama(Protocol):
    """The one method that is used of ``xllamacpp.Server``."""

    def handle_chat_completions(self, prompt: bytes, callback: Callable[[bytes], bool]) -> None:
        """Generate, in this thread, until the end or until *callback* returns True."""


class Generation:
    """One run of the model: a thread inside llama.cpp, and its end on the event loop.

    What has come and wasn't received yet is bounded by the limit on the answer.
    """

    def __init__(self, llama: Llama, pool: ThreadPoolExecutor, request: bytes) -> None:
        self._loop = asyncio.get_running_loop()
        self._chunks: list[Chunk] = []
        self._arrived = asyncio.Event()
        self._has_ended = False
        self._must_stop = False
        self._decode = msgspec.json.Decoder(Chunk).decode
        self._thread = self._loop.run_in_executor(pool, self._run, llama, request)

    async def receive(self) -> list[Chunk]:
        """Return what has come since the last call, waiting for it. Nothing: it has ended."""
        while not self._chunks and not self._has_ended:
            self._arrived.clear()
            await self._arrived.wait()
        chunks, self._chunks = self._chunks, []
        return chunks

    def stop(self, *, then: Callable[[], None]) -> None:
        """End it at its next token or step. *then* is called when its thread is out of llama.cpp."""
        self._must_stop = True
        self._thread.add_done_callback(lambda _: then())

    # In the thread.

    def _run(self, llama: Llama, request: bytes) -> None:
        try:
            llama.handle_chat_completions(request, self._on_output)
        except (RuntimeError, ValueError):  # what C++ throws arrives as these
            self._hand_over(Chunk(error=Failure()))
        finally:
            self._hand_over(None)

    def _on_output(self, raw: bytes) -> bool:
        if self._must_stop:
            return True
        try:
            chunk = self._decode(raw)
        except msgspec.DecodeError:
            chunk = Chunk(error=Failure())
        self._hand_over(chunk)
        return chunk.error is not None

    def _hand_over(self, chunk: Chunk | None) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is waiting
            self._loop.call_soon_threadsafe(self._accept, chunk)

    # On the loop again.

    def _accept(self, chunk: Chunk | None) -> None:
        if chunk is None:
            self._has_ended = True
        else:
            self._chunks.append(chunk)
        self._arrived.set()


def load(weights: Path, *, slots: int, context: int, threads: int) -> Llama:
    """Load a model. Takes seconds: call it in a thread.

    Raises:
        ImportError: xllamacpp isn't installed.
        RuntimeError: llama.cpp can't load the file. It doesn't say why.

    """
    import xllamacpp

    _read_through(weights)
    directory = Path(tempfile.mkdtemp(prefix="unbroken-"))
    try:
        llama: Llama = xllamacpp.Server(
            server_parameters(
                weights,
                socket=directory / "s.sock",
                key=secrets.token_hex(32),
                slots=slots,
                context=context,
                threads=threads,
            )
        )
    finally:
        shutil.rmtree(directory)
    # The first computation sets up buffers. Better now than in somebody's turn.
    llama.handle_chat_completions(_WARM_UP, lambda _: False)
    return llama


def server_parameters(
    weights: Path, *, socket: Path, key: str, slots: int, context: int, threads: int
) -> Any:  # xllamacpp has no type information
    """Return llama.cpp's settings: quiet, bounded, and closed to everybody else."""
    import xllamacpp

    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(weights)
    parameters.n_parallel = slots
    parameters.n_ctx = slots * context  # llama.cpp divides it among the slots
    parameters.n_batch = parameters.n_ubatch = _STEP_TOKENS
    parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = threads
    parameters.n_gpu_layers = 0
    parameters.fit_params = False  # it would change the context to what it thinks fits
    parameters.prefill_assistant = False  # answer an assistant's message, don't continue it
    parameters.cache_ram_mib = _PROMPT_CACHE_MIB
    parameters.warmup = False  # load() does it, without holding the interpreter's lock
    parameters.verbosity = -1  # not even errors: they may quote prompts
    parameters.hostnames = [str(socket)]  # a name that ends in .sock is one of a Unix socket
    parameters.api_keys = [key]
    parameters.n_threads_http = 1
    parameters.ui = parameters.endpoint_slots = False
    parameters.endpoint_props = parameters.endpoint_metrics = False
    return parameters


def default_threads() -> int:
    """Return one fewer than the cores this process may use, at least one.

    llama.cpp's threads wait for each other by spinning: where one of them has to
    share its core, all of them crawl. And the server needs a core too.
    """
    has_affinity = hasattr(os, "sched_getaffinity")  # Linux
    cores = len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1
    return max(1, cores - 1)


def _read_through(weights: Path) -> None:
    """Bring the file into the page cache.

    llama.cpp's constructor holds the interpreter's lock until its listener runs,
    and so stops the event loop: for a second with the packaged model, more than half of
    which it sleeps. The import doesn't. The slow part, the disk, is done ahead of it.
    """
    buffer = bytearray(1 << 20)
    with weights.open("rb", buffering=0) as file:
        while file.readinto(buffer):
            pass


_WARM_UP: Final = msgspec.json.encode(
    {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1, "stream": True}
)
