"""Holds what a server answers against its document: status, headers, type, and what is said."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson
from jsonschema import Draft202012Validator
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from unbroken.server.app import App
from unbroken.server.config import Settings
from unbroken.server.openapi.selection import document
from unbroken.server.openapi.terms import Terms
from unbroken.server.transports.page import page_routes

__all__ = ["AnswerCheck", "checked", "document_of", "pattern_of", "written"]

WITH_SLASHES: Final = ("chat_id", "model", "thread_id")
"""Parts of a path that may have slashes."""


def document_of(app: App) -> dict[str, Any]:
    """Return the document of a server, as JSON has it."""
    said = usual_document(
        app.files is not None, app.gate is not None, app.archiving is not None, app._settings.graphql
    )
    if app._settings.openapi:
        return said
    paths = {path: methods for path, methods in said["paths"].items() if path != "/openapi.json"}
    return {**said, "paths": paths}


@functools.cache
def usual_document(
    has_files: bool, has_quotas: bool, has_archive: bool = False, has_graphql: bool = False
) -> dict[str, Any]:
    """Return the document with the usual settings: what others change is said in descriptions alone."""
    archive_url = "sqlite:///archive.db" if has_archive else None
    settings = Settings(archive_url=archive_url, graphql=has_graphql)  # type: ignore[arg-type]
    return written(settings, has_files=has_files, has_quotas=has_quotas)


def written(settings: Settings, *, has_files: bool = True, has_quotas: bool = False) -> dict[str, Any]:
    """Return a document as clients read it."""
    terms = Terms(settings=settings, has_files=has_files, has_quotas=has_quotas)
    paths = [route.path for route in page_routes()]
    said: dict[str, Any] = orjson.loads(orjson.dumps(document(terms, paths)))
    return said


@dataclass(frozen=True)
class Told:
    """One answer."""

    method: str
    path: str
    status: int
    headers: Mapping[str, str]
    body: bytes

    def __str__(self) -> str:
        return f"{self.method} {self.path} -> {self.status} {self.body[:300]!r}"


class AnswerCheck:
    """What holds for the answers of a server with this *document*."""

    def __init__(self, document: dict[str, Any]) -> None:
        self._components = {"components": document["components"]}
        self._paths = [(pattern_of(path), operations) for path, operations in document["paths"].items()]
        # The plainest first: what has a part for anything may stand for others, too.
        self._paths.sort(key=lambda each: (each[0].groups, -len(each[0].pattern)))

    def violations(self, told: Told) -> Iterator[str]:
        """Yield what the document doesn't say of an answer."""
        found = [operations for pattern, operations in self._paths if pattern.fullmatch(told.path)]
        if told.status == 400 and not told.body:  # the client had left: nobody has read it
            return
        method = "get" if told.method == "HEAD" else told.method.lower()
        operation = found[0].get(method) if found else None
        if operation is None:
            if told.status < 300 and method != "options":
                yield f"served, and not documented: {told}"
            return
        answer = operation["responses"].get(str(told.status))
        if answer is None:
            yield f"no such status is documented: {told}"
            return
        for name, header in answer.get("headers", {}).items():
            yield from self._header(name, self._resolved(header), told)
        if told.method != "HEAD":
            yield from self._content(answer.get("content", {}), told)

    def _header(self, name: str, header: dict[str, Any], told: Told) -> Iterator[str]:
        value = told.headers.get(name)
        if value is None:
            if header.get("required"):
                yield f"no header {name}: {told}"
            return
        schema = header["schema"]
        given = int(value) if schema.get("type") == "integer" else value
        yield from (
            f"{name}: {error.message}: {told}" for error in self._validator(schema).iter_errors(given)
        )

    def _content(self, content: dict[str, Any], told: Told) -> Iterator[str]:
        kind = told.headers.get("content-type", "").partition(";")[0]
        if not content:
            if told.body:
                yield f"a body, and none is documented: {told}"
        elif kind not in content and "*/*" not in content:
            yield f"not of a type that is documented, {kind}: {told}"
        elif kind == "application/json" and kind in content:
            schema, body = content[kind]["schema"], orjson.loads(told.body)
            for error in self._validator(schema).iter_errors(body):
                yield f"{error.json_path}: {error.message[:300]}: {told}"

    def _validator(self, schema: dict[str, Any]) -> Draft202012Validator:
        return Draft202012Validator({**schema, **self._components})  # where references lead

    def _resolved(self, header: dict[str, Any]) -> dict[str, Any]:
        if "$ref" not in header:
            return header
        resolved: dict[str, Any] = self._components["components"]["headers"][
            header["$ref"].rpartition("/")[2]
        ]
        return resolved


def pattern_of(path: str) -> re.Pattern[str]:
    """Return what matches the addresses that *path* stands for."""
    parts = (
        f"({'.+' if part[1:-1] in WITH_SLASHES else '[^/]+'})" if part.startswith("{") else re.escape(part)
        for part in re.split(r"(\{\w+\})", path)
    )
    return re.compile("".join(parts), re.DOTALL)


def checked(app: ASGIApp, check: AnswerCheck, violations: list[str]) -> ASGIApp:
    """Return *app*, whose answers are held against a document. What isn't in it is noted."""

    async def around(scope: Scope, receive: Receive, send: Send) -> None:
        status, headers, body, is_over = 0, dict[str, str](), bytearray(), False

        async def note(message: Message) -> None:
            nonlocal status, headers, is_over
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = {
                    name.decode().lower(): value.decode("latin-1") for name, value in message["headers"]
                }
            elif not headers.get("content-type", "").startswith("text/event-stream"):
                body.extend(message.get("body", b""))
            if message["type"] == "http.response.body":
                is_over = not message.get("more_body", False)
            await send(message)

        await app(scope, receive, note)
        if is_over:
            told = Told(scope["method"], scope["path"], status, headers, bytes(body))
            violations.extend(check.violations(told))

    return around
