"""An upload's body, in whatever pieces, and whatever it holds."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from unbroken.server.protocols.multipart import FormReader, InvalidForm

KIND = 'multipart/form-data; boundary="frontier"'


def part(headers: str, content: bytes) -> bytes:
    return b"--frontier\r\n" + headers.encode() + b"\r\n\r\n" + content + b"\r\n"


def field(name: str, value: bytes) -> bytes:
    return part(f'Content-Disposition: form-data; name="{name}"', value)


def file(content: bytes, name: str = "a.txt") -> bytes:
    head = f'Content-Disposition: form-data; name="file"; filename="{name}"\r\nContent-Type: text/html'
    return part(head, content)


END = b"--frontier--\r\n"


def read(pieces: list[bytes], kind: str = KIND) -> tuple[str, bytes, dict[str, str]]:
    form = FormReader(kind)
    content = b"".join(part for piece in pieces for part in form.feed(piece))
    return form.finish(), content, form.fields


@pytest.mark.parametrize("is_file_first", [True, False])
def test_a_form_is_its_fields_and_its_file(is_file_first: bool) -> None:
    purpose = field("purpose", b"vision") + field("expires_after[seconds]", b"3600")
    body = (file(b"hello") + purpose if is_file_first else purpose + file(b"hello")) + END

    assert read([body]) == ("a.txt", b"hello", {"purpose": "vision", "expires_after[seconds]": "3600"})


def test_names_are_read_as_utf_8() -> None:
    assert read([file(b"", "Größe €.txt") + END])[0] == "Größe €.txt"


TRICKY = [
    b"\r\n--frontier",
    b"\r\n--frontie",
    b"--frontier--\r\n",
    b"\r",
    b"\n",
    b"\r\n",
    b"\r\n--",
    b"--frontier",
    b"x",
    b"\x00\xff",
]


@given(
    st.lists(st.sampled_from(TRICKY[1:]) | st.binary(max_size=20), max_size=12).map(b"".join),
    st.lists(st.integers(0, 400), max_size=30),
)
@example(b"\r\n--frontie\r\n--frontie", [*range(400)])
def test_in_whatever_pieces_it_comes_the_file_is_the_same(content: bytes, cuts: list[int]) -> None:
    if b"\r\n--frontier" in b"\r\n" + content:
        content = content.replace(b"frontier", b"frontiex")
    body = field("purpose", b"vision") + file(content) + field("more", b"yes") + END
    places = sorted({0, len(body), *(cut for cut in cuts if cut < len(body))})
    pieces = [body[start:end] for start, end in pairwise(places)]

    assert read(pieces) == ("a.txt", content, {"purpose": "vision", "more": "yes"})


@given(st.lists(st.sampled_from([*TRICKY, file(b"hi"), field("a", b"b"), END]) | st.binary(max_size=30)))
def test_whatever_comes_it_is_a_form_or_told_of(pieces: list[bytes]) -> None:
    try:
        read(pieces)
    except InvalidForm as exc:
        assert str(exc)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "ends before"),
        (file(b"hello"), "ends before"),
        (file(b"hello")[:-5], "ends before"),
        (field("purpose", b"vision") + END, "no `file`"),
        (part('Content-Disposition: form-data; name="file"', b"x") + END, "no `file`"),
        (file(b"a") + file(b"b") + END, "one file at a time"),
        (part('Content-Disposition: form-data; name="f"; filename="x"', b"x") + END, "in the field `file`"),
        (field("a", b"1") + field("a", b"2") + file(b"") + END, "twice"),
        (field("a", b"x" * 4097) + file(b"") + END, "more than 4096 bytes"),
        (b"".join(field(f"f{i}", b"") for i in range(16)) + file(b"") + END, "more than 16 fields"),
        (part("Content-Type: text/plain", b"x") + END, "needs a name"),
        (part('Content-Disposition: attachment; name="file"; filename="x"', b"") + END, "needs a name"),
        (part('Content-Disposition: form-data; filename="x"', b"") + END, "needs a name"),
        (part("X: " + "y" * 5000, b"") + END, "isn't valid"),
        (part("\r\n".join(f"X-{i}: y" for i in range(9)), b"") + END, "isn't valid"),
        (part("Bad Header: x", b"") + END, "isn't valid"),
        (b"--other\r\n\r\n", "isn't valid"),
        (b"no boundary at all, for ever" * 100, "isn't valid"),
    ],
)
def test_what_is_no_upload_is_refused_and_told_why(body: bytes, reason: str) -> None:
    with pytest.raises(InvalidForm, match=reason):
        read([body])
    with pytest.raises(InvalidForm, match=reason):
        read([body[index : index + 1] for index in range(len(body))])


@pytest.mark.parametrize(
    "kind",
    [
        "",
        "application/json",
        "multipart/form-data",
        "multipart/mixed; boundary=x",
        "multipart/form-data; boundary=",
        f"multipart/form-data; boundary={'x' * 71}",
    ],
)
def test_a_body_of_another_type_is_refused(kind: str) -> None:
    with pytest.raises(InvalidForm, match="with a boundary"):
        FormReader(kind)


def test_what_people_send_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(InvalidForm):
        read([part("Sec\x00ret: x", b"") + END])

    assert caplog.records == []
