"""The documentation's examples run, and its tables are whole."""

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

DOCS = Path(__file__).parents[1] / "docs"
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
    # the network of the tests is too small to have seen an upper-case letter
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
    """In the table of metrics without the prefix, in the alerts with it; a reason is one that is counted."""
    text = (DOCS / "operations.md").read_text(encoding="utf-8")
    assert client.post("/generate", json={"length": 5}).status_code == 200
    told = client.get("/metrics").text
    there = set(re.findall(r"^# TYPE (\w+) ", told, re.MULTILINE))
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
    assert names | used <= there, (names | used) - there


def default_of(function: object, parameter: str) -> float:
    default: float = inspect.signature(function).parameters[parameter].default  # type: ignore[arg-type]
    return default


@pytest.mark.parametrize(
    ("page", "sentence"),
    [
        ("operations.md", f"exploded more than {ROLLBACKS} times"),
        ("operations.md", f"tries again every {default_of(Worker, 'retry_seconds'):g} seconds"),
        ("operations.md", f"at most {Cadence().checkpoint_seconds:g} seconds of them"),
        ("operations.md", f"a second more for every {SLOWEST // 1000} kB"),
    ],
)
def test_number_in_a_page_is_that_of_the_code(page: str, sentence: str):
    text = " ".join((DOCS / page).read_text(encoding="utf-8").split())
    assert sentence in text, f"docs/{page} does not say {sentence!r}"


def test_presets_end_by_steps_as_documented():
    assert "Every preset ends by steps" in (DOCS / "decisions.md").read_text(encoding="utf-8")
    assert {config.minutes for config in PRESETS.values()} == {0.0}
