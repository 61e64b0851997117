from hypothesis import given
from hypothesis import strategies as st

from app.store import history

records = st.lists(
    st.fixed_dictionaries(
        {"step": st.integers(0, 10**9), "text": st.text(), "loss": st.none() | st.floats(-9, 9)}
    )
)


@given(records, st.data())
def test_a_torn_last_line_costs_that_line_alone(written, data):
    lines = [history.encode(record) for record in written]
    whole = b"".join(lines)
    cut = data.draw(st.integers(0, len(whole)))
    read = history.decode(whole[:cut])
    assert read == written[: len(read)]
    assert sum(map(len, lines[: len(read) + 1])) >= cut - 1  # nothing whole was dropped


def test_append_and_read(tmp_path):
    path = tmp_path / "history.jsonl"
    assert history.read(path) == []
    history.append(path, [{"step": 0}, {"step": 5, "text": "line\nbreak ünïcode \u2028"}])
    history.append(path, [{"step": 10}])
    assert [record["step"] for record in history.read(path)] == [0, 5, 10]
    assert history.read(path)[1]["text"] == "line\nbreak ünïcode \u2028"


def test_up_to_keeps_what_a_resumed_run_will_not_write_again():
    assert history.up_to([{"step": 0}, {"step": 5}, {"step": 6}], 5) == [{"step": 0}, {"step": 5}]
