"""Documents are read as text; the kind of a text is recognised. The documents are built by hand here."""

import errno
import io
import json
import random
import string
import sys
import time
import zipfile
from pathlib import Path
from typing import NoReturn

import pytest
from pypdf import PdfWriter

from app.errors import UnusableTextError
from app.intake.appearance import appearance
from app.intake.scan import TextScan
from app.intake.text import Contents, read_text
from tests.support.runs import small_text

W = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'
MC = 'xmlns:mc="http://schemas.openxmlformats.org/markup-compatibility/2006"'
OASIS = "urn:oasis:names:tc:opendocument:xmlns"


def read(tmp_path: Path, data: bytes, name: str) -> Contents:
    path = tmp_path / name
    path.write_bytes(data)
    return read_text(path)


def zipped(files: dict[str, str | bytes]) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return data.getvalue()


def docx(body: str) -> bytes:
    return zipped({"word/document.xml": f"<w:document {W} {MC}><w:body>{body}</w:body></w:document>"})


def odt(body: str) -> bytes:
    content = (
        f'<office:document-content xmlns:office="{OASIS}:office:1.0" xmlns:text="{OASIS}:text:1.0">'
        f"<office:body><office:text>{body}</office:text></office:body></office:document-content>"
    )
    return zipped({"mimetype": "application/vnd.oasis.opendocument.text", "content.xml": content})


CONTAINER = (
    '<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles>'
    '<rootfile full-path="OEBPS/book.opf"/></rootfiles></container>'
)


def epub(chapters: dict[str, str | bytes]) -> bytes:
    items = "".join(f'<item id="{name}" href="{name}"/>' for name in reversed(chapters))
    spine = "".join(f'<itemref idref="{name}"/>' for name in chapters)
    package = (
        '<package xmlns="http://www.idpf.org/2007/opf">'
        f"<manifest>{items}</manifest><spine>{spine}</spine></package>"
    )
    return zipped(
        {"mimetype": "application/epub+zip", "META-INF/container.xml": CONTAINER, "OEBPS/book.opf": package}
        | {f"OEBPS/{name}": page for name, page in chapters.items()}
    )


def pdf(lines: list[str]) -> bytes:
    shown = " ".join(f"({line}) Tj T*" for line in lines)
    stream = f"BT /F1 12 Tf 14 TL 72 700 Td {shown} ET".encode()
    objects = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 612 792]/Contents 4 0 R/Resources<</Font<</F1 5 0 R>>>>>>",
        b"<</Length %d>>stream\n%b\nendstream" % (len(stream), stream),
        b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
    ]
    data, offsets = b"%PDF-1.4\n", []
    for number, content in enumerate(objects, 1):
        offsets.append(len(data))
        data += b"%d 0 obj\n%b\nendobj\n" % (number, content)
    table = b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    start = len(data)
    data += b"xref\n0 6\n0000000000 65535 f \n" + table
    return data + b"trailer<</Size 6/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF\n" % start


WORD = (
    "<w:p><w:pPr><w:tabs><w:tab w:val='left'/></w:tabs></w:pPr><w:r><w:t>Caf&#233; &amp; bar</w:t></w:r>"
    "<w:r><w:tab/><w:t xml:space='preserve'> two</w:t><w:br/><w:t>three</w:t></w:r></w:p>"
    "<w:p><w:r><w:instrText>PAGE</w:instrText><w:delText>gone</w:delText></w:r></w:p>"
    "<mc:AlternateContent><mc:Choice><w:p><w:r><w:t>once</w:t></w:r></w:p></mc:Choice>"
    "<mc:Fallback><w:p><w:r><w:t>once</w:t></w:r></w:p></mc:Fallback></mc:AlternateContent>"
)
OPEN = (
    '<text:h>Title</text:h><text:p>one<text:s text:c="3"/>two<text:tab/><text:span>three</text:span>'
    "<text:line-break/>four<office:annotation><text:p>a remark</text:p></office:annotation></text:p>"
)
BOOK = (
    '<package xmlns="http://www.idpf.org/2007/opf"><manifest><item id="a" href="a"/></manifest>'
    '<spine><itemref idref="a"/></spine></package>'
)
WORD_FILE = f"<w:document {W}><w:body><w:p><w:r><w:t>text</w:t></w:r></w:p></w:body></w:document>"
OPEN_TYPE = "application/vnd.oasis.opendocument.text"
OPEN_FILE = f'<a xmlns:text="{OASIS}:text:1.0"><text:p>text</text:p></a>'
LOCKED = "<manifest:manifest><manifest:encryption-data/></manifest:manifest>"
PROTECTION = (
    '<encryption xmlns:e="http://www.w3.org/2001/04/xmlenc#"><e:CipherReference URI="OEBPS/a"/></encryption>'
)
WEB_SUBTITLES = (
    "WEBVTT - a title\n\nNOTE a remark\nof two lines\n\nSTYLE\n::cue {}\n\nfirst\n"
    "00:01.000 --> 00:02.000 align:start\n"
    "<v Bob>Hello\n- there &amp; you\n\n2\n00:03.000 --> 00:04.000\n<00:03.500>Bye.\n"
)
PAGE = (
    "<!DOCTYPE html><html><head><title>T</title><style>p {}</style></head><body><script>'<p>bad'</script>"
    "<h1>Head</h1>\n<p>A  b\n c<br>d <i>e</i>.</p><pre>x\n  y</pre><ul><li>1<li>2</ul>"
    "<table><tr><td>a<td>b</table>&eacute; &lt; é</body></html>"
)
PAGE_TEXT = "Head\n\nA b c\nd e.\n\nx\n  y\n\n1\n2\n\na b\n\né < é\n"
SUBTITLES = (
    "1\r\n00:00:01,000 --> 00:00:02,000\r\n<i>Hello</i> there,\r\nyou.\r\n\r\n"
    "2\r\n00:00:03,000 --> 00:00:04,000\r\n1984\r\nBye.\r\n"
)
NOTEBOOK = {
    "cells": [
        {"cell_type": "markdown", "source": ["# Title\n", "words"]},
        {"cell_type": "code", "source": "x = 1", "outputs": [{"text": "secret"}]},
    ],
    "nbformat": 4,
}
RTF = rb"{\rtf1\ansi\ansicpg1252{\fonttbl{\f0 Arial;}}\f0 Caf\'e9 \b bar\b0\par It\rquote s\par}"

DOCUMENTS = {
    "my.docx": (docx(WORD), "a Word document", "Café & bar\t two\nthree\n\nonce\n"),
    "my.odt": (odt(OPEN), "an OpenDocument text", "Title\none   two\tthree\nfour\n"),
    "my.epub": (
        epub(
            {
                "b.xhtml": "<!DOCTYPE html><html><body><p>first</p></body></html>",
                "a.xhtml": "<!DOCTYPE html><html><body><p>second</p></body></html>",
            }
        ),
        "an EPUB book",
        "first\n\nsecond\n",
    ),
    "my.html": (PAGE.encode(), "an HTML page", PAGE_TEXT),
    "my.srt": (SUBTITLES.encode(), "a file of subtitles", "Hello there,\nyou.\n1984\nBye.\n"),
    "my.ipynb": (json.dumps(NOTEBOOK).encode(), "a Jupyter notebook", "# Title\nwords\n\nx = 1\n"),
    "my.rtf": (RTF, "an RTF document", "Café bar\nIt’s\n"),
    "my.pdf": (pdf(["Hello there", "and goodbye"]), "a PDF document", "Hello there\nand goodbye\n\n"),
}


@pytest.mark.parametrize("name", DOCUMENTS)
@pytest.mark.parametrize("how", ["by its name", "by its content", "in a zip"])
def test_document_is_read_as_text_and_previewed(tmp_path, name, how):
    data, kind, expected = DOCUMENTS[name]
    if how == "in a zip":
        data = zipped({name: data})
    contents = read(tmp_path, data, "file" if how != "by its name" else name)
    assert contents.text == expected
    shown = next(finding.message for finding in contents.findings if finding.code == "document")
    assert f"is {kind}: {len(expected)} characters of text extracted, starting with '{expected[:4]}" in shown


@pytest.mark.parametrize(
    ("declared", "encoding", "text"),
    [
        ("iso-8859-2", "iso8859-2", "žluťoučký kůň"),
        ("latin-1", "cp1252", "It’s"),
        ("utf-8", "utf-8", "It’s"),
        ("nonsense", "utf-8", "It’s"),
        ("undefined", "utf-8", "It’s"),
        ("utf-16", "utf-8", "It’s"),
        ("utf-8", "utf-16", "It’s"),
        ("latin-1", "utf-8-sig", "It’s"),
    ],
)
@pytest.mark.parametrize("kind", ["html", "xhtml", "epub"])
def test_page_is_read_in_its_declared_encoding(tmp_path, declared, encoding, text, kind):
    page = f"<html><head><meta charset='{declared}'></head><body><p>{text}</p></body></html>"
    if kind != "html":
        page = f"<?xml version='1.0' encoding='{declared}'?>\n<html><body><p>{text}</p></body></html>"
    data = page.encode(encoding)
    if kind == "epub":
        data = epub({"a.xhtml": data})
    assert read(tmp_path, data, f"my.{kind}").text == f"{text}\n"


def test_page_not_in_its_declared_encoding_is_refused(tmp_path):
    page = "<html><meta charset='utf-8'><body><p>It’s a “test”.</p></body></html>".encode("cp1252")
    assert "It looks like cp1252" in refusal(tmp_path, page, "my.html")


KIND = "META-INF/container.xml"
OTHER_FILES = {
    "without mimetype.epub": (
        zipped({KIND: CONTAINER, "OEBPS/book.opf": BOOK, "OEBPS/a": "<p>text</p>"}),
        "text\n",
    ),
    "sharepoint.docx": (zipped({"word/document2.xml": WORD_FILE}), "text\n"),
    "template.ott": (zipped({"mimetype": f"{OPEN_TYPE}-template", "content.xml": OPEN_FILE}), "text\n"),
    "utf16.docx": (zipped({"word/document.xml": WORD_FILE.encode("utf-16")}), "text\n"),
    "old.ipynb": (
        json.dumps({"worksheets": [{"cells": [{"input": ["x = 1\n", "y"]}]}]}).encode(),
        "x = 1\ny\n",
    ),
    "emoji.rtf": (rb"{\rtf1\ansi\ansicpg1251\uc1 \u1055?\'e8 \u-10179?\u-8704? ok}", "Пи 😀 ok"),
    "web.vtt": (WEB_SUBTITLES.encode(), "Hello\n- there & you\nBye.\n"),
    "spaced.srt": (b"1 \n 0:00:01,0-->0:00:02,0\nHi\nyou\n", "Hi\nyou\n"),
    "page.docx": (b"<html><body><p>saved as a page</p></body></html>", "saved as a page\n"),
    "mark.txt": (b"A PDF begins with %PDF-1.4\n", "A PDF begins with %PDF-1.4\n"),
    "mark2.txt": (b"{\\rtf begins RTF\n", "{\\rtf begins RTF\n"),
}


@pytest.mark.parametrize("name", OTHER_FILES)
def test_other_kinds_of_files_are_read_as_text(tmp_path, name):
    data, text = OTHER_FILES[name]
    assert read(tmp_path, data, name).text == text


def encrypted_pdf(password: str) -> bytes:
    writer, data = PdfWriter(), io.BytesIO()
    writer.append(io.BytesIO(pdf(["secret words"])))
    writer.encrypt(password, "owner", algorithm="RC4-128")
    writer.write(data)
    return data.getvalue()


def aes_pdf() -> bytes:
    """As of 2017 on: to read it, another library is needed."""
    key = b"<</StdCF<</CFM/AESV3/AuthEvent/DocOpen/Length 32>>>>/StmF/StdCF/StrF/StdCF"
    texts = b"/O<%b>/U<%b>/OE<%b>/UE<%b>/Perms<%b>" % tuple(b"00" * size for size in (48, 48, 32, 32, 16))
    entry = b"/Encrypt<</Filter/Standard/V 5/R 6/Length 256/P -4%b/CF%b>>/ID[<00><00>]" % (texts, key)
    return pdf(["secret words"]).replace(b"/Root 1 0 R>>", b"/Root 1 0 R" + entry + b">>")


REFUSED_FILES = {
    "styles.docx": (
        zipped({"[Content_Types].xml": "<x/>", "word/styles.xml": "<x/>"}),
        "Microsoft Office file",
    ),
    "drawing.odg": (
        zipped({"mimetype": OPEN_TYPE.replace("text", "graphics")}),
        "an OpenDocument file without",
    ),
    "sheet.ots": (
        zipped({"mimetype": OPEN_TYPE.replace("text", "spreadsheet-template")}),
        "save its sheet as text",
    ),
    "program.jar": (zipped({"META-INF/MANIFEST.MF": "x", "a.class": "x"}), "a program (Java archive)"),
    "locked.odt": (
        zipped({"mimetype": OPEN_TYPE, "META-INF/manifest.xml": LOCKED, "content.xml": "x"}),
        "a password",
    ),
    "locked.epub": (
        zipped(
            {KIND: CONTAINER, "OEBPS/book.opf": BOOK, "OEBPS/a": "x", "META-INF/encryption.xml": PROTECTION}
        ),
        "copy protection",
    ),
    "empty.epub": (zipped({"mimetype": "application/epub+zip"}), "no item named 'META-INF/container.xml'"),
    "no book.epub": (zipped({KIND: "<x/>"}), "META-INF/container.xml names no book"),
    "locked.pdf": (encrypted_pdf("password"), "a PDF document with a password"),
    "aes.pdf": (aes_pdf(), "a PDF document that is encrypted: save it as plain text"),
    "damaged.pdf": (pdf(["words"])[:200], "a PDF document that cannot be read"),
    "list.ipynb": (b"[1]", "it has no list of cells"),
    "null.ipynb": (b'{"cells": [null]}', "cell 1 has no text"),
    "number.ipynb": (b'{"cells": [{"source": "a"}, {"source": [1]}]}', "cell 2 has no text"),
    "deep.ipynb": (b'{"cells": ' + b"[" * 100_000, "it is nested too deeply"),
    "times.srt": (b"1\n00:00:01,000 --> 00:00:02,000\n", "a file of subtitles without text"),
}


@pytest.mark.parametrize("name", REFUSED_FILES)
def test_unusable_kinds_of_files_are_refused_with_the_reason(tmp_path, name):
    data, reason = REFUSED_FILES[name]
    assert reason in refusal(tmp_path, data, name)


def test_encrypted_pdf_without_a_password_is_read(tmp_path):
    assert read(tmp_path, encrypted_pdf(""), "my.pdf").text == "secret words\n\n"


@pytest.mark.slow
@pytest.mark.timeout(60)
def test_pdf_that_takes_too_long_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("app.intake.pdf.LONGEST_SECONDS", 2.0)
    began = time.monotonic()
    assert "takes longer than 2 s to read" in refusal(tmp_path, pdf(["word"] * 2_000_000), "my.pdf")
    assert time.monotonic() - began < 30


def test_pdf_that_needs_too_much_memory_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("app.intake.pdf.MAX_MEMORY", 160 << 20)
    assert "takes more than 160 MB of memory" in refusal(tmp_path, pdf(["word" * 10_000_000]), "my.pdf")


def test_document_larger_than_its_limit_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("app.intake.documents.LARGEST_MEMBER", 1000)
    monkeypatch.setattr("app.intake.documents.LARGEST_WHOLE", 1000)
    message = refusal(tmp_path, docx("<w:p/>" * 1000), "my.docx")
    assert "word/document.xml must have at most 0 MB unpacked; this one is larger" in message
    assert "my.rtf must have at most 0 MB" in refusal(tmp_path, RTF + b" " * 1000, "my.rtf")


def refusal(tmp_path: Path, data: bytes, name: str) -> str:
    with pytest.raises(UnusableTextError) as caught:
        read(tmp_path, data, name)
    return str(caught.value)


@pytest.mark.parametrize("name", [name for name in DOCUMENTS if name not in ("my.html", "my.srt")])
def test_damaged_document_is_read_or_refused(tmp_path, name):
    data = DOCUMENTS[name][0]
    rng = random.Random(1)
    for _ in range(150):
        damaged = bytearray(data)
        for _ in range(rng.randrange(1, 4)):
            damaged[rng.randrange(8, len(data))] = rng.randrange(256)
        if rng.random() < 0.3:
            del damaged[rng.randrange(8, len(data)) :]
        try:
            read(tmp_path, bytes(damaged), name)
        except UnusableTextError as error:
            assert str(tmp_path) not in str(error)  # noqa: PT017 - most damaged files can still be read


@pytest.mark.parametrize("name", ["my.docx", "my.pdf", "my.zip"])
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), ValueError("elsewhere")])
def test_error_of_the_reader_is_not_reported_as_a_bad_document(tmp_path, monkeypatch, name, error):
    def fail(scan: TextScan, piece: str) -> NoReturn:
        raise error

    monkeypatch.setattr(TextScan, "add", fail)
    data = zipped({"a.txt": "text"}) if name == "my.zip" else DOCUMENTS[name][0]
    with pytest.raises(type(error), match=r"No space left|elsewhere"):
        read(tmp_path, data, name)


def test_document_without_text_is_refused(tmp_path):
    assert "without text" in refusal(tmp_path, pdf([]), "my.pdf")
    assert "without text" in refusal(tmp_path, docx(""), "my.docx")
    assert "without text" in refusal(tmp_path, b"<html><script>x</script></html>", "my.html")


def test_document_that_declares_entities_is_refused(tmp_path):
    (tmp_path / "secret.txt").write_text("the secret")
    entities = f'<!ENTITY a "aaaa"><!ENTITY b "&a;&a;"><!ENTITY f SYSTEM "{tmp_path}/secret.txt">'
    body = "<w:p><w:r><w:t>text &b; &f; end</w:t></w:r></w:p>"
    xml = f"<!DOCTYPE w [{entities}]><w:document {W}>{body}</w:document>"
    assert "it declares XML entities" in refusal(tmp_path, zipped({"word/document.xml": xml}), "my.docx")


@pytest.mark.timeout(30)
@pytest.mark.parametrize("unit", ["<!--", "<a b=", "<div>", "<b>", "<table><tr>"])
def test_page_built_to_be_slow_is_read_quickly(tmp_path, unit):
    assert "without text" in refusal(tmp_path, b"<html>" + unit.encode() * 200_000, "my.html")


@pytest.mark.timeout(30)
@pytest.mark.parametrize("unit", ["1\n", "{\\", "<a"])
def test_subtitles_built_to_be_slow_are_read_quickly(tmp_path, unit):
    data = "1\n00:00:01,000 --> 00:00:02,000\n" + unit * 500_000
    assert len(read(tmp_path, data.encode(), "my.srt").text) >= 500_000


LIBRARIES = {"my.docx": "lxml", "my.html": "lxml", "my.rtf": "striprtf", "my.pdf": "pypdf"}


@pytest.mark.parametrize("name", LIBRARIES)
def test_missing_document_library_is_reported_with_the_extra(tmp_path, monkeypatch, name):
    library = LIBRARIES[name]
    for module in [module for module in sys.modules if module.partition(".")[0] == library]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, library, None)
    message = refusal(tmp_path, DOCUMENTS[name][0], name)
    assert f"install {library} (pip install 'charloom[documents]')" in message


ROW = "1,2024-01-02,red,0.5\n"
CODE = (
    'def area(radius):\n    if radius < 0:\n        raise ValueError("no")\n    return 3.14 * radius ** 2\n\n'
)
BRACES = (
    "int main(void) {\n    int sum = 0;\n    for (int i = 0; i < 9; i++) {\n        sum += i;\n    }\n}\n"
)
COMMENTED = '''@cached
def load(path, limit=None):
    """Return the records of a file.

    Every record is one line of the file, without the newline at its end. Lines that
    are empty are left out, and so are those that begin with a number sign.
    """
    # the whole file is read at once, as it is small
    found = [line.strip() for line in path.open()]
    self._records[path] = {line: len(line) for line in found[:limit]}
    return self._records[path]
'''
HEADER = """/* The errors of the library. */
#ifndef ERRORS_H
#define ERRORS_H

#define E_OK        0  /* no error */
#define E_MEMORY  -12  /* out of memory */

extern int error_of(struct file *file);
"""
SHELL = """set -e
# the folder of the program
DIR="$(cd "$(dirname "$0")" && pwd)"
if [ -z "$1" ]; then
    echo "usage: $0 NAME" >&2
fi
for file in "$DIR"/*.txt; do
    grep -q "$1" "$file" && echo "$file"
done
"""
CHAT = """[12:31] <ann> has anybody seen the new timetable? (the one for May)
[12:32] <bob> it is on the wall of the office, next to the door
[12:34] <ann> thank you, I will have a look after lunch
"""


def random_characters(characters: str, length: int) -> str:
    lines = random.Random(1).choices(characters, k=length)
    return "".join("\n" if place % 77 == 76 else character for place, character in enumerate(lines))


PROSE = "It was the best of times, it was the worst of times; so they said, and went home.\n"
LOOKS = {
    "table": (ROW * 300, "looks_like_a_table"),
    "tabs": ("a\tb\tc\n" * 500, "looks_like_a_table"),
    "commas and spaces": (
        "".join(f"{number}, red, {number * 7 % 13}\n" for number in range(300)),
        "looks_like_a_table",
    ),
    "columns": ("alice     23   red\nbob        7   green\n" * 100, "looks_like_a_table"),
    "numbers": ("0.1 -2.5 3\n4 5.5 +6\n" * 200, "looks_like_a_table"),
    "json": (json.dumps([{"name": "x", "value": 1}] * 300, indent=1), "looks_like_json"),
    "json in one line": (json.dumps([{"name": "x", "value": 1}] * 300), "looks_like_json"),
    "markup": ("<row><cell>a</cell><cell>b</cell></row>\n" * 100, "looks_like_markup"),
    "python": (CODE * 60, "looks_like_code"),
    "c": (BRACES * 60, "looks_like_code"),
    "python with comments": (COMMENTED * 20, "looks_like_code"),
    "c header": (HEADER * 20, "looks_like_code"),
    "shell": (SHELL * 20, "looks_like_code"),
    "chat log": (CHAT * 30, None),
    "random": (random_characters("0123456789abcdef", 50_000), "looks_random"),
    "base64": (random_characters(string.ascii_letters + string.digits + "+/", 6_000), "looks_random"),
    "printable": ("".join(random.Random(2).choices(string.printable[:94], k=30_000)), "looks_random"),
    "bytes": (random_characters("".join(map(chr, range(32, 256))), 70_000), "looks_random"),
    "prose": (PROSE * 60, None),
    "old prose": (f"{PROSE.strip()}  And then.\n" * 60, None),
    "little of many characters": (random_characters("".join(map(chr, range(0x4E00, 0x5200))), 5_000), None),
    "words": (small_text(20_000), None),
    "verse": ("ROMEO:\nBut soft, what light through yonder window breaks?\n\n" * 60, None),
    "short": (ROW * 3, None),
}


@pytest.mark.parametrize("name", LOOKS)
def test_kind_of_a_text_is_recognised(name):
    text, code = LOOKS[name]
    looks = appearance(text)
    assert (looks.code if looks else None) == code


def test_kind_of_a_text_is_a_warning(tmp_path):
    found = [
        (finding.level, finding.code) for finding in read(tmp_path, (ROW * 300).encode(), "my.csv").findings
    ]
    assert ("warning", "looks_like_a_table") in found
    prose = read(tmp_path, (PROSE * 60).encode(), "my.txt").findings
    assert not [finding.code for finding in prose if finding.code.startswith("looks_")]
