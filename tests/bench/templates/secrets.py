"""Secrets drawn at random: in the formats that providers document, and as people assign them."""

from __future__ import annotations

import base64
import json
import string
from collections.abc import Callable, Mapping
from random import Random
from types import MappingProxyType
from typing import Final

__all__ = ["SECRETS"]

_ALNUM: Final = string.ascii_letters + string.digits
_URL: Final = _ALNUM + "-_"
_HEX: Final = "0123456789abcdef"


def _some(random: Random, alphabet: str, low: int, high: int | None = None) -> str:
    return "".join(random.choices(alphabet, k=random.randint(low, high or low)))


def _aws_id(random: Random) -> str:
    return random.choice(["AKIA", "ASIA"]) + _some(random, string.ascii_uppercase + "234567", 16)


def _aws_secret(random: Random) -> str:
    return base64.b64encode(random.randbytes(30)).decode()


def _github(random: Random) -> str:
    if random.random() < 0.4:
        return f"github_pat_{_some(random, _ALNUM, 22)}_{_some(random, _ALNUM, 59)}"
    return f"gh{random.choice('pousr')}_{_some(random, _ALNUM, 36)}"


def _slack(random: Random) -> str:
    upper = string.ascii_uppercase + string.digits
    team, bot = _some(random, "123456789", 10, 13), _some(random, "123456789", 10, 13)
    return random.choice(
        [
            f"xoxb-{team}-{bot}-{_some(random, _ALNUM, 24)}",
            f"xoxp-{team}-{bot}-{_some(random, '123456789', 12)}-{_some(random, _HEX, 32)}",
            f"xapp-1-A0{_some(random, upper, 9)}-{team}-{_some(random, _HEX, 64)}",
        ]
    )


def _slack_hook(random: Random) -> str:
    upper = string.ascii_uppercase + string.digits
    place = f"T{_some(random, upper, 8, 10)}/B{_some(random, upper, 8, 10)}/{_some(random, _ALNUM, 24)}"
    return f"hooks.slack.com/services/{place}"  # that it is https says nothing


def _stripe(random: Random) -> str:
    if random.random() < 0.2:
        return f"whsec_{_some(random, _ALNUM, 32)}"
    kind = random.choice(["sk_live", "sk_test", "rk_live"])
    return f"{kind}_{_some(random, _ALNUM, *random.choice([(24, 24), (99, 99)]))}"


def _google(random: Random) -> str:
    return random.choice([f"AIza{_some(random, _URL, 34)}", f"GOCSPX-{_some(random, _URL, 27)}"]) + _some(
        random, _ALNUM, 1
    )


def _openai(random: Random) -> str:
    if random.random() < 0.3:
        return f"sk-{_some(random, _ALNUM, 20)}T3BlbkFJ{_some(random, _ALNUM, 20)}"
    kind, size = random.choice(["proj", "svcacct", "admin"]), random.choice([58, 74])
    first, second = _some(random, _URL, size), _some(random, _URL, size - 1)
    return f"sk-{kind}-{first}T3BlbkFJ{second}{_some(random, _ALNUM, 1)}"


def _anthropic(random: Random) -> str:
    return f"sk-ant-{random.choice(['api03', 'admin01'])}-{_some(random, _URL, 93)}AA"


def _jwt(random: Random) -> str:
    claims = {"sub": _some(random, string.digits, 8), "iat": random.randint(10**9, 2 * 10**9), "role": "user"}
    parts = [
        json.dumps({"alg": "HS256", "typ": "JWT"}).encode(),
        json.dumps(claims).encode(),
        random.randbytes(32),
    ]
    return ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts)


def _pem(random: Random) -> str:
    kind = random.choice(["RSA ", "EC ", "OPENSSH ", "", "ENCRYPTED "])
    body = base64.b64encode(random.randbytes(random.randint(100, 900))).decode()
    lines = "\n".join(body[place : place + 64] for place in range(0, len(body), 64))
    return f"-----BEGIN {kind}PRIVATE KEY-----\n{lines}\n-----END {kind}PRIVATE KEY-----"


def _password(random: Random) -> str:
    """Return one as a generator of passwords makes it: of letters, digits and signs."""
    while True:
        value = (
            _some(random, _ALNUM, 1) + _some(random, _ALNUM + "!#%*+-_.@^", 10, 18) + _some(random, _ALNUM, 1)
        )
        if any(c.isdigit() for c in value) and any(c.islower() for c in value):
            return value


def _plain_password(random: Random) -> str:
    """Return one that may stand in an address as it is."""
    return _some(random, _ALNUM, 12, 24)


def _api_key(random: Random) -> str:
    return random.choice(
        [_some(random, _ALNUM, 24, 40), _some(random, _HEX, 32, 64), _some(random, _URL, 30, 43) + "A"]
    )


SECRETS: Final[Mapping[str, Callable[[Random], str]]] = MappingProxyType(
    {
        "anthropic": _anthropic,
        "api_key": _api_key,
        "aws_id": _aws_id,
        "aws_secret": _aws_secret,
        "github": _github,
        "google": _google,
        "jwt": _jwt,
        "openai": _openai,
        "password": _password,
        "pem": _pem,
        "plain_password": _plain_password,
        "slack": _slack,
        "slack_hook": _slack_hook,
        "stripe": _stripe,
    }
)
"""By name. *api_key*, *aws_secret* and the passwords have no form of their own."""
