"""The server as its next release might be, as a program: it brings another format, and is in a hurry."""

from __future__ import annotations

import functools
import importlib
import sys

from tests.sessions.next_format import FORMAT_2
from unbroken.server.cli import main
from unbroken.server.store_selection import build_store
from unbroken.sessions.backends.redis import membership
from unbroken.sessions.format import FORMAT_1

if __name__ == "__main__":
    app = importlib.import_module("unbroken.server.app")
    app.build_store = functools.partial(build_store, newest=FORMAT_2, older=FORMAT_1)  # type: ignore[attr-defined]
    membership.Pace = functools.partial(membership.Pace, agreeing=1.0)  # type: ignore[misc, assignment]
    sys.exit(main())
