"""Places drawn at random, as maps, receivers and people write them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from random import Random
from types import MappingProxyType
from typing import Final

__all__ = ["COORDINATES"]


def _latitude(random: Random) -> float:
    return random.uniform(-60, 72)


def _longitude(random: Random) -> float:
    return random.uniform(-180, 180)


def _places(random: Random) -> int:
    return random.randint(4, 7)


def _lat(random: Random) -> str:
    return f"{_latitude(random):.{_places(random)}f}"


def _lon(random: Random) -> str:
    return f"{_longitude(random):.{_places(random)}f}"


def _pair(sign: str) -> Callable[[Random], str]:
    def drawn(random: Random) -> str:
        places = _places(random)
        return f"{_latitude(random):.{places}f}{sign}{_longitude(random):.{places}f}"

    return drawn


def _turned(sign: str) -> Callable[[Random], str]:
    """Return what draws longitude before latitude, as GeoJSON and WKT have it."""

    def drawn(random: Random) -> str:
        places = _places(random)
        return f"{_longitude(random):.{places}f}{sign}{_latitude(random):.{places}f}"

    return drawn


def _sides(random: Random, east: str = "E", west: str = "W") -> tuple[float, str, float, str]:
    latitude, longitude = _latitude(random), _longitude(random)
    return abs(latitude), "S" if latitude < 0 else "N", abs(longitude), west if longitude < 0 else east


def _compass(random: Random) -> str:
    latitude, north, longitude, east = _sides(random)
    places = random.randint(4, 6)
    a, b = f"{latitude:.{places}f}", f"{longitude:.{places}f}"
    return random.choice(
        [
            f"{a}° {north}, {b}° {east}",
            f"{a}°{north}, {b}°{east}",
            f"{a}°{north} {b}°{east}",
            f"{a} {north}, {b} {east}",
            f"{north} {a}, {east} {b}",
            f"{north}{a}° {east}{b}°",
        ]
    )


def _compass_comma(random: Random, east: str = "O", west: str = "W") -> str:
    latitude, north, longitude, east = _sides(random, east, west)
    return f"{latitude:.5f}° {north}, {longitude:.5f}° {east}".replace(".", ",")


def _parts(value: float) -> tuple[int, int, float]:
    degrees = int(value)
    minutes = (value - degrees) * 60
    return degrees, int(minutes), min((minutes - int(minutes)) * 60, 59.9)


def _dms(random: Random) -> str:
    latitude, north, longitude, east = _sides(random)
    (a, b, c), (d, e, f) = _parts(latitude), _parts(longitude)
    return random.choice(
        [
            f"{a}°{b:02}'{int(c):02}\"{north} {d}°{e:02}'{int(f):02}\"{east}",
            f"{a}°{b:02}'{c:04.1f}\"{north}, {d}°{e:02}'{f:04.1f}\"{east}",
            f"{a}° {b}′ {int(c)}″ {north}, {d}° {e}′ {int(f)}″ {east}",
            f"{a}°{b:02}′{c:04.1f}″{north} {d}°{e:02}′{f:04.1f}″{east}",
            f"{north} {a}° {b:02}' {c:04.1f}\", {east} {d}° {e:02}' {f:04.1f}\"",
        ]
    )


def _minutes(random: Random) -> str:
    """Return degrees with decimal minutes, as receivers and nautical charts have them."""
    latitude, north, longitude, east = _sides(random)
    (a, b, c), (d, e, f) = _parts(latitude), _parts(longitude)
    one, other = f"{b + c / 60:06.3f}", f"{e + f / 60:06.3f}"
    return random.choice(
        [f"{north} {a:02}° {one}' {east} {d:03}° {other}'", f"{a}°{one}'{north} {d}°{other}'{east}"]
    )


COORDINATES: Final[Mapping[str, Callable[[Random], str]]] = MappingProxyType(
    {
        "compass": _compass,
        "compass_de": _compass_comma,
        "compass_fr": lambda random: _compass_comma(random, "E", "O"),
        "dms": _dms,
        "lat": _lat,
        "lon": _lon,
        "minutes": _minutes,
        "pair": _pair(", "),
        "tight_pair": _pair(","),
        "turned": _turned(", "),
        "wkt": _turned(" "),
    }
)
"""By name. *lat* and *lon* are one number each."""
