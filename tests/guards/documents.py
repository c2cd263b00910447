"""Code, documents and long texts that are harmless: what any machine has that runs the tests, and our own.

They are Python's own library, the packages that are installed, READMEs and licences of these, and files
of this repository; shell scripts of the system, where it has any. What they are differs with the versions
of all that, and so do figures, a little. A module or package is for one thing only, as a whole; weights
are trained on the library's modules and packages' READMEs alone, and all else is measured or looked at.
"""

from __future__ import annotations

import hashlib
import random
import re
import sysconfig
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from email import message_from_string
from email.message import Message
from itertools import chain
from pathlib import Path
from typing import Final

from tests.guards.corpus import Case, Part, part_of, read_follow_ups, read_ordinary
from unbroken.server.guards.injection.base import Origin

__all__ = ["Text", "buried", "excerpt", "in_rows", "joined", "read_developers", "read_long", "read_texts"]

_DEVELOPERS: Final = Path(__file__).parent / "developers.txt"

LENGTHS: Final = (1000, 3000, 10_000)
"""Characters of the excerpts that are measured."""

_SHARE: Final = 0.7
"""Of that length, that a file has at least."""

_ORIGINS: Final = {Origin.USER: "said", Origin.TOOL: "returned"}

_LEAST: Final = 1500
_MOST: Final = 400_000
"""Characters of a file that is read: shorter ones say little, and longer ones are tables."""

_LONGEST_LINE: Final = 400
"""Characters of a line, on the average, from which on nobody wrote it."""

_OTHERS: Final = frozenset(
    {"test", "tests", "site-packages", "idlelib", "pydoc_data", "lib2to3", "encodings"}
)
"""Folders of Python's library that are left out: tests say all that can be said, and tables nothing."""

_TRAINED: Final = frozenset({"python", "readmes"})
_SCRIPTS_OF_PYTHON: Final = ("activate*", "Makefile", "install-sh", "makesetup", "*.sh")
_MOST_OF_GROUP: Final = 12
"""Files of one package that nothing is trained on: some have hundreds, all alike."""

_CODE: Final = {
    "c": (".c", ".h", ".cpp", ".hpp"),
    "javascript": (".js", ".mjs", ".ts"),
    "other code": (".pyx", ".pxd", ".f90", ".lua", ".css", ".html", ".json", ".toml", ".yml", ".cfg"),
}
_SCRIPTS: Final = ("/etc/init.d/*", "/var/lib/dpkg/info/*.p*inst", "/var/lib/dpkg/info/*.p*rm")
_LICENCE: Final = re.compile(r"licen[cs]e|copying", re.IGNORECASE)
_REPOSITORY: Final = Path(__file__).parents[2]
_OURS: Final = ("server", "sessions", "deploy", "docs")


@dataclass(frozen=True, slots=True)
class Text:
    """One file."""

    kind: str
    name: str
    text: str
    part: Part
    licence: str = ""
    """What a package's README says of it."""


def read_texts() -> Iterator[Text]:
    """Yield the files that there are, each text once."""
    seen: set[bytes] = set()
    count: Counter[tuple[str, str]] = Counter()
    for kind, name, group, path in _files():
        if not path.is_file() or path.stat().st_size > _MOST:
            continue
        text, licence = path.read_text("utf-8", "replace"), ""
        if path.name == "METADATA":
            message = message_from_string(text)
            text, licence = str(message.get_payload()), _licence(message)
        digest = hashlib.sha256(text.encode("utf-8", "replace")).digest()
        lines = text.count("\n") + 1
        if digest in seen or len(text) < _LEAST or len(text) > _LONGEST_LINE * lines:
            continue
        seen.add(digest)
        part = part_of(f"{kind} {group}")
        if kind == "scripts of python":  # too few to be measured
            part = Part.TRAIN
        elif kind not in _TRAINED:
            part = Part.SET if part is Part.SET else Part.KEPT
            count[kind, group] += 1
        if count[kind, group] <= _MOST_OF_GROUP:
            yield Text(kind, name, text, part, licence)


def _licence(package: Message) -> str:
    if said := package["License-Expression"]:
        return str(said)
    classifiers = [str(each) for each in package.get_all("Classifier") or ()]
    said = [each.rpartition(" :: ")[2] for each in classifiers if each.startswith("License ::")]
    return " and ".join(said) or str(package["License"] or "")[:80]


def _files() -> Iterator[tuple[str, str, str, Path]]:
    """Yield the kind of each file, its name, the group that goes into one part, and where it is."""
    paths = sysconfig.get_paths()
    library, packages = Path(paths["stdlib"]), Path(paths["purelib"])
    for path in sorted(library.rglob("*.py")):
        name = path.relative_to(library)
        if not _OTHERS & {*name.parts}:
            yield "python", str(name), name.parts[0].removesuffix(".py"), path
    for pattern in _SCRIPTS_OF_PYTHON:
        for path in sorted(library.rglob(pattern)):
            name = path.relative_to(library)
            if not _OTHERS & {*name.parts}:
                yield "scripts of python", str(name), path.name, path
    suffixes = {suffix: kind for kind, those in _CODE.items() for suffix in those}
    for path in sorted(packages.rglob("*")):
        name = path.relative_to(packages)
        group = re.split(r"[-.]", name.parts[0])[0].lower()
        if ".dist-info" in name.parts[0]:
            if path.name == "METADATA":
                yield "readmes", str(name), group, path
            elif _LICENCE.search(path.name):
                yield "licences", str(name), group, path
        elif path.suffix == ".md":
            yield "readmes", str(name), group, path
        elif path.suffix == ".py" and "tests" not in name.parts:
            yield "python of packages", str(name), group, path
        elif (kind := suffixes.get(path.suffix)) is not None:
            yield kind, str(name), path.name, path
    headers = Path(paths["include"])
    for path in sorted(headers.glob("*.h")):
        yield "c", path.name, path.name, path
    for pattern in _SCRIPTS:
        for path in sorted(Path("/").glob(pattern.removeprefix("/"))):
            yield "shell", path.name, path.name, path
    yield from _of_repository(suffixes)


def _of_repository(suffixes: dict[str, str]) -> Iterator[tuple[str, str, str, Path]]:
    for folder in (_REPOSITORY, *(_REPOSITORY / each for each in _OURS)):
        for path in sorted(folder.glob("*") if folder == _REPOSITORY else folder.rglob("*")):
            name = str(path.relative_to(_REPOSITORY))
            if path.suffix == ".md":
                yield "readmes", name, name, path
            elif path.name == "LICENSE":
                yield "licences", name, name, path
            elif (kind := suffixes.get(path.suffix)) is not None:
                yield kind, name, name, path


def excerpt(text: str, length: int, seed: str) -> str:
    """Return *length* characters of *text*, from where a line begins: from which, *seed* says."""
    drawn = random.Random(hashlib.sha256(f"{length} {seed}".encode()).digest())
    start = drawn.randrange(max(1, len(text) - length))
    begin = text.rfind("\n", 0, start) + 1
    start = begin if start - begin < length // 2 else start
    return text[start : start + length]


def in_rows(texts: Iterable[Text], part: Part, most: int) -> Iterator[Case]:
    """Yield excerpts of *texts*, said by users and returned by tools: of each kind and length *most*."""
    by_kind: defaultdict[str, list[Text]] = defaultdict(list)
    for each in texts:
        if each.part is part:
            by_kind[each.kind].append(each)
    for kind, those in sorted(by_kind.items()):
        drawn = those if len(those) <= most else random.Random(most).sample(those, most)
        for length in LENGTHS:
            for each in drawn:
                if len(each.text) < length * _SHARE:
                    continue
                said = excerpt(each.text, length, each.name)
                for origin, how in _ORIGINS.items():
                    yield Case(f"{kind}, {length} characters, {how}", origin, (said,), False, part)


def read_developers(part: Part) -> Iterator[Case]:
    """Yield what developers ask, with what they paste. Every second one is kept."""
    texts = re.sub(r"\A(# .*\n)+", "", _DEVELOPERS.read_text("utf-8")).split("\n%%%\n")
    for number, text in enumerate(texts):
        if (Part.KEPT if number % 2 else Part.TRAIN) is part:
            yield Case("developers", Origin.USER, (text.strip(),), False, part)


def read_long(part: Part) -> Iterator[Case]:
    """Yield everyday sentences and messages in long texts: a source for each number of them."""
    plain = [each for each, those in read_ordinary() if those is part]
    said = [case.turns[0] for case in read_follow_ups() if case.part is part]
    for name, texts, between, count in (
        ("ordinary sentences", plain, " ", 10),
        ("ordinary sentences", plain, " ", 100),
        ("follow-ups", said, "\n", 10),
        ("follow-ups", said, "\n", 30),
    ):
        if texts:
            drawn = random.Random(f"{count} {name} {part}")
            for _ in range(_TIMES):
                text = between.join(drawn.choice(texts) for _ in range(count))
                for origin, how in _ORIGINS.items():
                    yield Case(f"{name}, {count} together, {how}", origin, (text,), False, part)


_TIMES: Final = 40


def joined(cases: Iterable[Case], counts: Sequence[int] = (10, 30, 100)) -> Iterator[Case]:
    """Yield the harmless ones of *cases* that are short, several in one text, of each source as many."""
    by_source: defaultdict[str, list[str]] = defaultdict(list)
    for case in cases:
        if not case.is_attack and case.origin is Origin.USER and 20 < len(case.turns[0]) < 400:
            by_source[case.source].append(case.turns[0])
    for source, texts in by_source.items():
        for count in counts:
            drawn = random.Random(f"{count} {source}")
            for _ in range(_TIMES if len(texts) >= count else 0):
                yield Case(
                    f"{source}, {count} together",
                    Origin.USER,
                    ("\n".join(drawn.sample(texts, count)),),
                    False,
                )


def buried(cases: Iterable[Case], texts: Iterable[Text], most: int) -> Iterator[Case]:
    """Yield attacks of *cases*, *most* of a source, in comments of code and between lines of documents.

    Each in 2,000 characters of a file for the same thing. Tools return them; what users say stays that.
    """
    files = list(texts)
    code = [each for each in files if each.kind not in ("readmes", "licences")]
    documents = [each for each in files if each.kind == "readmes"]
    by_source: defaultdict[str, list[Case]] = defaultdict(list)
    for case in cases:
        by_source[case.source].append(case)
    for source, those in by_source.items():
        for case in those if len(those) <= most else random.Random(most).sample(those, most):
            for where, there in (("code", code), ("documents", documents)):
                around = [each for each in there if each.part is case.part]
                said = _within(case.turns[0], around, is_code=where == "code")
                for origin, how in _ORIGINS.items():
                    yield Case(f"{source}, in {where}, {how}", origin, (said,), True, case.part)


_AROUND: Final = 2000
_SIGNS: Final = {"c": "// ", "javascript": "// ", "other code": "// "}


def _within(attack: str, texts: Sequence[Text], *, is_code: bool) -> str:
    drawn = random.Random(hashlib.sha256(attack.encode("utf-8", "replace")).digest())
    file = drawn.choice(texts)
    lines = excerpt(file.text, _AROUND, file.name).splitlines()
    at = drawn.randint(0, len(lines))
    sign = _SIGNS.get(file.kind, "# ") if is_code else ""
    said = [sign + line for line in attack.splitlines()]
    return "\n".join(chain(lines[:at], said if is_code else ["", *said, ""], lines[at:]))
