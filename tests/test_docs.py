"""The documentation: examples run, tables are complete, links resolve, and the English is plain."""

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

from app.server.protocol import SLOWEST
from app.settings import PREFIX, Settings
from app.training.trainer import Cadence
from app.training.worker import Worker
from model.config import PRESETS
from model.guards import ROLLBACKS

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("*.md")) + sorted(ROOT.glob("*.md"))
LONGEST_LINE = 120
CODE_BLOCK = re.compile(r"^ *```.*?^ *```$|^    .*?$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\(([^)\s]+)\)")
# words that are not plain English; write "next to", "also", "report", "fixed", "occur" and the like
REFUSED_WORDS = re.compile(
    r"\b(besides?|told|tells|whoever|mended|stands?|for ever|by heart|the way on|of then|anew"
    r"|as (?:it|they) comes?|is no (?:number|folder|file)|puts? (?:it|them) down|lets? go"
    r"|tak(?:e|es|en) in)\b",
    re.IGNORECASE,
)
SERVER = "http://127.0.0.1:8000"
BLOCK = re.compile(r"```(sh|python)\n(.*?)```", re.DOTALL)
EXAMPLES = BLOCK.findall((DOCS / "api.md").read_text(encoding="utf-8"))


def test_documentation_has_examples():
    assert len(EXAMPLES) > 15
    assert all(SERVER in code for _, code in EXAMPLES)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("language", "code"), EXAMPLES, ids=[code.split("\n")[0][:50] for _, code in EXAMPLES]
)
def test_example_of_the_api_runs_unchanged(client, tmp_path, language, code):
    code = code.replace(SERVER, str(client.base_url).rstrip("/"))
    # the text of the tests has no upper-case letters
    code = code.replace("The ", "the ").replace("The%20", "the%20")
    if language == "sh":
        command = ["sh", "-c", code.replace("curl -s", "curl --fail -s")]
    else:
        command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr + done.stdout
    assert done.stdout or "-o " in code


def test_every_setting_is_in_the_table_of_operations():
    text = (DOCS / "operations.md").read_text(encoding="utf-8")
    rows = dict(re.findall(rf"^\| `{PREFIX}(\w+)` \| (.*?) \|", text, re.MULTILINE))
    expected = {}
    for name, field in Settings.model_fields.items():
        default = field.get_default()
        default = default.get_secret_value() if hasattr(default, "get_secret_value") else default
        expected[name.upper()] = f"`{default}`" if str(default) else "none"
    assert rows == expected


def test_every_metric_named_in_operations_exists(client):
    """The table of metrics omits the prefix, the alerts have it."""
    text = (DOCS / "operations.md").read_text(encoding="utf-8")
    assert client.post("/generate", json={"length": 5}).status_code == 200
    metrics = client.get("/metrics").text
    existing = set(re.findall(r"^# TYPE (\w+) ", metrics, re.MULTILINE))
    table = text[text.index("## Metrics") : text.index("## Logs")]
    names = {
        name if name.startswith("process_") else f"charloom_{name}"
        for row in re.findall(r"^\| (`.*?`) [^|]*\| (?:gauge|counter|histogram)", table, re.MULTILINE)
        for name in re.findall(r"`([a-z_]+)(?:\{[a-z_, ]+\})?`", row)
        if name != "charloom_"
    }
    alerts = text[text.index("## Watching") : text.index("## What to do when")]
    used = set(re.findall(r"\b((?:charloom|process)_\w+)", alerts))
    assert len(names) >= 20
    assert len(used) >= 6
    assert names | used <= existing, (names | used) - existing


def default_of(function: object, parameter: str) -> float:
    default: float = inspect.signature(function).parameters[parameter].default  # type: ignore[arg-type]
    return default


@pytest.mark.parametrize(
    ("page", "sentence"),
    [
        ("operations.md", f"exploded more than {ROLLBACKS} times"),
        ("operations.md", f"tries again every {default_of(Worker, 'retry_seconds'):g} seconds"),
        ("operations.md", f"at most {Cadence().checkpoint_seconds:g} seconds of them"),
        ("operations.md", f"one more second for every {SLOWEST // 1000} kB"),
    ],
)
def test_number_on_a_page_matches_the_code(page: str, sentence: str):
    text = " ".join((DOCS / page).read_text(encoding="utf-8").split())
    assert sentence in text, f"docs/{page} does not say {sentence!r}"


def test_presets_end_by_steps_as_documented():
    assert "Every preset ends by steps" in (DOCS / "decisions.md").read_text(encoding="utf-8")
    assert {config.minutes for config in PRESETS.values()} == {0.0}


def without_code(text: str) -> str:
    """The text with code blocks replaced by blanks, so that lines keep their numbers."""
    return CODE_BLOCK.sub(lambda block: re.sub(r"[^\n]", " ", block.group()), text)


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives to a page's headings."""
    headings = re.findall(r"^#+ (.*)$", without_code(page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken_links(page: Path) -> list[str]:
    broken = []
    for link in LINK.findall(without_code(page.read_text(encoding="utf-8"))):
        if link.startswith(("http:", "https:")):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name) if name else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    return broken


def pages(chosen: list[Path]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("page", chosen, ids=[str(page.relative_to(ROOT)) for page in chosen])


plain_pages = pages(PAGES)


@plain_pages
def test_page_has_no_refused_words(page: Path):
    lines = without_code(page.read_text(encoding="utf-8")).splitlines()
    found = [
        f"{page.name}:{number}: {word.group()}"
        for number, line in enumerate(lines, 1)
        for word in REFUSED_WORDS.finditer(line)
    ]
    assert found == []


@pages(PAGES)
def test_links_within_the_repository_resolve(page: Path):
    assert broken_links(page) == []


@plain_pages
def test_lines_of_page_are_wrapped(page: Path):
    lines = without_code(page.read_text(encoding="utf-8")).splitlines()
    long = [
        f"{page.name}:{number}: {len(line)} characters"
        for number, line in enumerate(lines, 1)
        if len(line.rstrip()) > LONGEST_LINE and not line.startswith(("|", "!["))
    ]
    assert long == []


def test_every_page_is_in_the_index():
    index = (DOCS / "README.md").read_text(encoding="utf-8")
    assert [page.name for page in DOCS.glob("*.md") if f"]({page.name})" not in index] == ["README.md"]


def test_every_test_named_in_a_page_exists():
    named = {path for page in PAGES for path in re.findall(r"tests/[\w/]+\.py", page.read_text("utf-8"))}
    assert len(named) > 40
    assert sorted(path for path in named if not (ROOT / path).is_file()) == []


@pytest.mark.parametrize("link", ["nothing.md", "operations.md#nothing", "#nothing", "../nothing/"])
def test_broken_link_is_found(tmp_path: Path, link: str):
    (tmp_path / "operations.md").write_text("# Operations\n", encoding="utf-8")
    page = tmp_path / "page.md"
    page.write_text(f"# Page\n[right](operations.md#operations) [wrong]({link})\n", encoding="utf-8")
    assert broken_links(page) == [link]
