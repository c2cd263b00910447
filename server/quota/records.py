"""Records of usage in memory: so many of each tenant, so many of all together, and each for a week."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count, islice

from unbroken.server.quota.base import (
    RECORDS,
    RECORDS_IN_MEMORY,
    RECORDS_KEPT,
    RECORDS_OF_USER,
    UsageRecord,
)

__all__ = ["Records"]


@dataclass(slots=True)
class _Kept:
    tenant: str
    record: UsageRecord
    until: float


class Records:
    """Those of all tenants. Where there are too many, the oldest go. O(1) each, but for the asker's own."""

    def __init__(self) -> None:
        self._kept: OrderedDict[int, _Kept] = OrderedDict()  # by number, the oldest first
        self._numbers = count()
        self._of_tenants: dict[str, deque[int]] = {}
        self._of_users: dict[tuple[str, str], deque[int]] = {}  # the latest of these

    def __len__(self) -> int:
        return len(self._kept)

    def note(self, tenant: str, record: UsageRecord, *, now: float) -> None:
        """Add one."""
        number = next(self._numbers)
        self._kept[number] = _Kept(tenant, record, now + RECORDS_KEPT)
        theirs = self._of_tenants.setdefault(tenant, deque())
        theirs.append(number)
        self._of_users.setdefault((tenant, record.user), deque(maxlen=RECORDS_OF_USER)).append(number)
        if len(theirs) > RECORDS:
            self._drop(theirs[0])
        if len(self._kept) > RECORDS_IN_MEMORY:
            self._drop(next(iter(self._kept)))

    def latest(self, tenant: str, most: int, user: str | None = None) -> list[UsageRecord]:
        """Return the latest of a tenant, or those of one of its users, the latest first."""
        of_user = self._of_users.get((tenant, user), ()) if user is not None else ()
        numbers: Sequence[int] = self._of_tenants.get(tenant, ()) if user is None else of_user
        return [self._kept[number].record for number in islice(reversed(numbers), most)]

    def reap(self, now: float) -> None:
        """Forget those that are too old."""
        while self._kept:
            number, oldest = next(iter(self._kept.items()))
            if oldest.until > now:
                return
            self._drop(number)

    def _drop(self, number: int) -> None:
        """Forget one that is the oldest of its tenant."""
        gone = self._kept.pop(number)
        theirs, user = self._of_tenants[gone.tenant], (gone.tenant, gone.record.user)
        theirs.popleft()
        if not theirs:
            del self._of_tenants[gone.tenant]
        own = self._of_users[user]
        if own[0] == number:  # else it went for a later one of the same user
            own.popleft()
        if not own:
            del self._of_users[user]
