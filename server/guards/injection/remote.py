"""Heavier detectors: any HTTP service, and any ONNX classifier in a folder.

The contract of a service, in UTF-8 JSON over HTTPS (or HTTP on a private network)::

    POST <address>
    Authorization: Bearer <key>                              where one is set
    {"text": "..", "origin": "user" | "tool" | "instructions"}

    200 {"score": 0.93}                                      from 0 to 1; half and more is an attack
    200 {"flagged": true}                                    the same as a score of 1, or of 0

Anything else counts as no answer. Services of Lakera's kind get ``{"messages": [..]}`` and say ``flagged``.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any, Final, Literal

import httpx2
import orjson

from unbroken.server.guards.injection.base import Classifier, DetectorFailed, Origin, Passage
from unbroken.server.guards.injection.normal_form import NormalForm
from unbroken.server.guards.injection.reading import Rater, suspected
from unbroken.server.guards.injection.windows import parts

__all__ = ["Api", "HttpDetector", "ModelDetector"]

Api = Literal["plain", "lakera"]

_MOST_SENT: Final = 32 * 1024
"""Characters of a text that a service is sent; of a longer one, both ends."""

_MOST_ANSWERED: Final = 64 * 1024
_CONNECTIONS: Final = 32
_WINDOWS: Final = 4


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

    async def score(self, passage: Passage) -> float:
        """See :meth:`Detector.score`."""
        body = orjson.dumps(self._request(passage))
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


def _plain(passage: Passage) -> dict[str, Any]:
    return {"text": _shortened(passage.text), "origin": passage.origin.value}


def _lakera(passage: Passage) -> dict[str, Any]:
    role = {Origin.USER: "user", Origin.TOOL: "tool", Origin.INSTRUCTIONS: "system"}[passage.origin]
    return {"messages": [{"role": role, "content": _shortened(passage.text)}]}


_REQUESTS: Final[dict[Api, Callable[[Passage], dict[str, Any]]]] = {"plain": _plain, "lakera": _lakera}


def _shortened(text: str) -> str:
    text = text.encode("utf-8", "replace").decode()  # JSON has no lone surrogates
    return text if len(text) <= _MOST_SENT else text[: _MOST_SENT // 2] + "\n" + text[-_MOST_SENT // 2 :]


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


class ModelDetector:
    """A :class:`~unbroken.server.guards.injection.base.Detector` that runs a model in a thread."""

    def __init__(self, classifier: Classifier, rater: Rater, threads: Executor) -> None:
        self._classifier = classifier
        self._rater = rater
        self._threads = threads
        self._form = NormalForm()

    @property
    def name(self) -> str:
        """See :attr:`Detector.name`."""
        return self._classifier.name

    async def score(self, passage: Passage) -> float:
        """See :meth:`Detector.score`."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._score, passage.text)

    def _score(self, text: str) -> float:
        shown: list[tuple[float, str]] = []
        for part in parts(text):
            shown += suspected(self._rater, self._form.of(part), _WINDOWS)
        windows = [window for _, window in heapq.nlargest(_WINDOWS, shown)]
        return max(self._classifier.scores(windows), default=0.0)

    async def close(self) -> None:
        """See :meth:`Detector.close`. The threads are somebody else's."""
