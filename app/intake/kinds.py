"""Detects the kind of a file by its first bytes, and otherwise by its name."""

from __future__ import annotations

import re
from typing import IO

from app.intake.zips import ZIP_MARKS, open_zip, refusing_damage

HEAD = 4096  # bytes that are examined

# files without text: offset, bytes there, and a description for the error message
BINARY: tuple[tuple[int, bytes, str], ...] = (
    (0, b"\x89PNG\r\n\x1a\n", "a PNG image"),
    (0, b"\xff\xd8\xff", "a JPEG image"),
    (0, b"GIF87a", "a GIF image"),
    (0, b"GIF89a", "a GIF image"),
    (8, b"WEBP", "a WebP image"),
    (0, b"II*\0", "a TIFF image"),
    (0, b"MM\0*", "a TIFF image"),
    (0, b"BM", "a BMP image"),
    (0, b"8BPS", "a Photoshop image"),
    (0, b"\0\0\1\0", "an icon"),
    (4, b"ftypavif", "an AVIF image"),
    (4, b"ftyphei", "a HEIC image"),
    (4, b"ftypmif1", "a HEIF image"),
    (4, b"ftypM4A", "an M4A recording"),
    (4, b"ftypqt", "a QuickTime video"),
    (4, b"ftyp", "an MP4 video"),
    (8, b"WAVE", "a WAV recording"),
    (8, b"AVI ", "an AVI video"),
    (0, b"ID3", "an MP3 recording"),
    *((0, mark, "an MP3 recording") for mark in (b"\xff\xfb", b"\xff\xfa", b"\xff\xf3", b"\xff\xf2")),
    *((0, mark, "an AAC recording") for mark in (b"\xff\xf1", b"\xff\xf9")),
    (0, b"OggS", "an Ogg recording"),
    (0, b"fLaC", "a FLAC recording"),
    (0, b"\x1aE\xdf\xa3", "a Matroska or WebM video"),
    (0, b"\x1f\x8b", "a gzip file: unpack it first"),
    (0, b"BZh", "a bzip2 file: unpack it first"),
    (0, b"\xfd7zXZ\0", "an xz file: unpack it first"),
    (0, b"\x28\xb5\x2f\xfd", "a Zstandard file: unpack it first"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive: send a zip"),
    (0, b"Rar!\x1a\x07", "a RAR archive: send a zip"),
    (257, b"ustar", "a tar archive: send a zip"),
    (0, b"\x7fELF", "a program (ELF)"),
    (0, b"\xcf\xfa\xed\xfe", "a program (Mach-O)"),
    (0, b"\xca\xfe\xba\xbe", "a program (Java class or Mach-O)"),
    (0, b"MZ", "a program for Windows"),
    (0, b"\0asm", "a WebAssembly module"),
    (0, b"SQLite format 3\0", "an SQLite database"),
    (
        0,
        b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1",
        "a document of an old Microsoft Office, or one with a password: save it as text",
    ),
    (60, b"BOOKMOBI", "a Mobipocket or Kindle book: save it as EPUB"),
    (0, b"AT&TFORM", "a DjVu document: save it as text"),
    (0, b"PAR1", "a Parquet table"),
    (0, b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
    (0, b"\x93NUMPY", "a NumPy array"),
    (0, b"wOFF", "a font"),
    (0, b"wOF2", "a font"),
    (0, b"OTTO", "a font"),
    (0, b"\0\1\0\0\0", "a font"),
)
# a text may also begin with these
PRINTABLE_MARKS = (b"BM", b"8BPS", b"AT&TFORM", b"PAR1", b"MZ", b"ID3", b"BZh", b"II*\0", b"MM\0*")
ZIPPED = {
    "xl/workbook.xml": "an Excel workbook: save its sheet as text",
    "xl/workbook.bin": "an Excel workbook: save its sheet as text",
    "Index/Document.iwa": "a document of Pages, Numbers or Keynote: export it as text",
    "ppt/presentation.xml": "a PowerPoint presentation: save it as text",
}
OASIS = b"application/vnd.oasis.opendocument."
OPEN_KINDS = {
    b"text": "odt",
    b"spreadsheet": "an OpenDocument spreadsheet: save its sheet as text",
    b"presentation": "an OpenDocument presentation: save it as text",
}
RTF = re.compile(rb"\{\\rtf\d")
HTML = re.compile(rb"\s*(?:<\?xml[^>]*>\s*)?<(?:!doctype\s+html|html)[\s>]", re.IGNORECASE)
SUBTITLES = re.compile(rb"\s*(?:WEBVTT\b|\d+\s+\d\d?:\d\d:\d\d[,.]\d{1,3}\s*-->)")
NOTEBOOK = re.compile(rb'\s*\{\s*"(?:cells|metadata|nbformat)"\s*:')
BY_NAME = {
    "jsonl": "jsonl",
    "htm": "html",
    "html": "html",
    "xhtml": "html",
    "srt": "srt",
    "vtt": "srt",
    "ipynb": "ipynb",
}


def kind_of(content: IO[bytes], name: str) -> str:
    """The kind of a file: `text`, `zip`, `jsonl`, or a key of `documents.NAMES`.

    For a file without text it is a description such as "a PNG image". The file is left at its start. Raises
    FileRefusedError for a damaged zip.
    """
    content.seek(0)
    head = content.read(HEAD)
    content.seek(0)
    head = head.removeprefix(b"\xef\xbb\xbf")
    if head.startswith(ZIP_MARKS):
        kind = _zipped(content, name)
        content.seek(0)
        return kind
    if head.lstrip().startswith(b"%PDF-") or (b"%PDF-" in head[:1024] and _is_binary(head)):
        return "pdf"
    if RTF.match(head):
        return "rtf"
    for offset, mark, kind in BINARY:
        if head[offset : offset + len(mark)] == mark and (mark not in PRINTABLE_MARKS or _is_binary(head)):
            return kind
    if HTML.match(head):
        return "html"
    if SUBTITLES.match(head):
        return "srt"
    if NOTEBOOK.match(head) and b'"cell_type"' in head:
        return "ipynb"
    return BY_NAME.get(name.rpartition(".")[2].lower(), "text")


def _is_binary(head: bytes) -> bool:
    return b"\0" in head or sum(byte < 9 or 13 < byte < 32 for byte in head) > 0.05 * len(head)


def _zipped(content: IO[bytes], name: str) -> str:
    with refusing_damage(name), open_zip(content) as archive:
        names = set(archive.namelist())
        if any(re.fullmatch(r"word/document\d*\.xml", member) for member in names):
            return "docx"
        for member, kind in ZIPPED.items():
            if member in names:
                return kind
        if "mimetype" in names:
            with archive.open("mimetype") as file:
                mimetype = file.read(100).strip()
            if mimetype == b"application/epub+zip":
                return "epub"
            if mimetype.startswith(OASIS):
                part = mimetype.removeprefix(OASIS).partition(b"-")[0]  # `text-template`, `text-master`
                return OPEN_KINDS.get(part, "an OpenDocument file without text: save its content as text")
        if "META-INF/container.xml" in names:
            return "epub"
        if "[Content_Types].xml" in names:
            return "a Microsoft Office file without a text document: save it as text"
        if "META-INF/MANIFEST.MF" in names:
            return "a program (Java archive)"
    return "zip"
