"""Things that must not leave, made up: every number has good check digits, and none is anybody's."""

from __future__ import annotations

from typing import Final

from unbroken.server.guards.leaks.arguments import ArgumentsFilter
from unbroken.server.guards.leaks.entities import DEFAULT_ACTIONS, Actions, Entity
from unbroken.server.guards.leaks.scanner import Scanner
from unbroken.server.guards.leaks.stream import LeakFilter
from unbroken.server.guards.leaks.verbatim import Instructions

ALL: Final[Actions] = {
    **DEFAULT_ACTIONS,
    "canary": "redact",
    "email": "redact",
    "ip": "redact",
    "coordinates": "redact",
    "phone": "redact",
}

BODY: Final = (
    "\n".join(["MIIEowIBAAKCAQEAx7Vw0Qn3kT5hY9mZpLrJ2sXcFvBgNqWeRtYuIoPaSdFgHjKl"] * 4) + "\nZxCvBnM8qw=="
)
PRIVATE_KEY: Final = f"-----BEGIN RSA PRIVATE KEY-----\n{BODY}\n-----END RSA PRIVATE KEY-----"
JWT: Final = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dBjftJeZ4CVPmB92K27uhbUJU1p1r_wW1gFWFOEjXk"

SAMPLES: Final[tuple[tuple[Entity, str], ...]] = (
    ("email", "alice@example.com"),
    ("email", "bob.o'neill+spam@mail.example.co.uk"),
    ("email", "Ana.Mu\u00f1oz@m\u00fcnchen.example.es"),
    ("email", "\u0430\u043d\u043d\u0430@\u043f\u0440\u0438\u043c\u0435\u0440.\u0440\u0444"),
    ("card", "4111111111111111"),
    ("card", "5500-0000-0000-0004"),
    ("card", "3782 822463 10005"),
    ("iban", "GB82 WEST 1234 5698 7654 32"),
    ("iban", "DE89370400440532013000"),
    ("national_id", "460-89-9847"),
    ("national_id", "12345678Z"),
    ("national_id", "111.444.777-35"),
    ("ip", "192.168.17.4"),
    ("ip", "2001:db8::8a2e:370:7334"),
    ("coordinates", "48.85837, 2.29448"),
    ("phone", "+49 30 901820"),
    ("phone", "(212) 555-0187"),
    ("phone", "1 (800) 555-0199"),
    ("phone", "030 / 123 45 67"),
    ("secret", "sk-proj-4fQz8LmN2pRtVwXy6ZaBcD"),
    ("secret", "ghp_4fQz8LmN2pRtVwXy6ZaBcDeFgHiJkLmNoPqR"),
    ("secret", JWT),
    ("secret", PRIVATE_KEY),
)


def leak_filter(
    actions: Actions = ALL, canaries: tuple[str, ...] = (), *, in_json: bool = False
) -> LeakFilter:
    kind = ArgumentsFilter if in_json else LeakFilter
    return kind(Scanner(actions, canaries), actions, lambda entity, _: f"[{entity}]")


def instructions(text: str) -> Instructions:
    """Return what is watched for of *text*, all of which has been read."""
    read = Instructions(text)
    while not read.is_whole:
        read.read_on()
    return read


def filtered(pieces: list[str], actions: Actions = ALL, canaries: tuple[str, ...] = ()) -> str:
    stream = leak_filter(actions, canaries)
    return "".join([stream.feed(piece) for piece in pieces]) + stream.flush()


def cut(text: str, places: list[int]) -> list[str]:
    """Return *text* in the pieces that *places*, in any order, make of it."""
    ends = sorted({min(place, len(text)) for place in places} | {len(text)})
    return [text[start:end] for start, end in zip([0, *ends], ends, strict=False)]
