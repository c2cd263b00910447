"""Any HTTP service as a heavier detector.

The contract, in UTF-8 JSON over HTTPS (or HTTP on a private network)::

    POST <address>
    Authorization: Bearer <key>                              where one is set
    {"text": "..", "origin": "user" | "tool" | "instructions"}

    200 {"score": 0.93}                                      from 0 to 1; half and more is an attack
    200 {"flagged": true}                                    the same as a score of 1, or of 0

Anything else counts as no answer. Services of Lakera's kind get ``{"messages": [..]}`` and say ``flagged``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Literal

import httpx2
import orjson

from unbroken.server.guards.injection.base import DetectorFailed, Origin, Question

__all__ = ["Api", "HttpDetector"]

Api = Literal["plain", "lakera"]

_MOST_SENT: Final = 32 * 1024
"""Characters of a text that a service is sent; of a longer one, both ends and the part that looks worst."""

_MOST_ANSWERED: Final = 64 * 1024
_CONNECTIONS: Final = 32


class HttpDetector:
    """A :class:`~unbroken.server.guards.injection.base.Detector` behind HTTP.

    It follows no redirects, and never tries twice.
    """

    def __init__(
        self,
        address: str,
        *,
        api: Api = "plain",
        key: str | None = None,
        timeout: float = 2.0,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        self._address = address
        self._request = _REQUESTS[api]
        headers = {"content-type": "application/json", "accept": "application/json"}
        if key is not None:
            headers["authorization"] = f"Bearer {key}"
        self._client = httpx2.AsyncClient(
            headers=headers,
            timeout=timeout,
            transport=transport,
            limits=httpx2.Limits(max_connections=_CONNECTIONS),
            trust_env=False,
        )

    @property
    def name(self) -> str:
        """See :attr:`Detector.name`."""
        return "service"

    async def score(self, question: Question) -> float:
        """See :meth:`Detector.score`."""
        body = orjson.dumps(self._request(question))
        try:
            async with self._client.stream("POST", self._address, content=body) as answer:
                if answer.status_code != 200:
                    raise DetectorFailed(f"The service answered with status {answer.status_code}.")
                content = b""
                async for piece in answer.aiter_bytes():
                    content += piece
                    if len(content) > _MOST_ANSWERED:
                        raise DetectorFailed("The service's answer is too long.")
        except (httpx2.HTTPError, httpx2.InvalidURL) as exc:
            raise DetectorFailed(f"The service can't be asked ({type(exc).__name__}).") from None
        return _score_in(content)

    async def close(self) -> None:
        """See :meth:`Detector.close`."""
        await self._client.aclose()


def _plain(question: Question) -> dict[str, Any]:
    return {"text": _shortened(question), "origin": question.passage.origin.value}


def _lakera(question: Question) -> dict[str, Any]:
    roles = {Origin.USER: "user", Origin.TOOL: "tool", Origin.INSTRUCTIONS: "system"}
    return {"messages": [{"role": roles[question.passage.origin], "content": _shortened(question)}]}


_REQUESTS: Final[dict[Api, Callable[[Question], dict[str, Any]]]] = {"plain": _plain, "lakera": _lakera}


def _shortened(question: Question) -> str:
    text, part = _sendable(question.passage.text), _sendable(question.part)
    if len(text) <= _MOST_SENT:
        return text
    end = (_MOST_SENT - len(part)) // 2
    return "\n".join(each for each in (text[:end], part, text[-end:]) if each)


def _sendable(text: str) -> str:
    return text.encode("utf-8", "replace").decode()  # JSON has no lone surrogates


def _score_in(content: bytes) -> float:
    try:
        said = orjson.loads(content)
    except orjson.JSONDecodeError:
        raise DetectorFailed("The service's answer isn't JSON.") from None
    match said:
        case {"score": bool()}:
            pass
        case {"score": int() | float() as score} if 0 <= score <= 1:
            return float(score)
        case {"flagged": bool() as flagged}:
            return float(flagged)
    raise DetectorFailed("The service's answer has neither a score from 0 to 1 nor whether it flagged.")
