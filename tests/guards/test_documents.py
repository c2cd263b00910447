from __future__ import annotations

import pytest

from tests.guards.__main__ import of_documents
from tests.guards.corpus import Case, Part
from tests.guards.documents import (
    Text,
    buried,
    excerpt,
    in_rows,
    joined,
    read_developers,
    read_long,
    read_texts,
)
from tests.guards.learned import chunks, learned, licences, long_texts, short_ones
from unbroken.server.guards.injection.base import Origin

CODE = Text("python", "a.py", "x = 1\n" * 500, Part.KEPT)
README = Text("readmes", "a-1.dist-info/METADATA", "It tidies tables.\n" * 200, Part.KEPT, "MIT")
ATTACK = Case("mine", Origin.USER, ("Obey me.\nNow.",), True)


def test_developers_ask_many_things_and_half_of_them_is_kept() -> None:
    kept, other = list(read_developers(Part.KEPT)), list(read_developers(Part.TRAIN))

    assert len(kept) + len(other) >= 60
    assert abs(len(kept) - len(other)) <= 1
    assert not {case.turns for case in kept} & {case.turns for case in other}
    assert all("%%%" not in case.turns[0] and len(case.turns[0]) > 100 for case in kept + other)
    assert other[0].turns[0].startswith("Which of these imports")


def test_a_module_or_package_is_for_one_thing_only() -> None:
    texts = list(read_texts())
    parts = [(text.kind, text.name.partition("/")[0].removesuffix(".py"), text.part) for text in texts]

    library = [each for each in parts if each[0] == "python"]
    assert len(library) > 100
    assert len({each[:2] for each in library}) == len({*library})
    assert {text.kind for text in texts} >= {"python", "readmes", "javascript", "c", "other code", "licences"}
    assert {text.part for text in texts if text.kind in ("c", "javascript")} == {Part.SET, Part.KEPT}
    assert len({text.text for text in texts}) == len(texts)


def test_only_pythons_library_and_readmes_that_may_be_copied_are_learnt_from() -> None:
    texts = [
        Text("python", "a.py", "", Part.TRAIN),
        Text("readmes", "b-1.dist-info/METADATA", "", Part.TRAIN, "MIT"),
        Text("readmes", "c-1.dist-info/METADATA", "", Part.TRAIN, "MPL-2.0 AND MIT"),
        Text("readmes", "docs/d.md", "", Part.TRAIN),
        README,
        CODE,
    ]

    assert learned(texts) == texts[:2]
    assert licences(learned(texts)) == {"1 files of Python's library": "PSF-2.0", "READMEs of b-1": "MIT"}


def test_texts_are_learnt_from_in_pieces_and_short_ones_together() -> None:
    short = [Case("mine", Origin.USER, (f"text {number}",), False, Part.TRAIN) for number in range(9)]

    assert [len(each) for each in chunks([CODE, README])] == [3000, 3000, 600]
    assert short_ones([*short, ATTACK, Case("mine", Origin.USER, ("kept",), False)]) == {
        "mine": [f"text {number}" for number in range(9)]
    }
    (text,) = long_texts(short_ones(short), 1)
    assert len(text.splitlines()) == 25


def test_an_excerpt_begins_with_a_line_and_is_the_same_each_time() -> None:
    text = "\n".join(f"line {number}" for number in range(999))

    found = excerpt(text, 100, "a")

    assert len(found) == 100
    assert found.startswith("line ")
    assert found == excerpt(text, 100, "a") != excerpt(text, 100, "b")


def test_each_text_is_said_and_returned_at_each_length_that_it_has() -> None:
    cases = list(in_rows([CODE, README], Part.KEPT, 5))

    assert {case.source for case in cases if case.origin is Origin.TOOL} == {
        "python, 1000 characters, returned",
        "python, 3000 characters, returned",
        "readmes, 1000 characters, returned",
        "readmes, 3000 characters, returned",
    }
    assert len(cases) == 8
    assert not any(case.is_attack for case in cases)
    assert list(in_rows([CODE], Part.SET, 5)) == []


def test_long_texts_are_short_ones_together() -> None:
    cases = [Case("mine", Origin.USER, (f"What is the number {n}?",), False) for n in range(12)]

    (text, *_) = joined([*cases, ATTACK], (10, 30))

    assert text.source == "mine, 10 together"
    assert len({*text.turns[0].splitlines()} & {case.turns[0] for case in cases}) == 10
    assert {case.source for case in joined(cases, (10, 30))} == {"mine, 10 together"}
    assert all(len(case.turns[0]) > 100 and not case.is_attack for case in read_long(Part.KEPT))


def test_an_attack_stands_in_a_comment_and_between_lines_of_a_document() -> None:
    found = {case.source: case for case in buried([ATTACK], [CODE, README], 9)}

    said = found["mine, in code, said"].turns[0]
    assert "\n# Obey me.\n# Now." in f"\n{said}"
    assert said.count("x = 1") > 300
    assert "\nObey me.\nNow.\n" in f"\n{found['mine, in documents, said'].turns[0]}"
    assert {case.origin for case in found.values()} == {Origin.USER, Origin.TOOL}
    assert all(case.is_attack for case in found.values())


@pytest.mark.long
def test_what_is_measured_was_not_learnt_from() -> None:
    texts = learned(read_texts())
    chars = "".join(each.text for each in texts)

    measured = [case for case in of_documents([ATTACK], 20) if " characters, " in case.source]

    assert len(measured) > 100
    assert not any(case.turns[0] in chars for case in measured)
