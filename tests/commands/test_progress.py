import io
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from app.commands.progress import BLOCKS, LineDisplay, LiveDisplay, chart, duration, make_display, summary
from app.store.records import Status
from app.store.run_store import RunStore
from app.training.trainer import train_run
from tests.support.runs import classic_like, small_text


@given(st.lists(st.floats(0, 10), min_size=1, max_size=200), st.integers(1, 80), st.integers(1, 10))
def test_chart_has_the_given_size_and_no_empty_columns(values: list[float], width: int, rows: int):
    lines = chart(values, width, rows)
    assert [len(line) for line in lines] == [min(width, len(values))] * rows
    assert all(column[-1] != " " for column in zip(*lines, strict=True))


def test_chart_follows_its_values():
    assert chart([8, 7, 6, 5, 4, 3, 2, 1], 8, 1) == [BLOCKS[:0:-1]]
    assert chart([3.0, 0.0], 2, 2) == ["█ ", "█▁"]
    assert chart([1.0, 3.0, 0.0, 0.0], 2, 1) == ["█▁"]
    assert chart([2.0, 2.0], 2, 2) == ["  ", "▁▁"]


def test_durations_are_formatted_as_clock_times():
    assert [duration(s) for s in (-3, 7.4, 754, 3723)] == ["0:00", "0:07", "12:34", "1:02:03"]


def test_summary_omits_unknown_values():
    assert summary(Status()) == "queued, step 0"
    status = Status(state="training", step=1500, steps=6000, loss=1.5, heartbeat=10.0, expected_end=75.0)
    assert summary(status) == "training, step 1,500 of 6,000, loss 1.5000, 1:05 left"
    assert summary(Status(state="failed", reason="why")) == "failed, step 0, why"


def test_progress_is_a_display_in_a_terminal_and_lines_in_a_pipe(tmp_path: Path):
    run = RunStore(tmp_path).create("my-run", classic_like(), small_text(), "small.txt")
    assert train_run(run, lambda: False)
    pipe, terminal = console(force_terminal=False), console(force_terminal=True)
    for display, kind in [(make_display(run, pipe), LineDisplay), (make_display(run, terminal), LiveDisplay)]:
        assert isinstance(display, kind)
        with display.shown():
            display.show(run.status)
    assert "my-run: finished, step 60 of 60, loss" in text_of(pipe)
    for part in ("my-run", "100%", "finished, step 60 of 60", "█", "passage of the best model at step 60"):
        assert part in text_of(terminal)
        assert "\x1b" not in text_of(pipe)


def console(force_terminal: bool) -> Console:
    file = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)
    return Console(file=file, force_terminal=force_terminal, width=80, height=40)


def text_of(console: Console) -> str:
    assert isinstance(console.file, io.TextIOWrapper)
    buffer = console.file.buffer
    assert isinstance(buffer, io.BytesIO)
    return buffer.getvalue().decode()
