"""Many answers at once, each as fast as can be, checked word by word."""

from __future__ import annotations

from tests.bench.answers import BurstAnswer
from tests.bench.load import Client, Load
from tests.bench.wire import REALTIME, RESPONSE_DONE, Dialect, answer_request
from tests.bench.workload import Order, answer_text

__all__ = ["answers"]

_TIMEOUT = 90.0


def answers(load: Load, order: Order, count: int, dialect: Dialect = REALTIME) -> int:
    """Have every connection answered *count* times, and return in how many frames the text came."""
    expected = answer_text(order.count)
    request = answer_request(order, dialect)
    left = dict.fromkeys(load.clients, count)
    given: list[BurstAnswer] = []

    def ask(client: Client) -> None:
        if left[client]:
            left[client] -= 1
            answer = BurstAnswer(expected)
            given.append(answer)
            load.ask(client, request, RESPONSE_DONE, answer)

    for client in load.clients:
        ask(client)
    load.drive(timeout=_TIMEOUT, tick=True, on_done=ask)
    return sum(answer.frames for answer in given)
