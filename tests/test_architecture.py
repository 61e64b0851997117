"""The rooms: the picture matches the import contract, the page names every room, and no file is too long."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]
LONGEST = 350  # lines of a file


def rooms_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("rooms", ROOT / "docs" / "rooms.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_picture_of_the_rooms_matches_the_contract():
    rooms = rooms_script()
    assert rooms.PICTURE.read_text(encoding="utf-8") == rooms.drawing(), "run: python docs/rooms.py"


def test_every_room_is_on_the_architecture_page():
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rooms = rooms_script()
    names = [module.replace(".", "/") for row in rooms.floors("app") for module in row]
    assert [name for name in names if f"`{name}/`" not in page and f"`{name}.py`" not in page] == []


def test_every_room_has_a_sentence_in_the_picture():
    rooms = rooms_script()
    named = [module for package in ("app", "app.api") for row in rooms.floors(package) for module in row]
    assert [module for module in named if not rooms.sentence(module).endswith(".")] == []


@pytest.mark.parametrize("package", ["app", "model"])
def test_no_file_is_longer_than_350_lines(package: str):
    long = [
        f"{path.relative_to(ROOT)}: {lines}"
        for path in sorted((ROOT / package).rglob("*.py"))
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > LONGEST
    ]
    assert long == []
