"""What is new in what a client sends, beside what the session knows already. Pure.

The session's own conversation counts. Of the client's, the last message is read: what it says that isn't
there yet is said, and what was asked for before is pointed to, not asked for again.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable, Mapping

from unbroken.server.protocols.asked import Asked
from unbroken.server.protocols.items import DecodeError
from unbroken.server.protocols.ui.decode import MESSAGE_ID, Chat, Settled, replayed, request_of
from unbroken.sessions.endings import Ended
from unbroken.sessions.ids import ItemId, ResponseId
from unbroken.sessions.items import (
    ApprovalRequest,
    ApprovalResponse,
    FunctionCall,
    FunctionOutput,
    Item,
    Message,
)
from unbroken.sessions.session import Session

__all__ = ["answer_to", "earlier_steps", "message_id_of", "metadata_of", "wanted_of"]


def wanted_of(chat: Chat, session: Session | None, plan: str) -> Asked | ResponseId:
    """Return what is to be done in *session* about a request of somebody on *plan*, or what does it.

    None: the chat has no session, or none any more.

    Raises:
        DecodeError: It can't be done.

    """
    if session is None or not (session.items() or session.is_busy):
        return _asked(chat, plan, replayed(chat), _name(chat))
    if chat.question is None:
        return _continued(chat, session, plan)
    return _said(chat, chat.question, session, plan)


def _said(chat: Chat, question: Message, session: Session, plan: str) -> Asked | ResponseId:
    known = session.item(question.id)
    name = _name(chat)
    if known is None or not isinstance(known, Message):
        return _asked(chat, plan, (*_unsettled(chat, session), question), name)
    behind = _behind(session, question.id)
    if not _is_same(known, question):
        if chat.regenerates or chat.replaces != question.id:
            message = "A message of this id was sent before, and said something else. Give it another id."
            raise DecodeError("message_id_reused", message, param="messages")
        place = f"{name}:for:{_head(session)}:{chat.digest.hex()}"
        removed = (question.id, *behind)
        return _asked(chat, plan, (question,), place, removed=removed, supersedes=True)
    answer = answer_to(session, (question.id,))
    if not chat.regenerates:
        if answer is None and behind:
            message = "This message was answered long ago. Get the chat's messages, and go on from there."
            raise DecodeError("response_events_gone", message, param="messages")
        return _once(chat, session, plan, _unsettled(chat, session), name, answer)
    if (
        isinstance(answer, str)
        and chat.replaces not in (None, question.id)
        and message_id_of(session, answer) != chat.replaces
    ):
        return answer  # it replaces that one already
    replaced = answer.id if isinstance(answer, Ended) else answer
    return _asked(chat, plan, (), f"{name}:again:{replaced}", removed=behind, supersedes=True)


def _continued(chat: Chat, session: Session, plan: str) -> Asked | ResponseId:
    """Return what goes on with an answer whose calls have been settled."""
    name = _name(chat)
    news = _unsettled(chat, session)
    if news:
        return _asked(chat, plan, news, name)
    done = {_settled(item) for item in chat.settled}
    settled = {
        item.id
        for item in session.items()
        if isinstance(item, FunctionOutput | ApprovalResponse) and _settled(item) in done
    }
    if not settled:
        message = "These calls aren't in the chat. Get its messages, and go on from there."
        raise DecodeError("item_not_found", message, param="messages")
    return _once(chat, session, plan, (), name, answer_to(session, settled))


def _once(
    chat: Chat,
    session: Session,
    plan: str,
    items: tuple[Item, ...],
    name: str,
    answer: Ended | ResponseId | None,
) -> Asked | ResponseId:
    """Return the answer that there is, unless it came to nothing: then it is asked for again."""
    if answer is None:
        return _asked(chat, plan, items, name)
    if not isinstance(answer, Ended):
        return answer
    if answer.status in ("failed", "interrupted") and session.items()[-1:] == _last_of(session, answer):
        return _asked(chat, plan, items, f"{name}:after:{answer.id}")
    return answer.id


def _last_of(session: Session, ended: Ended) -> list[Item]:
    item = None if ended.end is None else session.item(ended.end)
    return [] if item is None else [item]


def _asked(
    chat: Chat,
    plan: str,
    items: tuple[Item, ...],
    name: str,
    *,
    removed: tuple[ItemId, ...] = (),
    supersedes: bool = False,
) -> Asked:
    answer_id = chat.answer_id or f"msg_{secrets.token_hex(12)}"
    return Asked(
        model=chat.extension.model,
        items=items,
        references=(),
        request=request_of(chat, answer_id, plan),
        previous=None,
        conversation=None,
        store=True,
        stream=True,
        background=False,
        obfuscates=False,
        message_id=name,
        digest=chat.digest,
        removed=removed,
        reasoning=chat.extension.reasoning,
        supersedes=supersedes,
    )


def _name(chat: Chat) -> str:
    """Return what a request is known again by: the user's message, or the calls that have been settled."""
    if chat.question is not None:
        return f"ui:{chat.question.id}"
    settled = "\0".join(sorted(item.id for item in chat.settled))
    return f"ui:{hashlib.blake2b(settled.encode(), digest_size=12).hexdigest()}"


def _unsettled(chat: Chat, session: Session) -> tuple[Item, ...]:
    """Return what the page has done about calls of the session's that are open. Others are of elsewhere."""
    waiting: dict[str, type[Settled]] = {}  # and what settles each: an output is no approval
    for item in session.items():
        match item:
            case FunctionCall(call_id=call_id):
                waiting[call_id] = FunctionOutput
            case ApprovalRequest(id=request_id):
                waiting[request_id] = ApprovalResponse
            case FunctionOutput() | ApprovalResponse():
                waiting.pop(_settled(item), None)
            case _:
                pass
    return tuple(item for item in chat.settled if waiting.get(_settled(item)) is type(item))


def _settled(item: Settled) -> str:
    """Return the call, or the request, that something was done about."""
    return item.call_id if isinstance(item, FunctionOutput) else item.request_id


def _is_same(known: Message, question: Message) -> bool:
    """Whether two messages say the same. Of files, how many: content that came along has become one since."""
    return (
        known.role == question.role
        and known.text == question.text
        and len(known.references) == len(question.references)
    )


def _behind(session: Session, item_id: ItemId) -> tuple[ItemId, ...]:
    ids = [item.id for item in session.items()]
    return tuple(ids[ids.index(item_id) + 1 :])


def _head(session: Session) -> str:
    items = session.items()
    return items[-1].id if items else "root"


def answer_to(session: Session, anchors: Iterable[str]) -> Ended | ResponseId | None:
    """Return the latest response to one of those items: how it ended, or its id if it hasn't."""
    wanted = set(anchors)
    for response in session.responses.values():
        if response.request.in_conversation and response.anchor in wanted:
            return response.id
    for ended in reversed(list(session.endings)):
        if ended.anchor in wanted:
            return ended
    return None


def message_id_of(session: Session, response_id: ResponseId) -> str:
    """Return which message of the client's a response is a part of: of one made elsewhere, one of its own."""
    return metadata_of(session, response_id).get(MESSAGE_ID, response_id)


def metadata_of(session: Session, response_id: ResponseId) -> Mapping[str, str]:
    """Return what was noted of a response when it was asked for, as far as that is known."""
    if (running := session.responses.get(response_id)) is not None:
        metadata = running.request.metadata
    else:
        ended = session.endings.get(response_id)
        metadata = None if ended is None else ended.metadata
    return metadata or {}


def earlier_steps(session: Session, response_id: ResponseId) -> list[Item]:
    """Return what belongs to the same answer and is ahead of a response: calls, and what came of them."""
    if (running := session.responses.get(response_id)) is not None:
        anchor = running.anchor
    else:
        ended = session.endings.get(response_id)
        anchor = None if ended is None else ended.anchor
    items = session.items()
    place = next((index for index, item in enumerate(items, 1) if item.id == anchor), 0)
    if not place or not isinstance(items[place - 1], FunctionOutput | ApprovalResponse):
        return []
    first = place
    while first and not (isinstance(before := items[first - 1], Message) and before.role != "assistant"):
        first -= 1
    return items[first:place]
