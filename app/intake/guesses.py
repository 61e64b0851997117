"""Guesses the encoding of a file that cannot be decoded as declared, to suggest it in the error message."""

from __future__ import annotations

import codecs
import re
import unicodedata

from charset_normalizer import CharsetMatch, from_bytes
from charset_normalizer.cd import coherence_ratio

from app.intake.findings import printable_name

GUESSED_FROM = 1 << 15  # bytes before and after the position that cannot be decoded
SHOWN_BEFORE, SHOWN = 20, 60  # characters of a preview
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
# if a file reads the same in several encodings, the first of these is suggested
PREFERRED = (
    *COMMON,
    *("iso8859-2", "cp1253", "cp1254", "mac-roman", "cp1255", "cp1256", "cp1257", "cp437", "cp850", "cp866"),
    *("euc_jp", "euc_kr", "iso2022_jp", "iso2022_kr"),
)
CHAOS = 0.1  # maximum excess of charset-normalizer's `chaos` over that of the best match
# penalty on the language coherence of an encoding that is not in COMMON, or not in PREFERRED
LESS_COMMON, RARE_ENCODING = 0.05, 0.25
WIDE = ("utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be")
WELL_READ = 0.9  # minimum fraction of letters, digits, marks and spaces in a text
EIGHT_BIT = 0.9  # fraction of printable ASCII bytes above which a file with few zero bytes is not UTF-16
SHORTEST_WIDE = 8  # minimum number of bytes to recognise UTF-16
BINARY_BYTES = bytes((*range(9), 11, *range(14, 26), 28, 29, 30, 31))
BINARY = 0.02  # fraction of BINARY_BYTES above which a file is binary
MANY_ZEROS = 0.2  # fraction of zero bytes above which EIGHT_BIT does not apply
PRINTABLE = bytes((*range(32, 127), 9, 10, 13))
IN_WORDS = "'-\u00ad·‐‑–—’‘…״׳"  # punctuation that may be between two letters
IDEOGRAPHS = "\u2e80"  # from here on words are not separated by spaces
SIGNS = "¶§"  # which are not next to a letter
ISO_2022 = re.compile(rb"\x1b\$(?:[@AB]|[()][A-Z])|\x1b\(J")  # escape sequences that switch character sets


def suggestion(data: bytes, index: int, tried: str) -> str:
    """Advice on the encoding of a file that cannot be decoded at data[index], with a preview of its text."""
    common = f"common encodings are {', '.join(COMMON)}"
    start = max(0, index - GUESSED_FROM) // 4 * 4
    sample = data[start : index + GUESSED_FROM]
    guess = guessed(sample)
    if guess is None or guess == tried:
        return f"Send it with its encoding; {common}"
    before = len(sample[: index - start].decode(guess, "replace"))
    text = sample.decode(guess, "replace")
    shown = " ".join(printable_name(text[max(0, before - SHOWN_BEFORE) : before + SHOWN]).split("\ufffd"))
    return (
        f"It looks like {guess} and would read {' '.join(shown.split())!r}: send it with "
        f"encoding={guess} (charloom train: --encoding {guess}); other {common}"
    )


def as_utf8(data: bytes) -> str:
    """A preview of bytes as UTF-8; empty if they are ASCII or not UTF-8. `data` may be truncated."""
    sample = data[:GUESSED_FROM]
    if sample.isascii():
        return ""
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(sample)
    except UnicodeDecodeError:
        return ""
    first = next((place for place, each in enumerate(text) if not each.isascii()), 0)
    return " ".join(printable_name(text[max(0, first - SHOWN_BEFORE) : first + SHOWN]).split())


def guessed(sample: bytes) -> str | None:
    """Python's name of the most likely encoding of some bytes; None if they are probably not text."""
    if wide := guessed_wide(sample):
        return wide
    if b"\0" in sample:
        return None
    matches = list(from_bytes(sample, cp_exclusion=["utf_7", "ascii"]))
    chaos = CHAOS + min((match.chaos for match in matches), default=0.0)
    ranked = [_rank(match) for match in matches if match.chaos <= chaos]
    return min(ranked)[-1] if ranked else None


def guessed_wide(sample: bytes) -> str | None:
    """The variant of UTF-16 or UTF-32 of bytes without a byte order mark; None if they are neither."""
    zeros = sample.count(0)
    if not zeros or len(sample) < SHORTEST_WIDE:
        return None
    eight_bit = 1 - len(sample.translate(None, PRINTABLE)) / len(sample)
    if zeros < MANY_ZEROS * len(sample) and eight_bit > EIGHT_BIT:
        return None
    return next((name for name in WIDE if reads_well(sample, name)), None)


def reads_well(sample: bytes, encoding: str) -> bool:
    """Whether bytes, possibly truncated, are almost only letters, digits, marks and spaces."""
    try:
        text = codecs.getincrementaldecoder(encoding)().decode(sample)
    except UnicodeError:
        return False
    readable = sum(unicodedata.category(each)[0] in "LMNPZ" or each in "\t\n\r" for each in text)
    # in the wrong byte order Latin letters become ideographs
    usual = (
        sum(ord(each) < 0x600 for each in text) if sample.count(0) > MANY_ZEROS * len(sample) else readable
    )
    return bool(text) and "\0" not in text and min(readable, usual) > WELL_READ * len(text)


def is_binary(data: bytes, index: int) -> bool:
    """Whether bytes that cannot be decoded at data[index] are probably not text in any encoding."""
    sample = data[max(0, index - GUESSED_FROM) : index + GUESSED_FROM]
    binary = len(sample) - len(sample.translate(None, BINARY_BYTES))
    return binary > BINARY * len(sample) and guessed(sample) is None


def _rank(match: CharsetMatch) -> tuple[float, float, int, str]:
    """A sort key, lowest for the most likely match; its last element is the encoding's name."""
    text = str(match)
    names = {codecs.lookup(name).name for name in match.could_be_from_charset}
    order = {codecs.lookup(name).name: place for place, name in enumerate(PREFERRED)}
    place, name = min((order.get(name, len(order)), name) for name in names)
    language = max((share for _, share in coherence_ratio(text, 0.1)), default=0.0) - match.chaos
    if place >= len(COMMON):
        language -= RARE_ENCODING if place == len(order) else LESS_COMMON
    return round(_oddities(text) / max(1, len(text)), 3), -round(language, 2), place, name


def _oddities(text: str) -> int:
    """The number of implausible characters: capitals or symbols inside words, and mixed scripts."""
    odd = 0
    for before, each, after in zip(text, text[1:], f"{text[2:]} ", strict=False):
        if before.isascii() and each.isascii():
            continue
        capital = before.islower() and each.isupper()
        mixed = before.isalpha() and each.isalpha() and (before < "\u0250") != (each < "\u0250")
        kind = unicodedata.category(each)
        sign = kind[0] == "P" and each not in IN_WORDS and _is_in_word(before, each, after)
        odd += capital or mixed or sign or kind in ("So", "Sk", "Sm", "Cc", "Cn", "Co")
    return odd


def _is_in_word(before: str, each: str, after: str) -> bool:
    """Whether punctuation has letters on both sides, or a sign on one; not in scripts without spaces."""
    letters = sum(one.isalpha() and one < IDEOGRAPHS for one in (before, after))
    return letters == 2 or (letters == 1 and each in SIGNS)
