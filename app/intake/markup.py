"""Extracts text from XML and HTML while it is parsed, in bounded memory."""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from urllib.parse import unquote

from app.errors import UnusableTextError
from app.intake.encodings import known_encoding

DECLARED = re.compile(rb"""(?:charset|<\?xml[^>]{0,80}\sencoding)\s*=\s*["']?([A-Za-z0-9_.:-]{1,40})""")
MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
CONTAINER = "META-INF/container.xml"
SPACE = re.compile(r"[ \t\n\r\f\u00a0]+")
SKIPPED = {"script", "style", "template", "noscript", "title", "svg", "math", "head"}
PARAGRAPHS = {
    *("p", "h1", "h2", "h3", "h4", "h5", "h6", "blockquote", "pre", "ul", "ol", "dl", "table", "figure"),
}
BLOCKS = {
    *PARAGRAPHS,
    *("address", "article", "aside", "body", "caption", "dd", "details", "div", "dt", "fieldset"),
    *("figcaption", "footer", "form", "header", "hr", "html", "li", "main", "nav", "option", "section"),
    *("summary", "tr"),
}
CELLS = {"td", "th"}
DOCUMENT_PARAGRAPHS = {"p", "h"}
DOCUMENT_SKIPPED = {"Fallback", "annotation", "tracked-changes", "instrText", "delText"}


class _Collector:
    """A target for parser events; `taken` returns the text since the last call."""

    def __init__(self) -> None:
        self._pieces: list[str] = []

    def taken(self) -> str:
        text = "".join(self._pieces)
        self._pieces.clear()
        return text

    def comment(self, text: str) -> None: ...

    def pi(self, target: str, data: str | None = None) -> None: ...

    def close(self) -> None: ...


class _Page(_Collector):
    """HTML: white space as in a browser; each block is a line, with empty lines between paragraphs."""

    def __init__(self) -> None:
        super().__init__()
        self._skipped = self._pre = 0
        self._breaks, self._space, self._started = 0, False, False

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        tag = _local(tag)
        if tag in SKIPPED:
            self._skipped += 1
        self._break_at(tag)
        if tag == "br":
            self._pieces.append("\n")
            self._space = False
        elif tag in CELLS:
            self._space = True
        self._pre += tag == "pre"

    def end(self, tag: str) -> None:
        tag = _local(tag)
        if tag in SKIPPED:
            self._skipped -= 1
        self._pre -= tag == "pre"
        self._break_at(tag)

    def _break_at(self, tag: str) -> None:
        if tag in BLOCKS:
            self._breaks = max(self._breaks, 2 if tag in PARAGRAPHS else 1)

    def data(self, text: str) -> None:
        if self._skipped > 0:
            return
        if self._pre <= 0:
            text = SPACE.sub(" ", text)
            if text.startswith(" "):
                self._space, text = True, text[1:]
            if not text:
                return
        if self._breaks and self._started:
            self._pieces.append("\n" * self._breaks)
        elif self._space and self._started:
            self._pieces.append(" ")
        self._breaks, self._space, self._started = 0, False, True
        if self._pre <= 0 and text.endswith(" "):
            text, self._space = text[:-1], True
        self._pieces.append(text)

    def close(self) -> None:
        if self._started:
            self._pieces.append("\n")


class _Document(_Collector):
    """The XML of Word and OpenDocument: each paragraph is a line."""

    def __init__(self) -> None:
        super().__init__()
        self._open: list[str] = []
        self._skipped = 0

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        tag = _local(tag)
        self._open.append(tag)
        if tag in DOCUMENT_SKIPPED:
            self._skipped += 1
        elif not self._skipped:
            if tag in ("br", "cr", "line-break"):
                self._pieces.append("\n")
            elif tag == "tab" and self._open[-2:-1] != ["tabs"]:  # inside tabs, it defines a tab stop
                self._pieces.append("\t")
            elif tag == "s" and self._in_paragraph:
                count = next((value for name, value in attributes.items() if _local(name) == "c"), "1")
                self._pieces.append(" " * min(int(count) if count.isdecimal() else 1, 1000))

    def end(self, tag: str) -> None:
        tag = _local(tag)
        self._open.pop()
        if tag in DOCUMENT_SKIPPED:
            self._skipped -= 1
        elif tag in DOCUMENT_PARAGRAPHS and not self._skipped:
            self._pieces.append("\n")

    def data(self, text: str) -> None:
        if self._skipped or not self._in_paragraph:
            return
        if "r" in self._open and self._open[-1] != "t":  # in a Word run, only w:t has text
            return
        self._pieces.append(text)

    def doctype(self, name: str, public: str | None, system: str | None) -> None:
        raise ValueError("it declares XML entities, which are not allowed")

    @property
    def _in_paragraph(self) -> bool:
        return any(tag in DOCUMENT_PARAGRAPHS for tag in self._open)


def html_pieces(content: Iterable[bytes], encoding: str = "utf-8") -> Iterator[str]:
    """The text of an HTML page."""
    from lxml import etree

    page = _Page()
    parser = etree.HTMLParser(
        target=page, encoding=encoding.removesuffix("-sig"), no_network=True, huge_tree=False
    )
    yield from _pieces(parser, page, content)


def document_pieces(content: Iterable[bytes]) -> Iterator[str]:
    """The text of Word's document.xml, or of OpenDocument's content.xml."""
    from lxml import etree

    document = _Document()
    parser = etree.XMLParser(target=document, resolve_entities=False, no_network=True, huge_tree=False)
    yield from _pieces(parser, document, content)


def _pieces(parser: Any, collector: _Collector, content: Iterable[bytes]) -> Iterator[str]:
    fed = False
    for piece in content:
        parser.feed(piece)
        fed = True
        yield collector.taken()
    if fed:
        parser.close()
        yield collector.taken()


def spine(read: Callable[[str], bytes]) -> tuple[str, list[str]]:
    """The path of an EPUB's package document, and the paths of its chapters relative to that, in order."""
    from lxml import etree

    def parsed(name: str) -> Any:
        parser = etree.XMLParser(resolve_entities=False, no_network=True, huge_tree=False)
        return etree.fromstring(read(name), parser)

    package = next((str(node.get("full-path")) for node in parsed(CONTAINER).iter("{*}rootfile")), None)
    if package is None:
        raise ValueError(f"{CONTAINER} names no book")
    root = parsed(package)
    files = {item.get("id"): item.get("href") for item in root.iter("{*}item")}
    listed = [files.get(item.get("idref")) for item in root.iter("{*}itemref")]
    return package, [str(href) for href in listed if href]


def encrypted(content: bytes) -> set[str]:
    """The encrypted files of an EPUB, given its META-INF/encryption.xml."""
    from lxml import etree

    root = etree.fromstring(
        content, etree.XMLParser(resolve_entities=False, no_network=True, huge_tree=False)
    )
    return {unquote(str(node.get("URI"))) for node in root.iter("{*}CipherReference")}


def declared_encoding(head: bytes) -> str | None:
    """The encoding that a page declares in its first bytes, as a browser interprets it; None without one."""
    for mark, name in MARKS.items():
        if head.startswith(mark):
            return name
    declared = DECLARED.search(head)
    if not declared:
        return None
    try:
        name = known_encoding(declared[1].decode())
    except UnusableTextError:
        return None
    # a declaration in ASCII is not in UTF-16 or UTF-32, and browsers read Latin-1 as Windows-1252
    if name.startswith(("utf-16", "utf-32", "ascii")):
        return None
    return "cp1252" if name == "iso8859-1" else name


def _local(tag: str) -> str:
    return tag.rpartition("}")[2]
