"""Decodes files in any text encoding that Python knows, in pieces."""

from __future__ import annotations

import codecs
import io
import re
from collections.abc import Iterator

from app.intake.findings import FileRefusedError, Finding, printable_name, unusable
from app.intake.guesses import (
    COMMON,
    GUESSED_FROM,
    ISO_2022,
    as_utf8,
    guessed_wide,
    is_binary,
    reads_well,
    suggestion,
)
from app.store.files import Source

PIECE = 1 << 20  # bytes read at a time
NOT_OF_FILES = {"idna", "punycode", "undefined", "unicode-escape", "raw-unicode-escape", "mbcs", "oem"}
# for each mark, the encodings that accept it, the one to suggest first; longer marks come first, because the
# UTF-32-LE mark begins with the UTF-16-LE mark
BYTE_ORDER_MARKS = {
    codecs.BOM_UTF32_LE: ("utf-32", "utf-32-le"),
    codecs.BOM_UTF32_BE: ("utf-32", "utf-32-be"),
    codecs.BOM_UTF16_LE: ("utf-16", "utf-16-le"),
    codecs.BOM_UTF16_BE: ("utf-16", "utf-16-be"),
}
NEED_A_MARK = ("utf-16", "utf-32")  # these codecs raise an error if there is no mark
UTF_8 = ("utf-8", "utf-8-sig")
END_OF_FILE = "\x1a"  # Ctrl-Z, the end-of-file mark of DOS
MAX_END_MARKS = 4096  # CP/M filled the last block with them
SURROGATE = re.compile("[\ud800-\udfff]")
LONE_SURROGATE = re.compile(rb"\xed[\xa0-\xbf][\x80-\xbf]")  # written by some programs in place of UTF-8


def known_encoding(name: str) -> str:
    """Python's name of a text encoding. Raises UnusableTextError if Python does not know it."""
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
    """The text of a file in pieces, without a byte order mark, with \\n line endings.

    Ctrl-Z characters at the end are removed, with a warning in `findings`. Raises FileRefusedError.
    """
    name = printable_name(source.name)
    decoder = _Decoder(name, encoding)
    held, started = "", False
    while True:
        piece = source.content.read(PIECE)
        text = decoder.decode(piece)
        if text and not started:
            text, started = text.removeprefix("\ufeff"), True
            if encoding not in UTF_8 and (reads := as_utf8(piece)):
                message = (
                    f"{name} is read as {encoding}, but it is valid UTF-8 and would read {reads!r}: if that "
                    f"is correct, send it with encoding=utf-8"
                )
                findings.append(Finding("warning", "valid_utf8", message, None, name))
        text = held + text
        stripped = text.rstrip(END_OF_FILE)
        held = text[len(stripped) :]
        if len(held) > MAX_END_MARKS:
            stripped, held = text, ""
        if stripped:
            yield stripped
        if not piece:
            break
    if held:
        message = f"{name} ends in U+001A, the end-of-file mark of DOS, which is removed"
        findings.append(Finding("warning", "end_mark", message, None, name))


class _Decoder:
    """Decodes a file in pieces; an empty piece marks the end."""

    def __init__(self, name: str, encoding: str) -> None:
        self._name, self._encoding = name, encoding
        self._inner = codecs.getincrementaldecoder(encoding)("strict")
        self._decoder = io.IncrementalNewlineDecoder(self._inner, translate=True)
        self._base = 0  # offset of the next piece, in bytes

    def decode(self, piece: bytes) -> str:
        if self._base == 0:
            self._refuse_other(piece)
        pending = self._pending()
        try:
            text: str = self._decoder.decode(piece, final=not piece)
        except UnicodeDecodeError as error:
            position = self._base - len(pending) + error.start
            raise self._refused(position, error.object, error.start) from None
        except Exception as error:  # some codecs raise other errors, such as UnicodeError without a position
            raise self._refused(self._base, piece, 0, str(error)) from None
        if surrogate := SURROGATE.search(text):
            point = f"U+{ord(surrogate[0]):04X}"
            message = f"{self._name} holds {point}, half of a surrogate pair: it is not {self._encoding}"
            raise FileRefusedError("half_character", message, self._base, self._name)
        self._base += len(piece)
        return text

    def _pending(self) -> bytes:
        try:
            return bytes(self._inner.getstate()[0])
        except Exception:  # some codecs do not have this state
            return b""

    def _refuse_other(self, piece: bytes) -> None:
        """Raises FileRefusedError if the file is evidently in another encoding, even if it can be decoded."""
        for mark, others in BYTE_ORDER_MARKS.items():
            if piece.startswith(mark):
                if self._encoding in others:
                    return
                message = (
                    f"{self._name} is {others[0]}, according to its byte order mark: send it with "
                    f"encoding={others[0]}"
                )
                raise self._other(message, 0)
        sample = piece[:GUESSED_FROM]
        if (
            guessed_wide(sample)
            and self._encoding not in NEED_A_MARK
            and not reads_well(sample, self._encoding)
        ):
            raise self._other(f"{self._name} has zero bytes, as in UTF-16", piece.index(0), piece)
        switch = ISO_2022.search(piece)
        if switch and self._encoding == "utf-8":
            message = f"{self._name} has escape sequences that switch character sets, as in ISO-2022"
            raise self._other(message, switch.start(), piece)

    def _other(self, message: str, position: int, piece: bytes = b"") -> FileRefusedError:
        code = "not_utf8" if self._encoding == "utf-8" else "wrong_encoding"
        if piece:
            message = f"{message}. {suggestion(piece, position, self._encoding)}"
        return FileRefusedError(code, message, position, self._name)

    def _refused(self, position: int, data: bytes, index: int, reason: str = "") -> FileRefusedError:
        code = "not_utf8" if self._encoding == "utf-8" else "wrong_encoding"
        what = f"byte 0x{data[index]:02x} at offset {position:,}" if index < len(data) else "it is truncated"
        if LONE_SURROGATE.match(data, index):
            point = data[index : index + 3].decode("utf-8", "surrogatepass")
            message = (
                f"{self._name} holds U+{ord(point):04X} at offset {position:,}, half of a surrogate pair"
            )
            return FileRefusedError(code, message, position, self._name)
        if is_binary(data, index):
            message = f"{self._name} is a binary file, not a text: save its content as plain text"
            return FileRefusedError("not_text", message, position, self._name)
        message = f"{self._name} is not {self._encoding}: {reason or what}"
        advice = suggestion(data, index, self._encoding)
        return FileRefusedError(code, f"{message}. {advice}", position, self._name)
