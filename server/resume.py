"""Resume tokens: proof that a client took part in a session, without a look-up.

A token names the session and the chain of connections it was given to, and is
signed for one principal. What it names is looked up only after the signature
was found good, so neither the answer nor its time tells a stranger anything.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from typing import Final

from unbroken.sessions.ids import ChainId, PrincipalId, SessionId

__all__ = ["ResumeTokens"]

_FORM: Final = re.compile(r"rt_([0-9a-f]{32})([0-9a-f]{12})_([A-Za-z0-9_-]{22})")


class ResumeTokens:
    """Mints and checks resume tokens.

    Args:
        secret: The signing key. Nodes that share it accept each other's tokens.

    """

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def mint(self, session_id: SessionId, chain: ChainId, principal: PrincipalId) -> str:
        """Return a token: URL-safe, about 70 characters, good as long as the session lives."""
        named = session_id.removeprefix("sess_") + chain
        return f"rt_{named}_{self._sign(named, principal)}"

    def check(self, token: str, principal: PrincipalId) -> tuple[SessionId, ChainId] | None:
        """Return what *token* names, or None if it wasn't minted for *principal*."""
        match = _FORM.fullmatch(token)
        session, chain, signature = match.groups() if match else ("0" * 32, "0" * 12, "")
        good = hmac.compare_digest(signature, self._sign(session + chain, principal))
        return (SessionId(f"sess_{session}"), ChainId(chain)) if match and good else None

    def _sign(self, named: str, principal: PrincipalId) -> str:
        digest = hmac.digest(self._secret, f"resume\0{named}\0{principal}".encode(), hashlib.sha256)
        return base64.urlsafe_b64encode(digest[:16]).rstrip(b"=").decode()
