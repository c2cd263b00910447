from __future__ import annotations

import pytest

from unbroken.server.models import Models

MODELS = Models("big", ["small", "big", "tiny"])


@pytest.mark.parametrize(
    ("wanted", "model"),
    [
        (None, "big"),
        ("default", "big"),
        ("big", "big"),
        ("small", "small"),
        ("other", None),
        ("", None),
        ("Big", None),
    ],
)
def test_a_name_stands_for_a_model_that_is_offered_or_for_none(wanted: str | None, model: str | None) -> None:
    assert MODELS.resolve(wanted) == model


def test_the_names_are_told_once_each_the_configured_one_first() -> None:
    assert MODELS.names == ("big", "default", "small", "tiny")
