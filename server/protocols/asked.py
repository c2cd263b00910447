"""What a request asks for, whichever door's words it was in: what codecs make, and doors have begun."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from unbroken.sessions.ids import ItemId
from unbroken.sessions.items import Item, ResponseRequest

__all__ = ["Asked"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A response that is asked for."""

    model: str | None
    """None: whichever is usual."""
    items: tuple[Item, ...]
    """What is said with it."""
    references: tuple[ItemId, ...]
    """Items of the conversation that are named: they have to be there."""
    request: ResponseRequest
    previous: str | None
    """The response that it goes on from. None: none."""
    conversation: str | None
    """The conversation that it is to be part of. None: of one of its own, or of *previous*'s."""
    store: bool
    stream: bool
    background: bool
    obfuscates: bool
    """Whether pieces are padded, so that who sees their length alone doesn't know the words'."""
    message_id: str | None
    digest: bytes
    """Of what the client said."""
    is_lone: bool = False
    """Whether nothing can go on from it: what is said with it is part of no conversation."""
    closing: tuple[Item, ...] = ()
    """What the server itself says behind it all, of one that is alone: no guard need look at that."""
    most_tokens: Callable[[Sequence[Item]], int] | None = None
    """How long its answer may be, of one that is alone, by all that was said. None: as the request says."""
    has_tools: bool = True
    """False: nothing may be called, neither its client's functions nor the server's own tools."""
    removed: tuple[ItemId, ...] = ()
    """Items that leave the conversation first."""
    reasoning: bool | None = None
    """Whether what models think is to be shown in its conversation, from now on. None: as it is."""
    supersedes: bool = False
    """Whether it takes the place of what is being answered: that is stopped first."""
    stream_id: str | None = None
    generates: bool = True
    """False: everything is to be made ready, and no answer."""
