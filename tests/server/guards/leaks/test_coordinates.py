"""Places: how they are written, what only looks so, and that they are found whole however they come."""

from __future__ import annotations

from itertools import accumulate, cycle, islice
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.server.guards.leaks.samples import ALL, cut, filtered, leak_filter
from unbroken.server.guards.leaks.entities import Actions
from unbroken.server.guards.leaks.stream import MOST_HELD_NUMBERS

WITHOUT: Final[Actions] = {**ALL, "coordinates": "ignore"}

FORMS: Final = (
    "48.85837, 2.29448",
    "48.85837,2.29448",
    "48.85837; 2.29448",
    "-33.85678, 151.21530",
    "40.68925, -74.04450",
    "-22.951916, -43.210487",
    "48.85837°, 2.29448°",
    "48.85837° N, 2.29448° E",
    "48.85837°N 2.29448°E",
    "33.85678 S, 151.21530 E",
    "N 48.85837, E 2.29448",
    "N48.85837° E2.29448°",
    "48,85837° N, 2,29448° O",
    "48°51'30\"N 2°17'40\"E",
    "48°51'30.2\"N, 2°17'40.1\"E",
    "48° 51′ 30″ N, 2° 17′ 40″ E",
    "48°51’30”N 2°17’40”E",
    "N 48° 51' 30.2\", W 123° 17' 40.1\"",
    "N 48° 51.503' E 002° 17.669'",
    "48°51.503'N 2°17.669'E",
    "48°51'30\\\"N 2°17'40\\\"E",
)


@pytest.mark.parametrize("place", FORMS)
def test_a_place_is_found_whole_however_it_is_written_and_cut(place: str) -> None:
    text, expected = f"It is at {place} (or so), far off.", "It is at [coordinates] (or so), far off."
    assert filtered([text]) == expected
    assert filtered(list(text)) == expected
    for cut_at in range(len(text)):
        assert filtered([text[:cut_at], text[cut_at:]]) == expected


@pytest.mark.parametrize("place", FORMS)
def test_no_number_of_a_place_leaves_before_it_was_found(place: str) -> None:
    stream = leak_filter()
    for char in f"It is at {place}":
        left = stream.feed(char)
        assert not any(map(str.isdigit, left))
    assert stream.flush() == "[coordinates]"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"lat": 48.85837, "lon": -2.29448}', '{"lat": [coordinates], "lon": [coordinates]}'),
        ('{"lat":48.85837,"lng":2.29448}', '{"lat":[coordinates],"lng":[coordinates]}'),
        ("latitude = 48.858\nlongitude = 2.294\n", "latitude = [coordinates]\nlongitude = [coordinates]\n"),
        ("Latitud: 40.41678 y longitud: -3.70379", "Latitud: [coordinates] y longitud: [coordinates]"),
        ("?mlat=48.85837&mlon=2.29448#map", "?mlat=[coordinates]&mlon=[coordinates]#map"),
        ("**Lat:** 48.85837, **Long:** 2.29448", "**Lat:** [coordinates], **Long:** [coordinates]"),
        ('"coordinates": [151.21530, -33.85678]', '"coordinates": [[coordinates]]'),
        ("POINT(151.21530 -33.85678)", "POINT([coordinates])"),
        ("lat,lon,depth\n48.85837,2.29448,12.125\n", "lat,lon,depth\n[coordinates],12.125\n"),
    ],
)
def test_what_its_name_stands_before_is_found_where_it_would_not_be_else(text: str, expected: str) -> None:
    assert filtered([text]) == filtered(list(text)) == expected


@pytest.mark.parametrize(
    "text",
    [
        "the scores are 0.9123, 0.8871",
        "a vector [12.0330, 9.9813, 6.2601, 3.0691] of four",
        "151.21530, -33.85678 is no latitude first",
        "212.34567, 15.12345 and 95.12345, 212.34567",
        "12 N, 13 E and 48.1 N, 2.2 E",
        "5 -3 N -W 4",
        "the rope is long 12.345 m",
        "5'11\" N 6'2\" E",
        "12 Norse, 13 Easter eggs",
        "versions 3.11.4, 3.12.1",
    ],
)
def test_other_numbers_are_no_places(text: str) -> None:
    assert filtered([text]) == filtered(list(text)) == text


PARTS: Final = (
    *(
        "N",
        "E ",
        "W, ",
        "S",
        "48",
        "48°",
        "51'",
        '30"',
        "-",
        "-2",
        "2.29448",
        ",",
        ", ",
        " ",
        "\n",
        "a",
        "Nord",
    ),
    *("the ", "lat", "lon: ", "POINT(", "-----BEGIN ", "GB82 ", "/", "+", "(", "é", "\u200b", "’", "@", "1"),
)
TEXTS: Final = st.lists(st.sampled_from(PARTS), max_size=40).map("".join)


@given(
    text=TEXTS,
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=6),
    actions=st.sampled_from([ALL, WITHOUT]),
)
@settings(max_examples=4 * settings().max_examples)
def test_however_what_may_be_a_place_is_cut_what_leaves_is_the_same(
    text: str, sizes: list[int], actions: Actions
) -> None:
    places = list(accumulate(islice(cycle(sizes), len(text))))

    assert filtered(cut(text, places), actions) == filtered([text], actions)


@given(text=TEXTS)
def test_what_is_flagged_leaves_as_it_came(text: str) -> None:
    assert filtered(list(text), dict.fromkeys(ALL, "flag")) == text


@pytest.mark.parametrize("part", ["N ", "1 N ", "1° ", "-1 ", "N1° ", "1 -", "N, 1.123, ", "48°51'30\" N "])
def test_what_may_be_a_place_is_bounded_in_what_is_held_and_in_the_work(part: str) -> None:
    counts = []
    for size in (5_000, 10_000):
        text, stream = part * (size // len(part)), leak_filter()
        for place in range(0, len(text), 7):
            stream.feed(text[place : place + 7])
            assert stream.held <= MOST_HELD_NUMBERS + 8
        stream.flush()
        counts.append(stream.steps / len(text))

    assert counts[1] <= counts[0] * 1.05
    assert counts[1] <= 12


def test_a_side_of_the_compass_waits_for_a_number_only_where_places_are_looked_for() -> None:
    stream = leak_filter()
    assert stream.feed("turn N ") == "turn "
    assert stream.feed("then ") == "N then "
    assert leak_filter(WITHOUT).feed("turn N ") == "turn N "
