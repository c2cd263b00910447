from __future__ import annotations

import pytest

from unbroken.server.transports.http_way import HttpRefusal
from unbroken.server.transports.query import check_query


def test_what_is_no_field_of_the_path_is_refused() -> None:
    with pytest.raises(HttpRefusal) as caught:
        check_query(["after", "limitt"], ("after", "limit"))

    assert caught.value.code == "invalid_query"


@pytest.mark.parametrize("fields", [(), ("after",)])
def test_what_is_said_to_balancers_passes_everywhere(fields: tuple[str, ...]) -> None:
    check_query(["affinity", "try", *fields], fields)
