"""What the log holds of an answer that is read again: it is checked, and left out. Pure."""

from __future__ import annotations

from unbroken.server.agents.base import AgentError

__all__ = ["AlreadySaid", "AnswerChanged"]


class AnswerChanged(AgentError):
    """What is said now isn't what was said: the rules are others, or the upstream's answer is."""

    code = "upstream_cut"
    message = "The answer couldn't be continued."
    is_rest_lost = True


class AlreadySaid:
    """One text of which *known* has been said."""

    def __init__(self, known: str = "") -> None:
        self.left = known
        """What the log holds and has yet to be said again."""

    def new(self, released: str) -> str:
        """Return what of *released*, which comes next, the log doesn't hold.

        Raises:
            AnswerChanged: It isn't what the log holds.

        """
        known = self.left
        if len(released) <= len(known):
            if not known.startswith(released):
                raise AnswerChanged
            self.left = known[len(released) :]
            return ""
        if not released.startswith(known):
            raise AnswerChanged
        self.left = ""
        return released[len(known) :]
