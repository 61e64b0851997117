"""/runs/{name}/beginnings and /runs/{name}/words; and how beginnings are found."""

import pytest

from app.reports.beginnings import beginnings
from tests.support.runs import small_text

PLAY = (
    "KING:\nMy lord, I come to thee.\n\nQUEEN:\nMy lord, what news of him?\n\n"
    "KING:\nI am thy king, my love and lady.\n" * 3
)


def test_beginnings_are_common_and_differ_in_their_first_word():
    found = beginnings(PLAY)
    assert found[0] == "KING:\n"
    assert "My lord, " in found
    assert len({text.split()[0] for text in found}) == len(found) == 3
    assert all(text in PLAY for text in found)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("\n \n", []),
        ("x" * 5000, ["xxxxx"]),
        ("1,2,3\n" * 9, ["1,2,3\n"]),
        ("今天天气很好我们去公园玩吧他说不去所以我们留在家里看书写字。" * 9, ["今天天气很"]),
    ],
)
def test_beginnings_of_an_odd_text_are_still_in_it(text: str, expected: list[str]):
    assert beginnings(text) == expected


def test_beginnings_of_a_run_can_be_continued(client):
    found = client.get("/runs/gru/beginnings").json()
    assert found["run"] == "gru"
    assert found["beginnings"] == beginnings(small_text())
    for prompt in found["beginnings"]:
        assert (
            client.post("/generate", json={"model": "gru", "prompt": prompt, "length": 5}).status_code == 200
        )


def test_words_of_a_passage_are_counted_without_partial_ones(client):
    word = small_text().split()[3].strip(".,").lower()
    answer = client.post("/runs/gru/words", json={"text": f"cut {word} xqzzk {word.upper()} cut"}).json()
    assert answer == {"run": "gru", "words": 3, "real": 2}


@pytest.mark.parametrize("path", ["/runs/nobody/beginnings", "/runs/nobody/words"])
def test_text_of_an_unknown_run_is_404(client, path: str):
    request = client.post(path, json={"text": ""}) if path.endswith("words") else client.get(path)
    assert request.status_code == 404


def test_passage_that_is_too_long_is_refused(client):
    answer = client.post("/runs/gru/words", json={"text": "a" * 10_001})
    assert answer.status_code == 422


def test_run_without_its_text_has_neither_beginnings_nor_words(serving, trained):
    (trained.get("gru").path / "corpus.txt").unlink()
    client = serving(trained.root)
    assert client.get("/runs/gru/beginnings").json()["beginnings"] == []
    assert client.post("/runs/gru/words", json={"text": "the cat sat"}).json()["words"] == 0
