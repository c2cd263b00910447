"""Which real clients can do what: a table, made of the tests that show it.

A test is marked ``client(name, feature, ...)``. `tests.conformance.record` notes how such tests end
and writes the table; `tests.conformance.test_clients` compares it with the tests there are.
"""

from __future__ import annotations

import ast
import itertools
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.conformance.autobahn import DIFFERENCES

__all__ = ["CLIENTS", "FEATURES", "Covered", "marked", "rendered"]

ROOT: Final = Path(__file__).parents[2]

Covered = Mapping[tuple[str, str], bool]
"""For each client and feature that a test is marked with: whether all such tests passed."""


@dataclass(frozen=True, slots=True)
class Client:
    """A client, and the lock that says which version of it is tried."""

    title: str
    lock: str | None
    package: str = ""

    def version(self) -> str:
        """Return the version that is tried; empty: that of this server."""
        if self.lock is None:
            return ""
        text = (ROOT / self.lock).read_text()
        if self.lock.endswith(".json"):
            version: str = json.loads(text)["packages"][f"node_modules/{self.package}"]["version"]
            return version
        found = re.search(rf"^{self.package}==(\S+)", text, re.M)
        assert found, f"{self.package} isn't in {self.lock}"
        return found[1]


_NODE: Final = "tests/conformance/node/package-lock.json"

CLIENTS: Final[Mapping[str, Client]] = {
    "openai-python": Client("`openai` for Python", "requirements/run.txt", "openai"),
    "agents-python": Client("`openai-agents` for Python", "requirements/agents.txt", "openai-agents"),
    "openai-node": Client("npm `openai` on Node.js", _NODE, "openai"),
    "openai-browser": Client("npm `openai` in Chromium", _NODE, "openai"),
    "agents-node": Client("npm `@openai/agents-realtime` on Node.js", _NODE, "@openai/agents-realtime"),
    "ai-node": Client("npm `ai` on Node.js", _NODE, "ai"),
    "ai-browser": Client("npm `@ai-sdk/react` in Chromium", _NODE, "@ai-sdk/react"),
    "agui-node": Client("npm `@ag-ui/client` on Node.js", _NODE, "@ag-ui/client"),
    "agui-browser": Client("npm `@ag-ui/client` in Chromium", _NODE, "@ag-ui/client"),
    "tanstack-node": Client("npm `@tanstack/ai-client` on Node.js", _NODE, "@tanstack/ai-client"),
    "tanstack-browser": Client("npm `@tanstack/ai-client` in Chromium", _NODE, "@tanstack/ai-client"),
    "deep-chat": Client("npm `deep-chat` in Chromium", _NODE, "deep-chat"),
    "gql-python": Client("`gql` for Python", "requirements/dev.txt", r"gql\[websockets\]"),
    "graphql-ws": Client("npm `graphql-ws` on Node.js", _NODE, "graphql-ws"),
    "graphql-sse": Client("npm `graphql-sse` on Node.js", _NODE, "graphql-sse"),
    "own-python": Client("this project's client for Python", None),
    "own-node": Client("this project's client on Node.js", None),
    "page": Client("this server's page in Chromium", None),
}

FEATURES: Final[Mapping[str, str]] = {
    "conversation": "Converses, with answers streamed",
    "cancel": "Stops an answer in its midst",
    "approval": "Approves of a call of one of the server's tools",
    "tools": "Runs a function that was called, and the answer goes on",
    "regenerate": "Has an answer be made again",
    "beside": "Asks for an answer beside the conversation",
    "items": "Changes items: retrieves, places or deletes them",
    "errors": "Is told of a mistake, and goes on",
    "failure": "Is told of answers that failed or were cut short",
    "strict": "Finds every frame to fit its own strict schema",
    "resume": "Resumes in mid-answer after 1012 and 1013, by a hook of its own",
    "fault": "So also after 1011, which some clients hold for final",
    "address": "Resumes in mid-answer, the application connecting again",
    "network": "Resumes through a broken network",
    "node": "Resumes on another node, behind HAProxy, when its own is killed or drained in mid-answer",
    "quota": "Is told that a quota is used up",
    "filtered": "Is told that what it says is refused as an attack",
    "outbox": "Sends later, once, what is said without a connection",
    "stop": "Stays away after 1008",
    "responses": "Responses: streams, goes on from any event, cancels, continues",
    "conversations": "Conversations: begins, adds to, lists what is in them, deletes",
    "lanes": "Responses over a WebSocket: lanes, said on when the connection is lost",
    "compact": "Responses: has a conversation be summed up, and goes on from there",
    "chat": "Chat Completions: streams, calls functions, lists models",
    "graphql": "GraphQL: queries, mutations, subscriptions that go on behind a cursor",
    "key": "Is told that its key is wrong",
    "origin": "Connects from pages of allowed origins; others are told",
}

_HEAD: Final = """\
# Clients

What real clients, unmodified, were seen to do with this server. Written by `make conformance` from the
tests that show it; an empty cell is what no test tries, often because the client has no such thing.

"""

_AUTOBAHN: Final = """
## The WebSocket protocol itself

The Autobahn cases are run too. All are as they should be, but for groups 12 and 13, which try compression
(the server never agrees to any), and for these:

"""


def marked(folder: Path = ROOT / "tests") -> set[tuple[str, str]]:
    """Return each client and feature that a test under *folder* is marked with."""
    return {pair for path in folder.rglob("test_*.py") for pair in _marks(ast.parse(path.read_text()))}


def _marks(module: ast.Module) -> Iterator[tuple[str, str]]:
    for node in ast.walk(module):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.mark.client":
            client, *features = [ast.literal_eval(each) for each in node.args]
            for feature in features:
                yield client, feature


def rendered(covered: Covered) -> str:
    """Return the document that says what was *covered*."""
    names = [" ".join(filter(None, (each.title, each.version()))) for each in CLIENTS.values()]
    lines = [_row("", *names), _row("---", *(":-:" for _ in names))]
    for feature, meaning in FEATURES.items():
        lines.append(_row(meaning, *(_cell(covered.get((client, feature))) for client in CLIENTS)))
    return _HEAD + "\n".join(lines) + "\n" + _AUTOBAHN + "\n".join(_differences()) + "\n"


def _differences() -> Iterator[str]:
    for reason, cases in itertools.groupby(DIFFERENCES, key=DIFFERENCES.__getitem__):
        yield f"- {', '.join(cases)}: {reason}"


def _cell(passed: bool | None) -> str:
    return {True: "yes", False: "**failed**", None: ""}[passed]


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"
