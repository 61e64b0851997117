"""Reading texts: encodings, zips, kinds of files, and the findings that are reported."""

import codecs
import contextlib
import encodings
import errno
import functools
import io
import pkgutil
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import TooLargeError, UnusableTextError
from app.intake import text as reader
from app.intake.encodings import decoded, known_encoding
from app.intake.findings import FileRefusedError
from app.intake.text import Contents, read_text
from app.store.files import Source
from model.vocabulary import MAX_CHARACTERS
from tests.support.runs import small_text

# excluded from plain texts: control characters and byte order marks, which have their own tests
NOT_PLAIN = [*map(chr, range(32)), "\x7f", "\ufeff"]
PLAIN = st.characters(exclude_categories=["Cs"], exclude_characters=NOT_PLAIN)
LINES = st.lists(st.tuples(st.text(PLAIN, min_size=1), st.sampled_from(["\n", "\r\n", "\r"])), min_size=1)
UTF8_MARK = codecs.BOM_UTF8


def read(tmp_path: Path, data: bytes, name: str = "my.txt", encoding: str = "utf-8") -> Contents:
    path = tmp_path / name
    path.write_bytes(data)
    return read_text(path, encoding)


def refusal(tmp_path: Path, data: bytes, name: str = "my.txt", encoding: str = "utf-8") -> dict[str, object]:
    with pytest.raises(UnusableTextError) as caught:
        read(tmp_path, data, name, encoding)
    return dict(caught.value.findings[0])


def warnings(contents: Contents) -> list[str]:
    return [finding.code for finding in contents.findings]


@pytest.mark.slow
@given(lines=LINES, marked=st.booleans())
def test_utf8_is_read_with_line_feeds_and_without_its_bom(tmp_path_factory, lines, marked):
    data = UTF8_MARK * marked + "".join(line + end for line, end in lines).encode()
    expected = "".join(line + "\n" for line, _ in lines)
    folder = tmp_path_factory.mktemp("text")
    if len(set(expected)) > 1:
        assert read(folder, data).text == expected


def test_empty_lines_are_kept(tmp_path):
    assert read(tmp_path, b"a\r\nb\rc\n\r\nd\r\r\n").text == "a\nb\nc\n\nd\n\n"


@pytest.mark.parametrize("size", [3, 4, 5, 7])
def test_line_ends_and_characters_split_across_chunks_are_read(tmp_path, monkeypatch, size):
    monkeypatch.setattr("app.intake.encodings.PIECE", size)
    for encoding in ("utf-8", "utf-16", "shift_jis"):
        data = "ab\r\nかな\r\nc\r\r\n".encode(encoding)
        assert read(tmp_path, data, encoding=encoding).text == "ab\nかな\nc\n\n"


@pytest.mark.parametrize(
    ("data", "position"), [(b"caf\xe9 noir", 3), (b"cut short \xe2\x82", 10), (b"\xed\xa0\x80", 0)]
)
def test_invalid_utf8_is_refused_with_its_offset(tmp_path, monkeypatch, data, position):
    assert refusal(tmp_path, data)["position"] == position
    monkeypatch.setattr("app.intake.encodings.PIECE", 2)
    assert refusal(tmp_path, data)["position"] == position


def test_windows_quotes_are_suggested_as_cp1252_with_a_preview(tmp_path):
    data = ("It’s a “test”.\r\n" * 100).encode("cp1252")
    message = str(refusal(tmp_path, data)["message"])
    assert "byte 0x92 at offset 2" in message
    assert "It’s a “test”." in message
    assert "encoding=cp1252" in message
    assert "common encodings are utf-8, utf-16, cp1252, latin-1" in message
    assert read(tmp_path, data, encoding="cp1252").text == "It’s a “test”.\n" * 100


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("koi8-r", "Все счастливые семьи похожи друг на друга, каждая несчастливая по-своему. "),
        ("shift_jis", "吾輩は猫である。名前はまだ無い。どこで生れたかとんと見当がつかぬ。"),
        ("big5", "學而時習之，不亦說乎？有朋自遠方來，不亦樂乎？"),
        ("utf-16-le", "A text without a mark. "),
        ("utf-16-be", "A text without a mark. "),
        ("utf-16-le", "吾輩は猫である。名前はまだ無い。\nどこで生れたかとんと見当がつかぬ。\n"),
        ("utf-16-be", "나는 고양이로소이다. 이름은 아직 없다."),
        ("iso2022_jp", "吾輩は猫である。名前はまだ無い。どこで生れたかとんと見当がつかぬ。"),
        ("euc_jp", "吾輩は猫である。名前はまだ無い。どこで生れたかとんと見当がつかぬ。"),
        ("euc_kr", "나는 고양이로소이다. 이름은 아직 없다. 어디서 태어났는지 도무지 모르겠다. "),
        ("gb18030", "道可道，非常道。名可名，非常名。无名天地之始；有名万物之母。"),
        (
            "cp1250",
            "Litwo! Ojczyzno moja! ty jesteś jak zdrowie; "
            "Ile cię trzeba cenić, ten tylko się dowie, Kto cię stracił. ",
        ),
        ("mac-roman", "Longtemps, je me suis couché de bonne heure. Parfois, à peine ma bougie éteinte, "),
        ("mac-roman", "It was the best of times – “so” they said, it was the worst of times. "),
        (
            "iso8859-2",
            "Litwo! Ojczyzno moja! ty jesteś jak zdrowie; "
            "Ile cię trzeba cenić, ten tylko się dowie, Kto cię stracił. ",
        ),
        ("iso8859-7", "Άνδρα μοι έννεπε, Μούσα, πολύτροπον, ος μάλα πολλά πλάγχθη. "),
        ("cp1255", "בראשית ברא אלהים את השמים ואת הארץ "),
        ("cp437", "Als Gregor Samsa eines Morgens aus unruhigen Träumen erwachte, fand er sich in Öl. "),
    ],
)
def test_likely_encoding_is_suggested(tmp_path, encoding, text):
    assert f"encoding={encoding} " in str(refusal(tmp_path, (text * 20).encode(encoding))["message"])


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
def test_bom_of_another_encoding_is_reported(tmp_path, encoding):
    found = refusal(tmp_path, "\ufeffa text".encode(encoding))
    assert f"encoding={encoding[:6]}" in str(found["message"])
    assert found["position"] == 0
    assert read(tmp_path, "\ufeffa text".encode(encoding), encoding=encoding[:6]).text == "a text"
    assert read(tmp_path, "\ufeffa text".encode(encoding), encoding=encoding).text == "a text"


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32"])
def test_utf16_without_a_bom_is_refused_with_its_byte_order(tmp_path, encoding):
    found = refusal(tmp_path, "hello".encode(f"{encoding}-le"), encoding=encoding)
    assert (found["code"], found["position"]) == ("wrong_encoding", 0)
    if encoding == "utf-16":
        assert "encoding=utf-16-le" in str(found["message"])


@functools.cache
def text_encodings() -> list[str]:
    names = {module.name for module in pkgutil.iter_modules(encodings.__path__)}
    found = []
    for name in sorted(names):
        try:
            found.append(known_encoding(name))
        except UnusableTextError:
            continue
    return sorted(set(found))


def test_every_text_encoding_of_python_is_accepted():
    known = text_encodings()
    assert len(known) > 90
    assert {"cp037", "cp1258", "mac-iceland", "utf-7", "hz", "koi8-t", "utf-8-sig"} <= set(known)
    of_no_file = ("idna", "punycode", "undefined", "unicode-escape", "raw_unicode_escape", "mbcs", "oem")
    for name in (*of_no_file, "base64", "rot13", "nonsense", "\0", "x" * 5000, "é"):
        with pytest.raises(UnusableTextError, match="encoding must be one that Python knows"):
            known_encoding(name)


@pytest.mark.slow
@given(data=st.binary(max_size=60))
def test_any_bytes_in_any_encoding_are_read_or_refused(data):
    for encoding in text_encodings():
        for content in (data, b"plain text " * 3 + data):
            with contextlib.suppress(FileRefusedError):
                text = "".join(decoded(Source("my.txt", io.BytesIO(content)), encoding, []))
                assert "\r" not in text
                text.encode("utf-8")


def test_lone_surrogate_of_utf7_is_refused(tmp_path):
    found = refusal(tmp_path, b"some text +2AA- more", encoding="utf-7")
    assert "half of a surrogate pair" in str(found["message"])


@pytest.mark.parametrize("data", [b"", UTF8_MARK, b"\x1a"])
def test_empty_text_is_refused(tmp_path, data):
    assert refusal(tmp_path, data)["code"] in ("empty", "not_text")


def test_text_of_one_character_is_refused(tmp_path):
    assert refusal(tmp_path, b"a" * 5000)["code"] == "one_character"


def test_text_with_too_many_distinct_characters_is_refused(tmp_path):
    text = "".join(map(chr, range(0x10000, 0x10001 + MAX_CHARACTERS)))
    found = refusal(tmp_path, text.encode())
    assert found["code"] == "too_many_characters"
    assert "65,537 distinct characters" in found["message"]


def test_dos_end_of_file_mark_is_removed(tmp_path):
    data = b"the cat sat\r\n" * 100 + b"\x1a"
    contents = read(tmp_path, data)
    assert contents.text == "the cat sat\n" * 100
    assert "end_mark" in warnings(contents)
    inside = read(tmp_path, b"the cat \x1a sat\r\n" * 3)
    assert inside.text == "the cat \x1a sat\n" * 3
    assert "control_characters" in warnings(inside)


def test_file_of_end_of_file_marks_is_refused(tmp_path):
    assert refusal(tmp_path, b"the cat sat\n" + b"\x1a" * 10_000)["code"] == "binary"


def test_encoding_that_differs_from_the_declared_one_is_reported(tmp_path):
    wide = "A text without a mark.\n".encode("utf-16-le") * 20
    for declared in ("utf-16-be", "latin-1", "cp037"):
        found = refusal(tmp_path, wide, encoding=declared)
        assert (found["code"], found["position"]) == ("wrong_encoding", 1)
        assert "encoding=utf-16-le" in str(found["message"])
    marked = refusal(tmp_path, "\ufeffa text".encode("utf-16-be"), encoding="utf-16-le")
    assert "is utf-16, according to its byte order mark" in str(marked["message"])
    for declared in ("cp1252", "shift_jis", "mac-roman"):
        contents = read(tmp_path, "Le café noir d’été\n".encode() * 20, encoding=declared)
        message = next(finding.message for finding in contents.findings if finding.code == "valid_utf8")
        assert "would read 'Le café noir d’été" in message
    assert "valid_utf8" not in warnings(read(tmp_path, "café\n".encode("cp1252") * 9, encoding="cp1252"))


@pytest.mark.parametrize(
    ("data", "count"), [(b"ab\x01c", "1 control character,"), (b"a\x01\x02", "2 control characters")]
)
def test_findings_use_singular_and_plural(tmp_path, data, count):
    assert count in next(
        each.message for each in read(tmp_path, data).findings if each.code == "control_characters"
    )


def test_single_rare_character_is_reported_in_the_singular(tmp_path):
    found = read(tmp_path, small_text(30_000).encode() + b"@").findings
    assert next(each.message for each in found if each.code == "rare_characters").startswith(
        "the text has 1 distinct character with"
    )


def test_few_control_characters_warn_and_many_are_refused(tmp_path):
    assert "control_characters" in warnings(read(tmp_path, small_text().encode() + b"\x1b[0m\n"))
    assert refusal(tmp_path, (small_text(400) + "\x1b").encode() * 30)["code"] == "binary"
    assert refusal(tmp_path, small_text().encode() + b"\0")["code"] == "binary"


def test_c1_control_characters_are_a_warning(tmp_path):
    for data in ("next line\u0085" * 40, "It\x92s a test\n" * 40):
        contents = read(tmp_path, data.encode())
        assert contents.text == data
        assert "c1_controls" in warnings(contents)


def test_file_that_is_too_large_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(reader, "LARGEST", 4)
    assert read(tmp_path, b"four").text == "four"
    with pytest.raises(TooLargeError, match="at most 4 bytes"):
        read(tmp_path, b"five!")


def test_file_with_a_non_utf8_name_is_read_and_shown(tmp_path):
    path = Path(str(tmp_path)) / "caf\udce9.txt"
    path.write_bytes(b"caf\xe9 noir")
    with pytest.raises(UnusableTextError, match=r"caf\ufffd\.txt is not utf-8"):
        read_text(path)


def zipped(compression: int = zipfile.ZIP_DEFLATED, **files: bytes) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", compression) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return data.getvalue()


def test_files_of_a_zip_are_joined_in_name_order(tmp_path):
    data = zipped(**{"b.txt": b"second", "a.txt": b"first", ".hidden": b"\0", "__MACOSX/a": b"\0"})
    assert read(tmp_path, data, "my.zip").text == "first\nsecond"


COMPRESSIONS = [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]


@pytest.mark.slow
@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_damaged_zip_is_read_or_refused(tmp_path, compression):
    whole = zipped(compression, **{"a.txt": small_text(3000).encode()})
    for position in range(0, len(whole), 1 if len(whole) < 2000 else 7):
        data = bytearray(whole)
        data[position] ^= 0x41
        with contextlib.suppress(UnusableTextError):
            read(tmp_path, bytes(data), "my.zip")


def test_zip_member_with_a_wrong_checksum_is_named(tmp_path):
    data = bytearray(zipped(zipfile.ZIP_STORED, **{"a.txt": b"hello world " * 5}))
    data[36:38] = b"em"
    found = refusal(tmp_path, bytes(data), "my.zip")
    assert (found["code"], found["file"]) == ("bad_zip", "a.txt")


@pytest.mark.parametrize("kind", [KeyError, TypeError, AssertionError, RecursionError, UnicodeError, OSError])
@pytest.mark.parametrize("place", ["ZipFile.__init__", "ZipFile.open", "ZipExtFile.read"])
def test_any_error_of_the_zip_reader_is_a_refusal(tmp_path, monkeypatch, place, kind):
    def fail(*_: object, **__: object) -> None:
        raise kind

    data = zipped(**{"a.txt": b"hello world " * 5})
    monkeypatch.setattr(f"zipfile.{place}", fail)
    assert refusal(tmp_path, data, "my.zip")["code"] == "bad_zip"


def test_disk_error_while_reading_a_zip_is_not_a_refusal(tmp_path, monkeypatch):
    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    data = zipped(**{"a.txt": b"hello world " * 5})
    monkeypatch.setattr("zipfile.ZipExtFile.read", fail)
    with pytest.raises(OSError, match="Input/output error"):
        read(tmp_path, data, "my.zip")


def test_zip_with_a_file_without_a_name_is_refused(tmp_path):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("a.txt", "one")
        archive.writestr(zipfile.ZipInfo(""), "two")
    with pytest.raises((UnusableTextError, FileRefusedError), match="a file in it has no name"):
        read(tmp_path, content.getvalue(), "a.zip")


def test_zip_with_a_password_is_refused(tmp_path):
    data = bytearray(zipped(**{"a.txt": b"hello world"}))
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(mark) + offset] |= 1
    assert str(refusal(tmp_path, bytes(data), "my.zip")["message"]).endswith(
        "cannot be unpacked: it has a password"
    )


def test_zip_with_a_name_that_is_not_utf8_is_refused(tmp_path):
    data = zipped(zipfile.ZIP_STORED, **{"é.txt": b"hello world " * 5})
    assert refusal(tmp_path, data.replace("é".encode(), b"\xff\xff"), "my.zip")["code"] == "bad_zip"


BINARIES = {
    b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR": "a PNG image",
    b"\xff\xd8\xff\xe0\0\x10JFIF": "a JPEG image",
    b"GIF89a\1\0\1\0": "a GIF image",
    b"RIFF\0\0\0\0WEBPVP8 ": "a WebP image",
    b"\0\0\0\x20ftypisom\0\0": "an MP4 video",
    b"\0\0\0\x18ftypheix\0\0": "a HEIC image",
    b"\0\0\0\x18ftypmif1\0\0": "a HEIF image",
    b"\0\0\0\x14ftypqt  \0\0": "a QuickTime video",
    b"\x1f\x8b\x08\0": "a gzip file",
    b"7z\xbc\xaf\x27\x1c": "a 7-Zip archive",
    b"SQLite format 3\0": "an SQLite database",
    b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1": "an old Microsoft Office",
    b"\x7fELF\2\1\1\0": "a program (ELF)",
    b"BM\x36\0\0\0\0\0": "a BMP image",
    b"8BPS\0\1": "a Photoshop image",
    b"\xff\xf3\x90\0": "an MP3 recording",
    b"\xff\xf1\x50\x80": "an AAC recording",
    b"Title" + b"\0" * 55 + b"BOOKMOBI": "a Mobipocket or Kindle book",
    b"AT&TFORM\0\0\0\1DJVU": "a DjVu document",
    b"\x80\x04\x95": "a binary file",
    b"\xf5\0\1\xff": "a binary file",
}


@pytest.mark.parametrize("head", BINARIES)
@pytest.mark.parametrize("in_zip", [False, True])
def test_binary_file_is_refused_with_its_kind(tmp_path, head, in_zip):
    data = head + bytes(range(256)) * 10
    if in_zip:
        data = zipped(**{"inner.bin": data, "a.txt": b"a text"})
    found = refusal(tmp_path, data, "my.bin")
    assert BINARIES[head] in str(found["message"])
    assert found["code"] == "not_text"
    assert "latin-1" not in str(found["message"])


def test_text_that_begins_like_a_binary_is_read(tmp_path):
    for text in ("BM is short for something.\n", "MZ, ID3 and BZh are marks.\n", "ID3 tags\n"):
        assert read(tmp_path, text.encode()).text == text


def test_unsupported_zipped_document_is_refused_with_its_kind(tmp_path):
    for name, kind in (
        ("Index/Document.iwa", "a document of Pages"),
        ("xl/workbook.xml", "an Excel workbook"),
        ("ppt/presentation.xml", "a PowerPoint"),
    ):
        assert kind in str(refusal(tmp_path, zipped(**{name: b"<x/>"}), "my.zip")["message"])
    nested = zipped(**{"inner.zip": zipped(**{"a.txt": b"a text"})})
    assert "a zip in a zip" in str(refusal(tmp_path, nested, "my.zip")["message"])


def test_zip_that_unpacks_to_more_than_its_limit_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(reader, "LARGEST", 1 << 20)
    monkeypatch.setattr(reader, "MAX_PICTURES", 0)
    data = zipped(**{"a.jsonl": b"\n" * (3 << 20), "b.jsonl": b"\n" * (3 << 20)})
    assert "at most 4,194,304 bytes unpacked" in str(refusal(tmp_path, data, "my.zip")["message"])


def test_zip_with_a_too_large_directory_is_refused(tmp_path):
    data = zipped(zipfile.ZIP_STORED, **{f"{number:0>500}": b"" for number in range(9_000)})
    found = refusal(tmp_path, data, "my.zip")
    assert "the directory of the zip must have at most 4,194,304 bytes" in str(found["message"])
