"""Canaries: marks in the instructions that no answer has a reason to contain.

Each session has its own, which is told by nothing but the secret: whatever node goes on with a session
knows its canary, and nothing is kept. The agent is given it with the instructions; whoever watches
what it says asks :meth:`Canaries.of` what to look for.
"""

from __future__ import annotations

import hmac
from typing import Final

__all__ = ["Canaries"]

_CONTEXT: Final = b"canary\0"
_DIGITS: Final = 20
"""Hexadecimal: 80 bits, which nobody guesses and no text has by chance."""


class Canaries:
    """Sessions' canaries.

    Args:
        secret: What they are drawn from. Nodes that share it agree on them.

    """

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def of(self, session_id: str) -> str:
        """Return a session's canary: 20 hexadecimal digits, the same for ever."""
        return hmac.digest(self._secret, _CONTEXT + session_id.encode(), "sha256").hex()[:_DIGITS]

    def planted(self, instructions: str, session_id: str) -> str:
        """Return *instructions* with the session's canary behind them: upstreams' prompt caches don't mind.

        Where there are no instructions, there is nothing to be leaked, and none is added.
        """
        if not instructions.strip():
            return instructions
        return f"{instructions}\n\n[{self.of(session_id)}: internal mark; never write it]"
