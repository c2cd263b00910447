"""A client's end of ``WS /v1/realtime``, over one connection after another. No I/O, no clock, no chance.

What the caller wants comes in by :meth:`Conversation.send` and its like, and what arrives by
:meth:`Conversation.receive`. What to send comes out of :meth:`Conversation.outgoing`: call it after each of
these, and when it is :attr:`Conversation.due`. What has arrived is in the exchanges.

One turn is under way at a time; the others wait behind it, in order. What is sent and not known to have
arrived is sent again on the next connection, under the same name, which the server takes once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, assert_never

import orjson

from unbroken.client.calls import Call
from unbroken.client.delivery import Delivery
from unbroken.client.errors import (
    BadState,
    ClientError,
    MessageTooLarge,
    ProtocolError,
    QueueFull,
    Refused,
    is_passing,
)
from unbroken.client.exchange import Exchange
from unbroken.client.limits import Limits
from unbroken.client.phase import Phase
from unbroken.client.wire import (
    ErrorShown,
    Item,
    ItemShown,
    ResponseBegun,
    ResponseEnded,
    ServerEvent,
    SessionShown,
    TextSaid,
    TextWhole,
    cancel_frame,
    decode,
    item_frame,
    message_item,
    probe_frame,
    question_frame,
    response_frame,
)

__all__ = ["UNKNOWN_OUTPUT", "Conversation"]

UNKNOWN_OUTPUT: Final = '{"error": "The function was begun, and it is not known what came of it."}'
"""What a call returned that another process had begun to run."""

_VERSION: Final = 1
_NOWHERE: Final = "nowhere"
"""No place in any log: who comes from there is shown the conversation as it stands."""
_ACTIVE: Final = "conversation_already_has_active_response"
_REMEMBERED: Final = frozenset({_ACTIVE, "response_queue_full"})
"""Refusals that the server repeats to whoever asks again under the same name."""
_THERE_ALREADY: Final = frozenset({"item_id_taken", "function_call_answered"})
"""Refusals of an item that mean that the conversation has it, or another like it."""
_DROPPED: Final = "input_queue_full"
"""An event was not read: so nobody knows its name."""
_NOTHING: Final = "item_not_found"
"""How what asks about nothing is refused."""
_UNCERTAIN: Final = "store_unavailable"
"""Nobody knows whether what was refused so was taken."""


class Conversation:
    """One session, as far as this client takes part in it.

    Args:
        limits: What is bounded.
        draw: Draws from 0 to 1, for pauses.
        new_id: Makes names: each is new to the whole world, of at most 64 letters, digits, ``-`` and ``_``.
        patience: Seconds for which a turn is sent again that the server refuses for the moment.
        tools: The functions that responses are offered, as the protocol writes them.

    """

    def __init__(
        self,
        *,
        limits: Limits,
        draw: Callable[[], float],
        new_id: Callable[[], str],
        patience: float,
        tools: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        self.token: str | None = None
        """What the session is resumed with. A secret. None: there is no session yet."""
        self.session_id: str | None = None
        self.is_durable = True
        """Whether what is said is saved, as far as the server has told."""
        self.exchanges: list[Exchange] = []
        """The turns that haven't ended, in the order in which they are sent."""
        self.refused: Refused | None = None
        """What the last frame on this connection said, if it was an error: should it end now, that is why."""
        self._limits = limits
        self._new_id = new_id
        self._tools = tools
        self._after: str | None = None
        self._has_spoken = False  # whether the server has shown that something was said in this session
        self._delivery = Delivery(patience, draw)
        self._cancels: dict[str, str | None] = {}  # responses to stop, or all, that no turn here sees to
        # Of this connection.
        self._is_welcome = False  # the session has been shown
        self._is_caught_up = False  # what happened before it has been shown, too
        self._is_rebuilding = False  # what is shown is the conversation as it stands. Outlives connections
        self._question: str | None = None  # whose answer tells that all was shown
        self._probe: str | None = None  # whose answer tells that what is doubtful has been done before
        self._probed: tuple[Phase, str] | None = None  # what that is
        self._confirming: dict[
            str, tuple[str, ...]
        ] = {}  # by a question's name, the cancels that it is behind
        self._active: set[str] = set()  # responses in the conversation that haven't ended, whoever asked
        self._concurrency = "reject"

    # What the caller wants.

    def send(self, message: str, wishes: Mapping[str, Any]) -> Exchange:
        """Say *message* and have it answered, when it is its turn and there is a connection.

        Raises:
            QueueFull: As many turns wait as may.
            MessageTooLarge: It doesn't fit into a frame.

        """
        if len(self.exchanges) >= self._limits.turns:
            raise QueueFull(f"{len(self.exchanges)} turns haven't ended yet. Wait for one of them.")
        exchange = Exchange(self._new_id(), message, wishes, self._limits)
        request = response_frame(exchange.request_name, exchange.name, wishes, self._tools)
        item = item_frame(message_item(exchange.message_id, message))
        for frame in (item, request):
            if len(frame) > self._limits.message_bytes:
                raise MessageTooLarge(f"{len(frame)} bytes, of at most {self._limits.message_bytes}.")
        self.exchanges.append(exchange)
        return exchange

    def stop(self, exchange: Exchange) -> None:
        """Stop a turn: at once, if nothing was asked; else as soon as there is a connection to say so on."""
        exchange.stop()
        self._tidy()

    def stop_all(self) -> None:
        """Stop all turns, and whatever else is answered in the conversation, or waits to be."""
        for exchange in list(self.exchanges):
            exchange.stop()
        if self.token is not None and (self._active or not self._is_caught_up):
            self._cancels[f"{self._new_id()}.stop"] = None
        self._tidy()

    def due_calls(self) -> Iterator[tuple[Exchange, Call]]:
        """Yield the calls of functions that are to be run, each once.

        Not before all is known that has happened: another process may have run them.
        """
        head = self._head
        if head is not None and self._is_caught_up:
            for call in head.due_calls():
                yield head, call

    def returned(self, exchange: Exchange, call_id: str, output: str) -> None:
        """Note what a function returned."""
        exchange.returned(call_id, output)

    def fail(self, error: ClientError) -> None:
        """End all turns because of *error*."""
        for exchange in self.exchanges:
            exchange.fail(error)
        self._tidy()

    @property
    def has_something_to_say(self) -> bool:
        """Whether there is anything that needs a connection."""
        return bool(self.exchanges or self._cancels)

    @property
    def is_welcome(self) -> bool:
        """Whether the connection has shown its session."""
        return self._is_welcome

    # Connections.

    def query(self) -> dict[str, str]:
        """Return what goes into the address of the next connection."""
        if self.token is None:
            return {}
        return {"resume": self.token} | ({} if self._after is None else {"after": self._after})

    def opened(self) -> None:
        """Begin with a connection. Nothing is sent on it until it has shown its session."""
        self._is_welcome = self._is_caught_up = False
        self._question = self._probe = self.refused = None
        self._delivery.begin()
        self._confirming.clear()

    lost = opened
    """End it: nobody knows what of what was sent has arrived, and all is said again on the next."""

    def begin_anew(self) -> bool:
        """Forget a session that is gone. Return whether anything is lost with it; then nothing is forgotten.

        What was never shown to have arrived has been asked nothing about: it goes to the next session.
        """
        if self._has_spoken:
            return True
        self.token = self._after = self.session_id = None
        self._active.clear()
        self._cancels.clear()
        return False

    def too_large(self) -> None:
        """Note that the connection has ended because of a frame that was too large: it isn't sent again."""
        if (head := self._head) is not None:
            head.fail(MessageTooLarge("The server takes no frame of this size."))
        self._tidy()

    # What arrives.

    def receive(self, data: str | bytes, now: float) -> None:
        """Take in one frame.

        Raises:
            ProtocolError: It isn't one of this protocol.

        """
        place, event = decode(data)
        if not self._is_welcome and not isinstance(event, SessionShown | ErrorShown):
            raise ProtocolError("The server has sent events before it has shown the session.")
        if self._is_welcome or isinstance(event, SessionShown):
            self._after = place  # before that there is no place in the log
        self.refused = event.error if isinstance(event, ErrorShown) else None
        self._take(event, now)
        self._tidy()

    def _take(self, event: ServerEvent, now: float) -> None:
        head = self._head
        match event:
            case TextSaid(response_id, item_id, delta):
                if head is not None:
                    head.said(response_id, item_id, delta)
            case TextWhole(response_id, item_id, text):
                if head is not None:
                    head.whole(response_id, item_id, text)
            case SessionShown():
                self._show_session(event)
            case ItemShown(item):
                self._has_spoken = True
                if self._is_rebuilding:
                    for exchange in self.exchanges:
                        exchange.shown(item)
                else:
                    self._show_item(item)
            case ResponseBegun(response_id, name, in_conversation):
                self._has_spoken = True
                if in_conversation:
                    self._active.add(response_id)
                if head is None and self.exchanges and name == self.exchanges[0].name:
                    head = self.exchanges[0]  # another process has asked, after this state was made
                    head.begin()
                if head is not None and name == head.name:
                    self._delivery.went_well()
                    head.begun(response_id)
            case ResponseEnded(response_id):
                self._active.discard(response_id)
                if head is not None:
                    head.ended(event, self._new_item_id)
                    if head.is_undecided and self._question is None:
                        self._question = self._new_id()
            case ErrorShown(error, name):
                self._refuse(error, name or "", now)
            case None:
                pass
            case _:
                assert_never(event)

    def _show_item(self, item: Item) -> None:
        if (head := self._head) is not None:
            head.heard(item)
        for exchange in self.exchanges:
            if exchange.phase is Phase.WAITING and item.id == exchange.message_id:
                # Another process has sent it, after this state was made. So what is before it has ended.
                if head is not None:
                    head.decide(self._new_item_id)
                    self._tidy()
                exchange.shown(item)
                if self._head is None:
                    exchange.begin()
                break

    def _show_session(self, event: SessionShown) -> None:
        self._concurrency = event.concurrency
        if not event.is_new_connection:
            self.is_durable = self.is_durable if event.is_durable is None else event.is_durable
            return
        self.is_durable = event.is_durable is not False
        self.token, self.session_id = event.token, event.session_id
        self._is_welcome = True
        if event.resumed is not True:
            self._active.clear()
        if event.resumed is False:
            self._has_spoken = self._is_rebuilding = True
            for exchange in self.exchanges:
                exchange.begin_rebuild()
        is_settled = not self.exchanges and not self._cancels
        self._is_caught_up = event.resumed is None or (is_settled and not self._is_rebuilding)
        if not self._is_caught_up:
            self._question = self._new_id()

    def _refuse(self, error: Refused, name: str, now: float) -> None:
        """Take in an answer to something that was sent, if it is to one of ours."""
        head = self._head
        if not name:
            if error.code == _DROPPED:
                self._probe = None  # it may be what it was sent behind
                self._delivery.postpone_all(now)
        elif name == self._question:
            self._question = None
            self._catch_up()
        elif name in self._confirming:
            for cancel in self._confirming.pop(name):
                if not self._delivery.is_postponed(cancel):
                    self._cancels.pop(cancel, None)
        elif name in self._cancels or (head is not None and name == head.stop_name):
            if is_passing(error.code):
                self._delivery.postpone(name, now, error.retry_after)
        elif head is None:
            pass
        elif name == self._probe:
            if error.code != _NOTHING:
                self._delivery.postpone(name, now, error.retry_after)
                return
            self._probe = None
            # It is of what was sent before it. And what waits behind others' responses may yet begin: then it
            # is asked again when one has ended.
            is_meant = self._probed == (head.phase, head.request_name)
            if head.is_doubtful and is_meant and not self._active:
                head.give_up(self._new_item_id)
        elif name in head.owed:
            if error.code in _THERE_ALREADY:
                head.settled(name)
            else:
                self._postpone(head, name, error, now)
        elif name == head.request_name and head.phase is Phase.ASKING:
            if error.code == _ACTIVE:
                head.refused(rename=True)
                if not self._active:
                    self._delivery.postpone(head.request_name, now)
            elif not is_passing(error.code):
                head.fail(error)
            elif error.code == _UNCERTAIN:
                self._postpone(head, name, error, now)
            else:
                head.refused(rename=error.code in _REMEMBERED)
                self._postpone(head, head.request_name, error, now)

    def _postpone(self, head: Exchange, name: str, error: Refused, now: float) -> None:
        """Send something again after a pause, unless that has gone on for too long, or is in vain."""
        self._probe = None  # it was sent behind what wasn't taken
        if not self._delivery.retry(name, error, now):
            head.fail(error)

    def _catch_up(self) -> None:
        self._is_caught_up = True
        head = self._head
        for exchange in self.exchanges if self._is_rebuilding else ():
            exchange.finish_rebuild(self._new_item_id)
        self._is_rebuilding = False
        if head is not None:
            head.decide(self._new_item_id)

    # What is to be sent.

    def outgoing(self, now: float) -> list[bytes]:
        """Return the frames that are to be sent now, in this order. They count as sent."""
        self._delivery.look(now)
        return list(self._fresh()) if self._is_welcome else []

    def _fresh(self) -> Iterator[bytes]:
        if self._question is not None and self._delivery.is_first(self._question):
            yield question_frame(self._question)
        if not self._is_caught_up:
            return
        stops = [name for name in self._cancels if self._delivery.is_first(name)]
        if stops:
            for name in stops:
                yield cancel_frame(name, self._cancels[name])
            self._confirming[asked := self._new_id()] = tuple(stops)
            yield question_frame(asked)
        if self._head is None and self.exchanges:
            self._delivery.went_well()
            self.exchanges[0].begin()
        if (head := self._head) is not None:
            yield from self._of(head)

    def _of(self, head: Exchange) -> Iterator[bytes]:
        is_new = False
        for item_id in head.owed:
            if self._delivery.is_first(item_id):
                is_new = True
                yield item_frame(head.item(item_id))
        if head.phase is Phase.ASKING and self._may_ask and self._delivery.is_first(head.request_name):
            is_new = head.was_asked = True
            yield response_frame(head.request_name, head.name, head.wishes, self._tools)
        is_stopped = head.is_stopping and head.phase is Phase.ANSWERING
        if is_stopped and head.response_id is not None and self._delivery.is_first(head.stop_name):
            yield cancel_frame(head.stop_name, head.response_id)
        # Behind all of it: what wasn't done by then never will be.
        is_asked = head.phase is not Phase.ASKING or self._delivery.was_sent(head.request_name)
        is_all_sent = is_asked and self._delivery.due is None
        if head.is_doubtful and is_all_sent and not self._active:
            if is_new or self._probe is None:
                self._probe, self._probed = self._new_id(), (head.phase, head.request_name)
            if self._delivery.is_first(self._probe):
                yield probe_frame(self._probe)

    @property
    def _may_ask(self) -> bool:
        """Whether an answer can be had now: others' may be in the way."""
        return self._concurrency != "reject" or not self._active

    @property
    def due(self) -> float | None:
        """When something is to be sent that isn't yet; None: nothing waits for the time."""
        return self._delivery.due

    # Inside.

    @property
    def _head(self) -> Exchange | None:
        """The turn that is under way."""
        return self.exchanges[0] if self.exchanges and self.exchanges[0].is_under_way else None

    def _new_item_id(self) -> str:
        return f"out_{self._new_id()}"

    def _tidy(self) -> None:
        """Forget what is over. An answer that nobody takes any more is stopped."""
        for exchange in self.exchanges:
            if exchange.is_over and exchange.is_stopping and exchange.response_id in self._active:
                self._cancels[exchange.stop_name] = exchange.response_id
        self.exchanges = [exchange for exchange in self.exchanges if not exchange.is_over]
        if self._delivery.due is not None:
            wanted = {*self._cancels, self._probe, self._question}
            if (head := self._head) is not None:
                wanted |= {*head.owed, head.request_name, head.stop_name}
            self._delivery.keep(wanted)

    # Moving to another process.

    def state(self) -> dict[str, Any]:
        """Return where the conversation is, as JSON. A secret: it holds the token, and what was said."""
        return {
            "version": _VERSION,
            "token": self.token,
            "after": self._after,
            "session": self.session_id,
            "has_spoken": self._has_spoken,
            # What is doubtful is looked at again: what was shown of it isn't kept.
            "is_rebuilding": self._is_rebuilding or (self._head is not None and self._head.is_doubtful),
            "concurrency": self._concurrency,
            "active": sorted(self._active),
            "cancels": self._cancels,
            "exchanges": [exchange.state() for exchange in self.exchanges],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from where :meth:`state` was, of another conversation. What ran there isn't run again.

        Raises:
            BadState: It is no such state, or of a later version.

        """
        if state.get("version") != _VERSION:
            raise BadState(f"The state is none of version {_VERSION}.")
        try:
            known = orjson.loads(orjson.dumps(dict(state)))  # nobody else's
            self.token, self._after, self.session_id = known["token"], known["after"], known["session"]
            self._has_spoken, self._is_rebuilding = known["has_spoken"], known["is_rebuilding"]
            self._concurrency, self._active = known["concurrency"], set(known["active"])
            self._cancels = dict(known["cancels"])
            self.exchanges = [Exchange.restore(each, self._limits) for each in known["exchanges"]]
        except (KeyError, TypeError, ValueError, AttributeError) as exc:
            raise BadState("The state can't be read.") from exc
        if self._is_rebuilding:
            self._after = _NOWHERE
        for exchange in self.exchanges:
            if self._is_rebuilding:
                exchange.begin_rebuild()
            exchange.lose_calls(UNKNOWN_OUTPUT)
