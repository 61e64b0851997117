import pytest
from hypothesis import given
from hypothesis import strategies as st

import model.text
from model.errors import TextError
from model.text import UTF8_MARK, decode_text, read_text

# what a plain text may hold, but for a mark at its start, and carriage returns, which have tests of their own
NOT_PLAIN = [*map(chr, range(32)), "\x7f", "\ufeff"]
PLAIN = st.characters(exclude_categories=["Cs"], exclude_characters=NOT_PLAIN)
TEXTS = st.text(st.one_of(PLAIN, st.sampled_from("\n\t")), min_size=1)
LINES = st.lists(st.tuples(st.text(PLAIN, min_size=1), st.sampled_from(["\n", "\r\n", "\r"])), min_size=1)


@given(TEXTS)
def test_utf8_is_read_as_it_is_with_or_without_a_mark(text):
    assert decode_text(text.encode()) == text
    assert decode_text(UTF8_MARK + text.encode()) == text


@given(LINES)
def test_every_kind_of_line_end_becomes_a_line_feed(lines):
    data = "".join(line + end for line, end in lines).encode()
    assert decode_text(data) == "".join(line + "\n" for line, _ in lines)


def test_empty_lines_stay():
    assert decode_text(b"a\r\nb\rc\n\r\nd\r\r\n") == "a\nb\nc\n\nd\n\n"


@given(text=TEXTS, end=TEXTS, byte=st.sampled_from([0xC0, 0xE9, 0xF5, 0xFF]), marked=st.booleans())
def test_another_encoding_is_refused_at_its_first_foreign_byte(text, end, byte, marked):
    begin = UTF8_MARK * marked + text.encode()
    with pytest.raises(TextError, match=f"not UTF-8 .* byte 0x{byte:02x} .* iconv -f latin1") as caught:
        decode_text(begin + bytes([byte]) + b" " + end.encode())
    assert caught.value.offset == len(begin)


@pytest.mark.parametrize(
    ("data", "offset"), [(b"caf\xe9 noir", 3), (b"cut short \xe2\x82", 10), (b"\xed\xa0\x80", 0)]
)
def test_latin1_a_cut_character_and_a_surrogate_are_refused(data, offset):
    with pytest.raises(TextError, match=f"offset {offset}") as caught:
        decode_text(data)
    assert caught.value.offset == offset


@given(text=TEXTS, code=st.sampled_from([*range(9), *range(14, 32), 127]))
def test_a_binary_is_refused_at_its_first_control_character(text, code):
    data = text.encode()
    with pytest.raises(TextError, match=f"binary.* byte 0x{code:02x} ") as caught:
        decode_text(data + bytes([code]) + data)
    assert caught.value.offset == len(data)


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
def test_a_mark_of_another_encoding_names_it(encoding):
    with pytest.raises(TextError, match=f"iconv -f {encoding[:6].upper()} ") as caught:
        decode_text("\ufeffa text".encode(encoding))
    assert caught.value.offset == 0
    with pytest.raises(TextError, match="UTF-16 without a byte order mark"):
        decode_text("a text".encode(encoding))


@pytest.mark.parametrize("data", [b"", UTF8_MARK])
def test_an_empty_text_is_refused(data):
    with pytest.raises(TextError, match="my text is empty"):
        decode_text(data, "my text")


@given(st.binary())
def test_whatever_the_bytes_the_answer_is_a_text_or_a_reason(data):
    try:
        text = decode_text(data)
    except TextError:
        return
    assert "\r" not in text
    assert len(text.encode()) <= len(data)


def test_a_file_is_read_and_named_in_what_is_wrong_with_it(tmp_path):
    path = tmp_path / "my.txt"
    path.write_bytes(UTF8_MARK + "Grüße\r\n".encode())
    assert read_text(path) == "Grüße\n"
    path.write_bytes("Grüße".encode("latin1"))
    with pytest.raises(TextError, match=r"my\.txt is not UTF-8 .*offset 2"):
        read_text(str(path))


def test_a_file_too_large_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(model.text, "LARGEST", 4)
    path = tmp_path / "my.txt"
    path.write_bytes(b"four")
    assert read_text(path) == "four"
    path.write_bytes(b"five!")
    with pytest.raises(TextError, match="longer than 4 bytes"):
        read_text(path)
