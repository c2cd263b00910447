"""What is to be done about a run that is asked for, beside what its session knows already. Pure."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import msgspec

from unbroken.server.protocols.agui.decode import RUN_ID, THREAD_ID, Run
from unbroken.server.protocols.asked import Asked
from unbroken.server.protocols.ui.history import answer_to, metadata_of, wanted_of
from unbroken.sessions.endings import Ended
from unbroken.sessions.ids import ResponseId
from unbroken.sessions.session import Session

__all__ = ["response_of", "run_id_of", "wanted_of_run"]

_CUT_SHORT: Final = ("failed", "interrupted")


def wanted_of_run(run: Run, session: Session | None, plan: str) -> Asked | ResponseId:
    """Return what is to be done in *session* about a run of somebody on *plan*, or what does it.

    None: the thread has no session, or none any more.

    Raises:
        DecodeError: It can't be done.

    """
    chat = run.chat
    if session is not None and chat.question is not None and session.item(chat.question.id) is not None:
        answer = answer_to(session, (chat.question.id,))
        if (
            isinstance(answer, Ended)
            and answer.status not in _CUT_SHORT
            and run_id_of(session, answer.id) != run.id
        ):
            chat = replace(chat, regenerates=True)  # that run is over, and this is another
    wanted = wanted_of(chat, session, plan)
    if not isinstance(wanted, Asked):
        return wanted
    request = wanted.request
    metadata = {**(request.metadata or {}), RUN_ID: run.id, THREAD_ID: run.thread_id}
    instructions = request.instructions
    if run.context:
        usual = "" if session is None else session.config.instructions
        instructions = "\n\n".join(
            filter(None, (usual if instructions is None else instructions, run.context))
        )
    request = msgspec.structs.replace(request, metadata=metadata, instructions=instructions)
    return replace(wanted, request=request)


def run_id_of(session: Session, response_id: ResponseId) -> str | None:
    """Return what its client calls a response. None: nobody called it anything, or it is forgotten."""
    return metadata_of(session, response_id).get(RUN_ID)


def response_of(session: Session, run_id: str) -> ResponseId | None:
    """Return the response that a client calls *run_id*, the latest of several. None: none is known."""
    for response_id in [*session.responses, *(ended.id for ended in reversed(list(session.endings)))]:
        if run_id in (response_id, run_id_of(session, response_id)):
            return response_id
    return None
