"""The Autobahn cases for the protocol itself (RFC 6455 and 7692), against the server's connection classes.

All of them are run twice: with echoes by ASGI's ``send``, and by the outlet that conversations are sent by.
``python -m tests.conformance.autobahn`` runs all of them, prints what isn't as the cases would have
it, and writes every verdict to ``build/autobahn.json``. `tests.conformance.test_autobahn` compares.
"""

from __future__ import annotations

import asyncio
import json
import sys
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from kosoku import FailureError, run_fuzzingclient
from starlette.types import ASGIApp

from tests.conformance.echo import echo, echo_by_outlet
from tests.conformance.listening import listening

__all__ = ["ALL", "DIFFERENCES", "QUICK", "WITHOUT_COMPRESSION", "groups_of", "judged", "unexpected"]

QUICK: Final = ("1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "10.*")
"""Frames, pings, reserved bits, opcodes, fragments, UTF-8 and closing."""

ALL: Final = (*QUICK, "9.*", "12.*", "13.*")
"""Those, large messages, and compression."""

_TOO_MANY_FRAGMENTS: Final = (
    "The message comes in more frames than one message may, and is closed with 1009: each frame costs "
    "something, however little it carries."
)

DIFFERENCES: Final[Mapping[str, str]] = {
    "7.1.5": (
        "The client closes in the midst of a fragmented message. websockets answers 1002, as the message "
        "was never ended, where RFC 6455, 5.5.1, has the peer's code echoed. The connection ends either way."
    ),
    **dict.fromkeys(("9.3.1", "9.3.2", "9.3.3", "9.4.1", "9.4.2", "9.4.3"), _TOO_MANY_FRAGMENTS),
}
"""Cases that fail, with the reason why they may."""

_VERDICTS: Final = {"7.1.5": "FAILED (1002)"}
"""On known differences; ``FAILED (1009)`` on the others."""

WITHOUT_COMPRESSION: Final = ("12", "13")
"""Groups that are unimplemented as a whole: the server agrees to no compression."""

_LARGEST_MESSAGE: Final = 16 << 20
_AT_A_TIME: Final = 4

Verdicts = dict[str, str]


async def judged(app: ASGIApp, cases: Sequence[str]) -> Verdicts:
    """Return the verdict on each of the cases, by its number; ``FAILED (1009)`` also names the close code.

    *app* is one of those that echo.
    """
    with warnings.catch_warnings():
        # It opens its payloads and never closes them.
        warnings.filterwarnings("ignore", message=".*kosoku", category=ResourceWarning)
        return await _judged(app, cases)


async def _judged(app: ASGIApp, cases: Sequence[str]) -> Verdicts:
    async with listening(app, max_frame_bytes=_LARGEST_MESSAGE) as port:
        address = f"ws://127.0.0.1:{port}"
        try:
            results = await run_fuzzingclient(address, cases, concurrency=_AT_A_TIME)
        except FailureError as failure:
            results = failure.results  # all of them, not only those that failed
    return {
        each.case_id: each.behavior.value
        if each.passed or each.behavior.value == "UNIMPLEMENTED"
        else f"{each.behavior.value} ({each.remote_close_code})"
        for each in results
    }


def groups_of(cases: Sequence[str]) -> set[str]:
    """Return the numbers before the first dot."""
    return {case.partition(".")[0] for case in cases}


def unexpected(verdicts: Verdicts) -> dict[str, str]:
    """Return what is neither as it should be nor a known difference, and differences that are gone."""
    wrong = {}
    for case, verdict in verdicts.items():
        (group,) = groups_of([case])
        if group in WITHOUT_COMPRESSION:
            is_right = verdict == "UNIMPLEMENTED"
        elif case in DIFFERENCES:
            is_right = verdict == _VERDICTS.get(case, "FAILED (1009)")
        else:
            is_right = verdict in ("OK", "NON-STRICT", "INFORMATIONAL")
        if not is_right:
            wrong[case] = verdict
    return wrong


def main() -> int:
    ways = {"send": echo, "outlet": echo_by_outlet}
    verdicts = {name: asyncio.run(judged(app, ALL)) for name, app in ways.items()}
    target = Path("build") / "autobahn.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(verdicts, indent=1) + "\n")
    wrong = {name: unexpected(each) for name, each in verdicts.items()}
    lines = []
    for name, each in verdicts.items():
        lines.append(f"Autobahn: {len(each)} cases, echoed by {name}")
        lines += [f"  {count:4} {verdict}" for verdict, count in Counter(each.values()).items()]
        lines += [f"  unexpected: {case} is {verdict}" for case, verdict in wrong[name].items()]
    sys.stdout.write("\n".join(lines) + "\n")
    return 1 if any(wrong.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
