"""``unbroken drain``: asks running nodes to drain, over their admin listeners, and waits for them.

::

    Exception
    +-- DrainFailed     it can't be asked for, or isn't done in time: one line, with what to do
"""

from __future__ import annotations

import http.client
import json
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any, Final

from unbroken.server.config import Settings
from unbroken.server.openers import unmoved

__all__ = ["DrainFailed", "address_of", "ask_to_drain"]

_STATUSES: Final = ("serving", "draining", "drained")
_COUNTS: Final = ("connections", "responses", "sessions")
_TIMEOUT: Final = 5.0
_INTERVAL: Final = 0.5
_MISSED: Final = 2
"""Ports in succession where no worker answers, after which no other is looked for."""
_LAST_PORT: Final = 65535
_SLACK: Final = 10.0
"""Seconds beyond the drain's own deadline: agents clean up, and clients are told."""


class DrainFailed(Exception):
    """It can't be asked for, or isn't done in time."""


def ask_to_drain(settings: Settings, *, url: str | None, wait: float | None, undo: bool) -> Iterator[str]:
    """Ask for a drain, or for its end, and yield a line each time that something changes.

    Args:
        settings: The admin key, and where the node listens, if *url* doesn't say so.
        url: An admin listener. None: those of all workers.
        wait: Seconds to wait for. None: as long as the drain may take by the settings.
        undo: Ask for its end.

    Raises:
        DrainFailed: It can't be asked for, or isn't done in time.

    """
    if settings.admin_key is None:
        raise DrainFailed("A drain needs the server's admin key. Set UNBROKEN_ADMIN_KEY, here as there.")
    if url is None and not settings.admin_port:
        raise DrainFailed("UNBROKEN_ADMIN_PORT is 0: the server has no admin listener. Send it SIGTERM.")
    key = settings.admin_key.get_secret_value()
    urls = [address_of(settings, number) for number in range(settings.workers)] if url is None else [url]
    nodes = [_Node(each, key) for each in urls]
    if url is None:
        nodes += _further_workers(nodes, settings, key)
    if undo:
        yield _described(_summed(_asked(nodes, "DELETE")))
        return
    deadline = time.monotonic() + (settings.drain_timeout + _SLACK if wait is None else wait)
    state, said = _summed(_asked(nodes, "POST")), ""
    while True:
        if (line := _described(state)) != said:
            yield line
            said = line
        if state["status"] == "drained" or wait == 0:
            return
        if time.monotonic() >= deadline:
            raise DrainFailed(f"Not drained in time: {line}. Wait longer with --wait, or send SIGTERM.")
        time.sleep(_INTERVAL)
        state = _summed(_asked(nodes, "GET"))
        if state["status"] == "serving":
            raise DrainFailed("The drain was taken back meanwhile. Ask for it again, if it is wanted.")


def _further_workers(nodes: list[_Node], settings: Settings, key: str) -> list[_Node]:
    """Return the other workers of a server whose number of workers is set there, and not here."""
    try:
        group = nodes[0].ask("GET")["group"]
    except DrainFailed:
        return []  # whoever asks next is told
    found: list[_Node] = []
    number, missed = len(nodes), 0
    while group is not None and missed < _MISSED and settings.admin_port + number <= _LAST_PORT:
        node = _Node(address_of(settings, number), key)
        try:
            is_one = node.ask("GET")["group"] == group
        except DrainFailed:
            is_one = False  # or it is being started again
        missed = 0 if is_one else missed + 1
        if is_one:
            found.append(node)
        number += 1
    return found


def _asked(nodes: list[_Node], method: str) -> list[dict[str, Any]]:
    """Ask all nodes, also where one of them, as a worker that is being started again, doesn't answer.

    Raises:
        DrainFailed: One of them doesn't answer as it should. The others were asked.

    """
    states, failures = [], []
    for node in nodes:
        try:
            states.append(node.ask(method))
        except DrainFailed as failed:
            failures.append(failed)
    if failures:
        raise failures[0]
    return states


def address_of(settings: Settings, number: int) -> str:
    """Return where the admin listener is of the worker of that *number*."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.admin_host, settings.admin_host)  # noqa: S104
    return f"http://{f'[{host}]' if ':' in host else host}:{settings.admin_port + number}"


def _summed(states: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the state of several nodes together: that of the one which is least far."""
    status = min((state["status"] for state in states), key=_STATUSES.index)
    counts = {name: sum(state[name] for state in states) for name in _COUNTS}
    return {"status": status, **counts}


def _described(state: dict[str, Any]) -> str:
    counts = [f"{state[name]} {name if state[name] != 1 else name[:-1]}" for name in _COUNTS]
    return f"{state['status']}: {', '.join(counts)}"


class _Node:
    """A node's ``/admin/drain``."""

    def __init__(self, url: str, key: str) -> None:
        if not url.startswith(("http://", "https://")):
            raise DrainFailed(f"{url} is no address. Give --url as in http://127.0.0.1:8001.")
        self._url = url.rstrip("/") + "/admin/drain"
        self._headers = {"Authorization": f"Bearer {key}"}
        self._opener = unmoved()  # the key is for the node alone

    def ask(self, method: str) -> dict[str, Any]:
        """Return the node's state, as it answers.

        Raises:
            DrainFailed: It answers something else, or nothing.

        """
        request = urllib.request.Request(self._url, method=method, headers=self._headers)  # noqa: S310 - checked
        try:
            with self._opener.open(request, timeout=_TIMEOUT) as answer:
                state: dict[str, Any] = json.loads(answer.read(65536))
                if state["status"] not in _STATUSES:
                    raise ValueError
                counts = {name: int(state[name]) for name in _COUNTS}
                return {**counts, "status": state["status"], "group": state.get("group")}
        except urllib.error.HTTPError as error:
            with error:
                raise DrainFailed(self._explained(error)) from None
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", error)
            message = f"No server answers at {self._url}: {reason}. Start it, or give its address with --url."
            raise DrainFailed(message) from None
        except (ValueError, KeyError, TypeError):
            message = f"What answers at {self._url} is no Unbroken server. Give another address with --url."
            raise DrainFailed(message) from None

    def _explained(self, error: urllib.error.HTTPError) -> str:
        if error.code == 401:
            return "The server refuses the key. UNBROKEN_ADMIN_KEY must be the same here and there."
        if error.code == 404:
            return (
                f"There is no {self._url}. Set UNBROKEN_ADMIN_KEY for the server too, "
                "and give the address of its admin listener (--url)."
            )
        if error.code == 409:
            return "The server was told to end: that can't be taken back."
        return f"The server answers with HTTP status {error.code}. Look at its log."
