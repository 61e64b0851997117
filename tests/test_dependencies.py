"""pyproject.toml declares what the program imports; the locks match it and the installed versions."""

import ast
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from app.api.assets import Assets

ROOT = Path(__file__).parents[1]
LOCK = ROOT / "requirements"
# never imported: uvicorn and starlette load two of them, and pages load files of the other two
NOT_IMPORTED = {"uvloop", "python-multipart", "fastapi-offline", "youplot"}
SWEEP = {"optuna"}  # the extra for `charloom sweep`, which is not in the image
# dist/uPlot.iife.min.js and dist/uPlot.min.css of uplot 1.6.31 on the npm registry
UPLOT = {
    "uplot.iife.min.js": "2d27e8ad3d228164525ce213f9dc716f39b4e3aee0cc773fb3491c96cf4921a2",
    "uplot.min.css": "df630c6a8d6f8eeaff264b50f73ce5b114f646ffd9a0bb74f049b0a00135fa04",
}


def declared() -> dict[str, Requirement]:
    """The dependencies, with those of the extra that is installed in the image and by `make`."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extra = project["optional-dependencies"]["documents"]
    requirements = map(Requirement, [*project["dependencies"], *extra])
    return {canonicalize_name(one.name): one for one in requirements}


def imported() -> set[str]:
    """The distributions that app/ and model/ import, at the top of a module or within a function."""
    modules = set()
    for path in [*(ROOT / "app").rglob("*.py"), *(ROOT / "model").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                modules |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                modules.add(node.module.partition(".")[0])
    foreign = modules - sys.stdlib_module_names - {"app", "model"}
    owners = packages_distributions()
    # pydantic pins pydantic-core itself
    return {canonicalize_name(owners[module][0]) for module in foreign} - {"pydantic-core"}


def test_declared_dependencies_are_those_imported():
    assert (set(declared()) | SWEEP) - NOT_IMPORTED == imported()


def test_installed_versions_are_those_of_the_lock():
    text = (LOCK / "runtime.txt").read_text(encoding="utf-8")
    for name in declared():
        assert version(name) in re.findall(rf"^{name}==([^\s;]+)", text, re.MULTILINE)


@pytest.mark.parametrize("name", UPLOT)
def test_plotting_script_has_the_published_checksum(name):
    asset = Assets()._by_name[name]
    assert hashlib.sha256(asset.content).hexdigest() == UPLOT[name]


@pytest.mark.parametrize(
    ("file", "pattern", "replacement", "complaint"),
    [
        ("pyproject.toml", r'"rich>=', '"rich>=1', "made for other requirements"),
        ("pyproject.toml", r'    "filelock>=.*\n', "", "made for other requirements"),
        ("requirements/runtime.txt", r"^filelock==", "filelock==0.", "has filelock ['0."),
        (
            "requirements/runtime.txt",
            r"^anyio==",
            "--index-url example\nanyio==",
            "neither a version nor a hash",
        ),
    ],
    ids=["bound", "removed", "pin", "index"],
)
def test_outdated_lock_fails_the_check(tmp_path, file, pattern, replacement, complaint):
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    shutil.copytree(LOCK, tmp_path / "requirements")
    assert check(tmp_path) == (0, "")
    path = tmp_path / file
    text, changes = re.subn(pattern, replacement, path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    path.write_text(text, encoding="utf-8")
    assert changes == 1
    code, message = check(tmp_path)
    assert code == 1
    assert complaint in message
    assert "make lock" in message


def check(folder: Path) -> tuple[int, str]:
    command = [sys.executable, str(folder / "requirements" / "lock.py"), "check"]
    done = subprocess.run(command, env=os.environ, capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout + done.stderr
