"""Encodings: every one that Python knows for texts, decoded in pieces; a suggestion where one is wrong."""

from __future__ import annotations

import codecs
import io
import re
from collections.abc import Iterator

from charset_normalizer import from_bytes

from app.intake.findings import FileRefusedError, Finding, printable_name, unusable
from app.store.files import Source

PIECE = 1 << 20  # bytes read at once
COMMON = (
    "utf-8",
    "utf-16",
    "cp1252",
    "latin-1",
    "iso8859-15",
    "cp1250",
    "cp1251",
    "koi8-r",
    "shift_jis",
    "gb18030",
    "big5",
)
NOT_OF_FILES = {"idna", "punycode", "undefined", "unicode-escape", "raw-unicode-escape", "mbcs", "oem"}
# the longer marks first: UTF-16's little-endian mark also begins UTF-32's
BYTE_ORDER_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
END_OF_FILE = "\x1a"  # Ctrl-Z, which ends a file of DOS
SURROGATE = re.compile("[\ud800-\udfff]")
LONE_SURROGATE = re.compile(rb"\xed[\xa0-\xbf][\x80-\xbf]")  # as some programs write it in UTF-8
GUESSED_FROM = 1 << 15  # bytes before and after the place that cannot be decoded
SHOWN_BEFORE, SHOWN = 20, 60  # characters of a preview
ABOUT_EQUAL = 0.13  # difference in how much of a sample looks like a known language
SUSPECT_ZEROS = 0.2  # share of zero bytes, above which a file is UTF-16 or no text


def known_encoding(name: str) -> str:
    """Python's name of an encoding for texts. Raises UnusableTextError."""
    try:
        info = codecs.lookup(name)
    except (LookupError, ValueError):
        info = None
    if info is None or info.name in NOT_OF_FILES or not getattr(info, "_is_text_encoding", True):
        given = printable_name(name)[:40]
        message = f"encoding must be one that Python knows, such as {', '.join(COMMON)}. Given: {given!r}"
        raise unusable([Finding("refusal", "unknown_encoding", message)])
    return info.name


def decoded(source: Source, encoding: str, findings: list[Finding]) -> Iterator[str]:
    """The text of a file piece by piece, without byte order mark, every line end a line feed.

    A Ctrl-Z at the end, as DOS wrote it, is left out and added to `findings`. Raises FileRefusedError.
    """
    name = printable_name(source.name)
    decoder = _Decoder(name, encoding)
    held, started = "", False
    while True:
        piece = source.content.read(PIECE)
        text = decoder.decode(piece)
        if text and not started:
            text, started = text.removeprefix("\ufeff"), True
        text, held = held + text, ""
        if stripped := text.rstrip(END_OF_FILE):
            text, held = stripped, text[len(stripped) :]
        elif text:
            text, held = "", text
        if text:
            yield text
        if not piece:
            break
    if held:
        message = f"{name} ends in U+001A, the end mark of DOS files, which is left out"
        findings.append(Finding("warning", "end_mark", message, None, name))


class _Decoder:
    """Decodes a file piece by piece; an empty piece ends it."""

    def __init__(self, name: str, encoding: str) -> None:
        self._name, self._encoding = name, encoding
        self._inner = codecs.getincrementaldecoder(encoding)("strict")
        self._decoder = io.IncrementalNewlineDecoder(self._inner, translate=True)
        self._base = 0  # of the next piece, in bytes

    def decode(self, piece: bytes) -> str:
        if self._base == 0 and self._encoding == "utf-8":
            self._refuse_wide(piece)
        pending = self._pending()
        try:
            text: str = self._decoder.decode(piece, final=not piece)
        except UnicodeDecodeError as error:
            position = self._base - len(pending) + error.start
            raise self._refused(position, error.object, error.start) from None
        except Exception as error:  # codecs raise what they like, such as UnicodeError without a position
            raise self._refused(self._base, piece, 0, str(error)) from None
        if surrogate := SURROGATE.search(text):
            point = f"U+{ord(surrogate[0]):04X}"
            message = f"{self._name} holds {point}, half of a character: it is not {self._encoding}"
            raise FileRefusedError("half_character", message, self._base, self._name)
        self._base += len(piece)
        return text

    def _pending(self) -> bytes:
        try:
            return bytes(self._inner.getstate()[0])
        except Exception:  # of a codec that keeps no such state
            return b""

    def _refuse_wide(self, piece: bytes) -> None:
        for mark, other in BYTE_ORDER_MARKS.items():
            if piece.startswith(mark):
                message = f"{self._name} is {other}, by its byte order mark: send it with encoding={other}"
                raise FileRefusedError("not_utf8", message, 0, self._name)
        if _guessed_wide(piece[:GUESSED_FROM]):
            message = f"{self._name} has zero bytes, as UTF-16 has. {_suggestion(piece, 0, self._encoding)}"
            raise FileRefusedError("not_utf8", message, piece.index(0), self._name)

    def _refused(self, position: int, data: bytes, index: int, reason: str = "") -> FileRefusedError:
        code = "not_utf8" if self._encoding == "utf-8" else "wrong_encoding"
        what = f"byte 0x{data[index]:02x} at offset {position:,}" if index < len(data) else "it is cut off"
        if LONE_SURROGATE.match(data, index):
            point = data[index : index + 3].decode("utf-8", "surrogatepass")
            message = f"{self._name} holds U+{ord(point):04X} at offset {position:,}, half of a character"
            return FileRefusedError(code, message, position, self._name)
        message = f"{self._name} is not {self._encoding}: {reason or what}"
        advice = _suggestion(data, index, self._encoding)
        return FileRefusedError(code, f"{message}. {advice}", position, self._name)


def _suggestion(data: bytes, index: int, tried: str) -> str:
    """What to declare instead, with a preview of how the file would read; or that it hardly is a text."""
    common = f"common encodings are {', '.join(COMMON)}"
    start = max(0, index - GUESSED_FROM) // 4 * 4
    sample = data[start : index + GUESSED_FROM]
    guess = guessed(sample)
    if guess is None or guess == tried:
        return f"Send it with the encoding that it has; {common}"
    before = len(sample[: index - start].decode(guess, "replace"))
    text = sample.decode(guess, "replace")
    shown = " ".join(printable_name(text[max(0, before - SHOWN_BEFORE) : before + SHOWN]).split("\ufffd"))
    return (
        f"It looks like {guess}, in which it reads {' '.join(shown.split())!r}: send it with "
        f"encoding={guess} (charloom train: --encoding {guess}); other {common}"
    )


def guessed(sample: bytes) -> str | None:
    """The likeliest encoding of some bytes, as Python names it; None if they hardly are a text."""
    if wide := _guessed_wide(sample):
        return wide
    if b"\0" in sample:
        return None
    matches = from_bytes(sample, cp_exclusion=["utf_7", "ascii"])
    if not matches:
        return None
    # of about equally likely ones, and of those in which the sample reads the same, the commonest
    best = matches[0]
    equal = [
        match
        for match in matches
        if match.chaos <= best.chaos and match.coherence >= best.coherence - ABOUT_EQUAL
    ]
    likely = {_python_name(name) for match in equal for name in match.could_be_from_charset}
    first = next((name for name in map(_python_name, COMMON) if name in likely), None)
    return first or _python_name(best.encoding)


def _guessed_wide(sample: bytes) -> str | None:
    """UTF-16 without a byte order mark shows by its zeros, which are every second byte of most texts."""
    if sample.count(0) < SUSPECT_ZEROS * max(1, len(sample)):
        return None
    for name in ("utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"):
        width = 4 if "32" in name else 2
        try:
            text = sample[: len(sample) // width * width].decode(name)
        except UnicodeError:
            continue
        if text and "\0" not in text and sum(ord(character) < 0x3000 for character in text) > 0.9 * len(text):
            return name
    return None


def _python_name(name: str) -> str:
    return codecs.lookup(name).name
