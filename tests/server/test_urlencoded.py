"""URL-encoded forms, and raw texts that curl declares as such forms."""

import tempfile
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import InvalidRequestError
from app.server import urlencoded
from app.server.urlencoded import is_form, split_form

FIELDS = {"text", "name", "steps"}


def split(data: bytes) -> tuple[dict[str, str], bytes | None]:
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.flush()
        fields, content = split_form(file, "text")
    if content is None:
        return fields, None
    with content:
        return fields, content.read()


NAMES = st.text("abc =&%+é", min_size=1)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)


@given(text=TEXTS, name=NAMES)
def test_form_is_decoded_to_the_encoded_fields(text, name):
    data = urlencode({"name": name, "text": text, "steps": 5}).encode()
    assert is_form(data, FIELDS)
    assert split(data) == ({"name": name, "steps": "5"}, text.encode())


def test_escape_split_across_chunks_is_decoded(monkeypatch):
    data = urlencode({"text": "naïve café + 100 %"}).encode()
    for size in range(3, 12):
        monkeypatch.setattr(urlencoded, "PIECE", size)
        assert split(data) == ({}, "naïve café + 100 %".encode())


@pytest.mark.parametrize(
    ("head", "form"),
    [
        (b"text=Sat+ran+on&name=x", True),
        (b"text=the cat sat\non a mat&name=x", True),  # curl -d does not encode
        (b"foo=bar", True),
        (b"It was the best of times = the worst", False),
        (b"x = 1\ny = 2\n", False),
        (b"the cat sat", False),
        (b"caf\xe9=1", False),
        (b"", False),
    ],
)
def test_form_is_distinguished_from_a_raw_text(head, form):
    assert is_form(head, FIELDS) is form


def test_form_over_its_limits_is_refused():
    with pytest.raises(InvalidRequestError, match="at most 100 fields"):
        split(b"a=1&" * 200)
    with pytest.raises(InvalidRequestError, match="name must be at most 200,000 bytes"):
        split(b"name=" + b"a" * 300_000)
    assert split(b"&&a&=b&text=") == ({"": "b", "a": ""}, b"")
