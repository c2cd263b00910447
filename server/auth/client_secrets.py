"""Short-lived keys for pages, and tickets for clients that can set nothing but an address.

A key, ``ek_...``, is good for a minute and for one session unless its maker says otherwise; a ticket,
``tk_...``, always for one. Either is bound to a user, to an origin, and to what its maker has settled
of the session. One that was used is still good together with the resume token of its session,
as long as its principal is: clients reconnect with what they came with.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from unbroken.server.auth.base import Credentials, Grant, Unauthenticated
from unbroken.server.auth.keyring import Keyring
from unbroken.server.auth.pins import Pins
from unbroken.server.auth.principal import FILES, REALTIME, STRANGERS, Principal
from unbroken.server.auth.secret_pools import SecretRecord
from unbroken.server.auth.secret_store import SecretStore
from unbroken.server.resume import ResumeTokens
from unbroken.sessions.clock import Clock
from unbroken.sessions.ids import SessionId

__all__ = ["ClientSecrets", "ForeignPlan", "ForeignUser", "Issued", "Wanted"]

_KEY: Final = "ek_"
_TICKET: Final = "tk_"
_LENGTH: Final = 64
"""Characters that what is presented may have; what is longer is none of ours."""


class ForeignUser(Exception):
    """Whoever has a user of their own can't make keys for another."""

    def __str__(self) -> str:
        return "Your key is a user's own. Make short-lived keys for that user, or use a backend's key."


class ForeignPlan(Exception):
    """A maker can't put keys on a plan that the settings don't name for theirs."""

    def __init__(self, allowed: tuple[str, ...]) -> None:
        super().__init__(allowed)
        self.allowed = allowed

    def __str__(self) -> str:
        return (
            f"Short-lived keys that are made with yours may be on: {', '.join(self.allowed)}. "
            "The operator can name others in UNBROKEN_CLIENT_SECRET_PLANS."
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a short-lived key is to be."""

    pins: Pins
    lifetime: float
    """Seconds within which it has to be used."""
    user: str | None = None
    """Whose it is to be; None: the maker's own user, or if they have none, one of its own."""
    plan: str | None = None
    """Which it is to be on; None: the usual one of what this maker makes."""
    origin: str | None = None
    uses: int = 1
    is_ticket: bool = False


@dataclass(frozen=True, slots=True)
class Issued:
    """A short-lived key. It is a secret."""

    value: str
    expires_at: float
    """Until when it has to be used, in seconds since the epoch."""
    plan: str
    """Which it is on."""

    def __repr__(self) -> str:
        return f"<Issued {self.value[:3]}**** until {self.expires_at:.0f}>"


class ClientSecrets:
    """Makes short-lived keys, and lets in who presents one.

    Args:
        store: Where they are.
        tokens: What a used one has to come with.
        keyring: Where the keys are that they are made with; None: there are none to revoke.
        clock: Where time comes from.
        session_lifetime: Seconds for which what they begin may be gone on with.
        plans: Which plans they may be on, by their makers', the usual one first. Whatever else a maker's plan
            is: keys of theirs are on that, and on no other.

    """

    def __init__(
        self,
        store: SecretStore,
        tokens: ResumeTokens,
        keyring: Keyring | None,
        clock: Clock,
        *,
        session_lifetime: float,
        plans: Mapping[str, tuple[str, ...]] | None = None,
    ) -> None:
        self._store = store
        self._tokens = tokens
        self._keyring = keyring
        self._clock = clock
        self._session_lifetime = session_lifetime
        self._plans = dict(plans or {})

    async def issue(self, maker: Grant, wanted: Wanted) -> Issued:
        """Return a fresh short-lived key.

        Raises:
            ForeignUser: It is wanted for somebody else than its maker.
            ForeignPlan: It is wanted on a plan that isn't its maker's to give.
            SecretsFull: There are as many as may be, be it of this user or this API key alone.
            StoreUnavailable: It can't be kept for the moment.

        """
        owner = maker.principal
        allowed = self._plans.get(owner.plan, (owner.plan,))
        plan = allowed[0] if wanted.plan is None else wanted.plan
        if plan not in allowed:
            raise ForeignPlan(allowed)
        return await self._issue(
            wanted,
            Principal(self._user(owner, wanted.user), owner.tenant, plan, owner.scopes, owner.expires_at),
            maker.key_id,
            maker="" if _has_user(owner) else owner.user,
            is_plan_given=owner.plan in self._plans,
        )

    async def issue_anonymous(self, wanted: Wanted, *, plan: str, address: bytes | None = None) -> Issued:
        """Return a fresh short-lived key for somebody whom nobody can be again.

        *address*: where they are, by which such keys are bounded; None: where any number may be.

        Raises:
            SecretsFull: There are as many as may be, be it for this address alone.
            StoreUnavailable: It can't be kept for the moment.

        """
        return await self._issue(
            wanted, Principal(_stranger(), STRANGERS, plan), None, address=address or b""
        )

    async def _issue(
        self,
        wanted: Wanted,
        owner: Principal,
        key_id: str | None,
        *,
        maker: str = "",
        is_plan_given: bool = False,
        address: bytes = b"",
    ) -> Issued:
        now = self._clock.time()
        ends = now + max(self._session_lifetime, wanted.lifetime)
        usable = now + wanted.lifetime
        if owner.expires_at is not None:
            ends, usable = min(ends, owner.expires_at), min(usable, owner.expires_at)
        record = SecretRecord(
            owner.user,
            owner.tenant,
            owner.plan,
            tuple(sorted(owner.scopes & {REALTIME, FILES})),
            ends,
            key_id,
            wanted.origin,
            wanted.pins,
            maker,
            address=address.hex(),
            is_plan_given=is_plan_given,
        )
        value = (_TICKET if wanted.is_ticket else _KEY) + secrets.token_urlsafe(32)
        uses = 1 if wanted.is_ticket else wanted.uses
        await self._store.put(_digest(value), record, uses=uses, lifetime=max(0.001, usable - now))
        return Issued(value, usable, owner.plan)

    @staticmethod
    def _user(owner: Principal, wanted: str | None) -> str:
        has_user = _has_user(owner)
        if wanted is None:
            # A backend makes keys for many: they must not find each other's files and sessions.
            return owner.user if has_user else _stranger()
        user = f"user:{wanted}"
        if has_user and user != owner.user:
            raise ForeignUser
        return user

    async def authenticate(self, credentials: Credentials) -> Grant:
        """See :meth:`Authenticator.authenticate`. What it returns has to be spent, unless it has been."""
        value, kind = (
            (credentials.key, _KEY) if credentials.key is not None else (credentials.ticket, _TICKET)
        )
        # A key isn't taken from an address, nor a ticket from anywhere else.
        if value is None or not value.startswith(kind) or len(value) > _LENGTH:
            raise Unauthenticated
        digest = _digest(value)
        held = await self._store.look(digest)
        if held is None:
            raise Unauthenticated
        record, now = held.record, self._clock.time()
        if record.expires_at <= now or (record.origin is not None and record.origin != credentials.origin):
            raise Unauthenticated
        if record.key_id is not None and not (
            self._keyring is not None and await self._keyring.stands(record.key_id)
        ):
            raise Unauthenticated
        principal = record.principal
        if credentials.resume is not None:
            named = self._tokens.check(credentials.resume, principal.id)
            if named is not None and named[0] in held.sessions:
                return Grant(principal, record.key_id, record.pins, record.is_plan_given)
        if held.uses < 1:
            raise Unauthenticated

        async def spend(session_id: SessionId) -> bool:
            kept = record.expires_at - self._clock.time()
            return await self._store.spend(digest, record, session_id, kept=kept)

        return Grant(principal, record.key_id, record.pins, record.is_plan_given, spend)


def _has_user(owner: Principal) -> bool:
    return owner.user.startswith("user:")


def _stranger() -> str:
    return f"anon:{secrets.token_hex(16)}"


def _digest(value: str) -> str:
    return hashlib.sha256(value.encode("utf-8", "surrogatepass")).hexdigest()[:40]
