"""The code of the tutorial, and the cell in CONTRIBUTING that it refers to, work as described."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import model.cells
from model.cells import CELLS
from tests.model import test_gradcheck

ROOT = Path(__file__).parents[1]
TUTORIAL = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
RIGHT, WRONG = "da = dh * (1 - h**2)", "da = dh * (1 + h**2)"


def lesson(folder: Path) -> dict[str, float]:
    """The relative error of each gradient that the script of the page prints for the model in `folder`."""
    [code] = re.findall(r"```python\n(.*?)```", TUTORIAL, re.DOTALL)
    (folder / "lesson.py").write_text(code, encoding="utf-8")
    command = [sys.executable, "lesson.py"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=True)
    return {name: float(error) for name, error in re.findall(r"^(\S+) +(\d\S*e\S+)$", done.stdout, re.M)}


def test_script_of_the_tutorial_finds_correct_gradients(tmp_path):
    shutil.copytree(ROOT / "model", tmp_path / "model")
    errors = lesson(tmp_path)
    assert len(errors) == 5
    assert max(errors.values()) < 1e-12


def test_script_of_the_tutorial_detects_a_wrong_sign(tmp_path):
    shutil.copytree(ROOT / "model", tmp_path / "model")
    reference = tmp_path / "model" / "reference.py"
    source = reference.read_text(encoding="utf-8")
    assert f"`{RIGHT}` to `{WRONG}`" in TUTORIAL
    assert source.count(RIGHT) == 1
    reference.write_text(source.replace(RIGHT, WRONG), encoding="utf-8")
    errors = lesson(tmp_path)
    assert {name for name, error in errors.items() if error > 0.9} == {"layer0.U", "layer0.W", "layer0.b"}
    assert max(errors["V"], errors["c"]) < 1e-12


@pytest.mark.parametrize("layers", [1, 2])
def test_cell_in_contributing_has_correct_gradients(monkeypatch, layers):
    [code] = re.findall(r"```python\n(class Leaky.*?)\nCELLS = ", CONTRIBUTING, re.DOTALL)
    names = dict(vars(model.cells))
    exec(code, names)
    monkeypatch.setitem(CELLS, "leaky", names["Leaky"]())
    test_gradcheck.test_parameters_and_initial_state_pass_complex_step("leaky", layers, 0)
