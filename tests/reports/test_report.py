"""The report of a run, and the words counted in its passages."""

import re
import subprocess
import sys

import httpx
import pytest

from app.cli import main
from app.reports.word_counts import compare, learn
from app.store import history

TEXT = "The king said to Anna, that Anna and Otto would go. They went; the king stayed. Zounds!"


def test_words_names_and_single_characters_are_counted():
    found = compare(learn(TEXT), ["x king Anna xyz They kin", "the KING, Otto said Zounds now", "12 34"])
    assert [(passage.words, passage.known) for passage in found.passages] == [(4, 3), (4, 4), (0, 0)]
    assert found.passages[2].share is None
    assert found.names == [("Anna", 1), ("Otto", 1)]
    assert found.words == [("king", 2), ("said", 1), ("they", 1), ("zounds", 1)]
    single = dict(found.single)
    assert single["Z"] is True
    assert single["!"] is False
    assert "k" not in single


def test_possibly_truncated_words_are_not_counted():
    [passage] = compare(learn("one two three"), ["ne two thre"]).passages
    assert (passage.words, passage.known) == (1, 1)


def test_missing_folder_is_reported_before_anything_is_computed(trained_root, capsys, monkeypatch):
    monkeypatch.setattr("app.commands.report.draw_loss_curve", pytest.fail)
    monkeypatch.setattr("app.commands.report.checked_model", pytest.fail)
    assert main(["report", "gru", "--store", str(trained_root), "--out", "/missing/report.html"]) == 2
    assert capsys.readouterr().err == "charloom: /missing: No such file or directory\n"


@pytest.mark.slow
@pytest.mark.parametrize("run", ["classic", "gru"])
def test_report_page_is_complete_and_self_contained(client: httpx.Client, run):
    answer = client.get("/report", params={"model": run})
    assert answer.headers["content-type"].startswith("text/html")
    policy = answer.headers["content-security-policy"]
    assert "'unsafe" not in policy
    page = answer.text
    for title in ("The gradients", "The loss", "Before training", "After 20 updates", "The best network"):
        assert title in page
    assert len(re.findall(r"<td>\d\.\de-\d\d</td>", page)) >= 10
    assert ("the assignment" in page.split("<h2>The loss")[0]) == (run == "classic")
    assert 'src="data:image/svg+xml;base64,' in page
    assert "<script" not in page
    assert not re.search(r'(src|href)="(?!data:)', page)


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("*/*", "text/html"),
        ("text/markdown", "text/markdown"),
        ("text/html, text/markdown;q=0.5", "text/html"),
    ],
)
def test_report_format_follows_the_accept_header(client: httpx.Client, accept: str, kind: str):
    answer = client.get("/report", headers={"accept": accept})
    assert answer.headers["content-type"].startswith(kind)
    assert answer.headers["vary"] == "accept"


def test_report_is_available_as_markdown(client: httpx.Client):
    answer = client.get("/report", headers={"accept": "text/markdown"})
    assert answer.headers["content-type"].startswith("text/markdown")
    assert answer.text.startswith("# A recurrent network learns to write: gru")
    assert "|---|" in answer.text


@pytest.mark.slow
def test_generated_text_is_escaped_in_the_report(trained, serving):
    run = trained.get("gru")
    hostile = "<script>alert(1)</script>"
    samples = [sample | {"text": hostile} for sample in run.samples()]
    run.samples_path.write_bytes(b"".join(map(history.encode, samples)))
    page = serving(trained.root).get("/report", params={"model": "gru"}).text
    assert hostile not in page
    assert "&lt;script&gt;" in page


def test_report_of_an_unknown_run_is_404(client: httpx.Client):
    assert client.get("/report", params={"model": "nobody"}).status_code == 404


@pytest.mark.slow
def test_report_command_writes_one_file(trained, tmp_path):
    command = [sys.executable, "-P", "-m", "app.cli", "report", "classic", "--store", str(trained.root)]
    done = subprocess.run(
        [*command, "--out", str(tmp_path / "r.html")],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "What to look for" in (tmp_path / "r.html").read_text(encoding="utf-8")
