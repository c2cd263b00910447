"""What somebody may use, and has used, as GraphQL has it."""

from __future__ import annotations

from typing import Any

import strawberry
from strawberry.scalars import JSON

__all__ = ["Limit", "Measure", "Model", "Usage"]


@strawberry.type(description="What was used of something, and how much of it may be.")
class Measure:
    """What was used of something."""

    name: str
    used: float
    limit: float | None


@strawberry.type(description="How one of the limits stands that hold for a request.")
class Limit:
    """How a limit stands."""

    name: str
    limit: float
    remaining: float
    reset_seconds: float


@strawberry.type(description="What the asker has used.")
class Usage:
    """What somebody has used."""

    plan: str
    measures: list[Measure]
    limits: list[Limit]
    turns: JSON = strawberry.field(description="The latest ones, as `GET /v1/usage` tells them.")

    @classmethod
    def of(cls, report: dict[str, Any]) -> Usage:
        """Return what ``GET /v1/usage`` says, as it is shown here."""
        return cls(
            plan=report["plan"],
            measures=[
                Measure(name=name, used=row["used"], limit=row.get("limit"))
                for name, row in report["usage"].items()
            ],
            limits=[
                Limit(
                    name=each["name"],
                    limit=each["limit"],
                    remaining=each["remaining"],
                    reset_seconds=each["reset_seconds"],
                )
                for each in report["rate_limits"]
            ],
            turns=JSON(report["data"]),
        )


@strawberry.type(description="A model that a request may name.")
class Model:
    """A model that a request may name."""

    id: strawberry.ID
