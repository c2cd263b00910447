"""The settings of what may leave. Part of :class:`Settings`."""

from __future__ import annotations

from typing import Annotated, Final, Literal, TypeAlias, get_args

from pydantic import AfterValidator, Field

from unbroken.server.plan_tables import PLAN_NAME, ModesElseShadow, is_plan_name
from unbroken.server.setting_values import Names
from unbroken.server.settings_part import SettingsPart

__all__ = [
    "ACTIONS",
    "ENTITIES",
    "LEAST_CANARY",
    "Action",
    "Entity",
    "LeakSettings",
]

Entity: TypeAlias = Literal[
    "canary",
    "secret",
    "national_id",
    "card",
    "iban",
    "email",
    "ip",
    "coordinates",
    "phone",
    "address",
    "name",
    "instructions",
]

ENTITIES: Final[tuple[Entity, ...]] = get_args(Entity)
"""In order of precedence: of two that are equally long, the first one counts.

An id that could be a card's number as well has another check digit besides, and a date or a word before it.
"""

Action: TypeAlias = Literal["block", "redact", "flag", "ignore"]
"""End the response; put a placeholder in its place; let it pass and count it; don't look for it."""

ACTIONS: Final[tuple[Action, ...]] = get_args(Action)

LEAST_CANARY: Final = 8
"""Letters and digits: a shorter one would be met by accident."""


def _check_leak_actions(values: tuple[str, ...]) -> tuple[str, ...]:
    """Refuse what isn't ``entity=action`` or ``plan.entity=action``, and what is said twice."""
    said: set[tuple[str, str]] = set()
    for number, value in enumerate(values, 1):
        what, _, action = value.partition("=")
        plan, _, entity = what.rpartition(".")
        if entity.strip() not in ENTITIES or action.strip() not in ACTIONS:
            raise ValueError(
                f"entry {number} should be entity=action or plan.entity=action, such as email=redact; "
                f"entities: {', '.join(ENTITIES)}; actions: {', '.join(ACTIONS)}"
            )
        if plan and not is_plan_name(plan.strip()):
            raise ValueError(f"entry {number} should name a plan ahead of the entity: {PLAN_NAME}")
        said.add((plan.strip() or "default", entity.strip()))
    if len(said) < len(values):
        raise ValueError("should name each entity once for each plan; one without a plan is that of default")
    return values


def _check_canaries(values: tuple[str, ...]) -> tuple[str, ...]:
    """Refuse what would be met by accident."""
    for number, value in enumerate(values, 1):
        bare = [char for char in value if char.isascii() and char.isalnum()]
        if len(bare) < LEAST_CANARY or not any(map(str.isdigit, bare)):
            text = f"at least {LEAST_CANARY} letters and digits, one digit among them"
            raise ValueError(f"entry {number} should have {text}")
    return values


class LeakSettings(SettingsPart):
    """What is looked for in answers, and what is done about it."""

    leaks: ModesElseShadow = Field(
        default=("default=shadow",),
        description="The leak filter, also by plan: on, off or shadow: it counts what it would do, "
        "and does nothing.",
    )
    leak_actions: Annotated[Names, AfterValidator(_check_leak_actions)] = Field(
        default=(),
        description="What is done about what, where it isn't the default, as entity=action or "
        "plan.entity=action; comma-separated.",
    )
    leak_canaries: Annotated[Names, AfterValidator(_check_canaries)] = Field(
        default=(),
        repr=False,
        description="Words in your instructions that no answer has to hold; comma-separated.",
    )
    leak_tool_outputs: bool = Field(
        default=False, description="Also filter what the server's own tools return, for model and client."
    )
    leak_names_hold: Annotated[float, Field(ge=0.1, le=60, allow_inf_nan=False)] = Field(
        default=2.0,
        description="Seconds that the beginning of a sentence waits for its end, where names are kept back.",
    )
    leak_names_timeout: Annotated[float, Field(ge=0.01, le=60, allow_inf_nan=False)] = Field(
        default=2.0, description="Seconds within which a sentence has to be looked through for names."
    )
    leak_names_failure: Literal["closed", "open"] = Field(
        default="closed",
        description="What becomes of a sentence that wasn't: the answer fails, or it leaves.",
    )
    leak_hold: Annotated[float, Field(ge=0.01, le=60, allow_inf_nan=False)] = Field(
        default=0.25, description="Seconds that an ordinary word waits for what follows it."
    )
