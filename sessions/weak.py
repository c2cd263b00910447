"""Callbacks that don't keep alive whom they call.

A session that a node forgets is freed at once if nothing within it leads back to it; otherwise only when
the garbage collector looks, which it does by a count of objects, whatever is in them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec
from weakref import WeakMethod

__all__ = ["weakly"]

_P = ParamSpec("_P")


def weakly(method: Callable[_P, None]) -> Callable[_P, None]:
    """Return what calls *method*, which is bound, as long as its object is there; then it does nothing."""
    reference = WeakMethod(method)

    def call(*args: _P.args, **kwargs: _P.kwargs) -> None:
        if (found := reference()) is not None:
            found(*args, **kwargs)

    return call
