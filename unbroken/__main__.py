"""``python -m unbroken`` is the ``unbroken`` command."""

from __future__ import annotations

from unbroken.server.cli import main

if __name__ == "__main__":
    main()
