"""With a new checkpoint every tenth of a second and 64 clients, every text is that of its checkpoint."""

from pathlib import Path

import pytest

from benchmarks.hot_swap import swap


@pytest.mark.slow
def test_text_written_during_swaps_is_that_of_its_checkpoint(tmp_path: Path):
    answers, written, wrong = swap(tmp_path / "checkpoints", seconds=3, count=64, every=0.1)
    assert {status for _, status, _ in answers} == {200}
    assert not wrong, wrong[0]
    assert len(answers) > 64
    models = {body["model"] for _, _, body in answers}
    assert len(models) > 3, f"{written} checkpoints were written, and texts came from {models}"
