"""The progress of the training that `charloom serve` prints."""

from pathlib import Path

import pytest

from app.commands.narration import Narrator, last_words, line_of, say
from app.store.records import Status
from app.store.run import Run
from app.store.run_store import RunStore
from tests.support.runs import gru_like, small_text


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return RunStore(tmp_path).create("notes", gru_like(steps=4000), small_text(), "notes.txt")


def moved(run: Run, **changes: object) -> Status:
    facts = {
        "state": "training",
        "step": 1250,
        "steps": 4000,
        "fraction": 0.3125,
        "heartbeat": 100.0,
        "seconds": 30.0,
    }
    status = Status(**(facts | changes))
    run.write_status(status)
    return status


def test_line_names_run_percent_loss_and_time_left(run: Run):
    status = moved(run, validation_loss=1.5, expected_end=230.0)
    assert line_of(run, status) == (
        "notes  31%  update 1,250 of 4,000  loss 1.50, as if among 4.5 characters  2:10 left"
    )


def test_line_shows_the_held_out_loss_with_its_update(run: Run):
    measured = {"smooth_loss": 1.25, "validation_loss": 1.5}
    status = moved(run, **measured, validation_step=1000)
    assert "  loss 1.50 at update 1,000, as if among 4.5 characters" in line_of(run, status)
    assert "  loss 1.50, as if" in line_of(run, moved(run, **measured, validation_step=1250))


def test_line_does_not_show_the_held_out_loss_of_update_0(run: Run):
    status = moved(run, smooth_loss=1.25, validation_loss=4.57, validation_step=0)
    assert "  loss 1.25, as if among 3.5 characters" in line_of(run, status)


def test_time_left_is_not_estimated_from_the_first_updates(run: Run):
    status = moved(run, seconds=0.1, heartbeat=100.0, expected_end=100_000.0)
    assert "left" not in line_of(run, status)


def test_last_words_of_a_sample_are_shown_without_controls(run: Run, capsys):
    run.samples_path.write_text(
        '{"step": 10, "kind": "sample", "text": "to be\\n\\u001b[2Jor not", "time": 1.0}\n', "utf-8"
    )
    say(*last_words(run))
    assert capsys.readouterr().err == "“…to be \\x1b[2Jor not”\n"


def test_runs_are_reported_once_for_each_progress(run: Run, capsys):
    narrator = Narrator(RunStore(run.path.parent))
    assert not narrator.tell()
    moved(run)
    assert narrator.tell()
    assert not narrator.tell()
    assert capsys.readouterr().err.count("notes  31%") == 1


def test_final_message_names_the_saved_step_and_how_to_continue(run: Run, capsys):
    narrator = Narrator(RunStore(run.path.parent))
    narrator.say_goodbye()
    assert capsys.readouterr().err == "Stopped.\n"
    moved(run, state="queued")
    narrator.say_goodbye()
    assert capsys.readouterr().err == (
        "notes is saved at update 1,250 of 4,000.\nStopped. The same command continues from there.\n"
    )
