"""Marks by which models tell who speaks, where a text has no business having them.

Found by their form, not by what they say. Patterns have bounded repetitions only: linear in any text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from unbroken.server.guards.injection.base import Origin

__all__ = ["MARKS", "Mark", "marks"]


@dataclass(frozen=True, slots=True)
class Mark:
    """A mark that was found."""

    name: str
    start: int
    weight: float


_SPEAKER: Final = r"(?:system|developer|assistant|tool|ipython|model)"
_ANYBODY: Final = rf"(?:{_SPEAKER}|user|human|environment|functions?\b)"

# In normal form: no upper case, full-width bars are plain. The first that fits a place names it.
# Nothing fits in a text without any of the pieces before a pattern: that is found out faster.
_MARKS: Final = (
    (
        "template-role",
        0.85,
        ("<|",),
        re.compile(rf"<\|(?:im_start|start_header_id|start|header_start)\|?>\s{{0,4}}{_SPEAKER}"),
    ),
    ("template-role", 0.85, ("<",), re.compile(rf"<\|{_SPEAKER}\|>|<start_of_turn>\s{{0,4}}{_SPEAKER}")),
    (
        "template-role",
        0.85,
        ("<", "[/inst]"),
        re.compile(
            r"<<sys>>|\[/inst\]\s{0,4}[^\s\[]|<\|(?:assistant|system)▁?(?:end)?\|>"
            r"|<\|(?:system|chatbot)_token\|>|\[/?system_prompt\]"
        ),
    ),
    (
        "template-token",
        0.5,
        ("<", "inst]", "[tool_", "[/tool_", "_tools]"),
        re.compile(
            r"<\|(?:im_end|im_start|eot_id|end_header_id|start_header_id|endoftext|end_of_turn|begin_of_text"
            r"|end_of_text|user|end|eom_id|python_tag|channel|message|constrain|return|call|im_sep|observation"
            r"|(?:start|end)_of_turn_token|user_token|tool▁[a-z▁]{1,24})\|>"
            r"|\[/?(?:tool_(?:calls?|results?)|available_tools)\]|</?(?:\|?tool_(?:response|call)\|?|function_(?:calls?|results?))>"
            r"|</?s>\s{0,4}\[/?inst\]|\[/?inst\]|<</sys>>|</?(?:start|end)_of_turn>"
            r"|<[|]?(?:begin|end)▁of▁sentence[|]?>"
        ),
    ),
    (
        "role-tag",
        0.6,
        ("<", "["),
        re.compile(
            r"</?(?:system|developer|assistant)(?:[_-]?(?:prompt|message|instructions?|reminder|override))?>"
            r"|</(?:instructions?|user_input|user_query|user_message|untrusted|context|document|tool_result"
            r"|function_results?)>\s{0,8}(?:<(?:instructions?|system|new_)|new |system|now )"
            r"|\[(?:system|admin|developer)"
            r"(?:[ _-](?:prompt|message|instructions?|override|note|alert|command))?\]"
        ),
    ),
    (
        "role-line",
        0.6,
        (":",),
        re.compile(
            r"(?:^|\n)[ >*#=\-]{0,12}(?:system|developer|admin(?:istrator)?)[ _-]"
            r"(?:prompt|message|instructions?|override|note|alert|command|notice|update)[ *#=\-]{0,8}:"
        ),
    ),
    (
        "role-line",
        0.45,
        (":",),
        re.compile(r"(?:^|\n)[ >*#=\-]{0,12}(?:system|sysadmin|root)[ *]{0,4}:[ *\n]"),
    ),
    (
        "delimiter",
        0.5,
        ("---", "===", "###", "***"),
        re.compile(
            r"(?:-{3}|={3}|#{3}|\*{3})\s{0,4}(?:end|stop|finish) (?:of )?(?:the )?"
            r"(?:user |system |original |previous |current )?(?:prompt|instructions?|input|query|context"
            r"|conversation|message|document|data|email)"
        ),
    ),
)

# What comes from outside, as a tool's result, speaks for nobody: there, whatever begins somebody's turn, a
# call or another result is as bad as the operator's voice. A user says no more by these than anyway.
_IN_RESULTS: Final = (
    (
        "template-role",
        0.85,
        ("<", "["),
        re.compile(
            rf"<\|(?:im_start|start_header_id|start|header_start)\|?>\s{{0,4}}{_ANYBODY}"
            rf"|<\|{_ANYBODY}\|>|<start_of_turn>\s{{0,4}}{_ANYBODY}"
            r"|<\|(?:python_tag|observation|(?:start_of_turn|user)_token|tool▁[a-z▁]{1,24})\|>"
            r"|\[/?(?:tool_(?:calls?|results?)|available_tools)\]|</?(?:\|?tool_(?:response|call)\|?|function_(?:calls?|results?))>"
        ),
    ),
)

MARKS: Final = frozenset(name for name, *_ in _MARKS)
"""What marks are called."""

_MOST: Final = 32
"""Marks of one text that are reported."""


def marks(formed: str, origin: Origin) -> Iterator[Mark]:
    """Yield the marks in *formed*, a text in normal form.

    Instructions may well have parts with names: only what ends them counts there.
    """
    count = 0
    for name, weight, pieces, pattern in (*_IN_RESULTS, *_MARKS) if origin is Origin.TOOL else _MARKS:
        if not any(piece in formed for piece in pieces):
            continue
        if origin is Origin.INSTRUCTIONS and name not in ("template-role", "template-token"):
            continue
        for match in pattern.finditer(formed):
            yield Mark(name, match.start(), weight)
            count += 1
            if count >= _MOST:
                return
