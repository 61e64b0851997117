"""/runs/{name}/beginnings and /runs/{name}/passage, and how beginnings are found."""

import asyncio

import pytest

from app.reports.beginnings import beginnings
from app.server.once import Once
from tests.support.runs import small_text

PLAY = (
    "KING:\nMy lord, I come to thee.\n\nQUEEN:\nMy lord, what news of him?\n\n"
    "KING:\nI am thy king, my love and lady.\n" * 3
)


def test_beginnings_are_frequent_and_differ_in_their_first_word():
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
def test_beginnings_of_an_unusual_text_occur_in_it(text: str, expected: list[str]):
    assert beginnings(text) == expected


def test_beginnings_of_a_run_can_be_continued(client):
    found = client.get("/runs/gru/beginnings").json()
    assert found["run"] == "gru"
    assert found["beginnings"] == beginnings(small_text())
    for prompt in found["beginnings"]:
        assert (
            client.post("/generate", json={"model": "gru", "prompt": prompt, "length": 5}).status_code == 200
        )


@pytest.mark.parametrize("step", [0, 60])
def test_passage_is_the_text_of_its_documented_request(client, step: int):
    passage = client.get("/runs/gru/passage", params={"step": step}).json()
    prompt = client.get("/runs/gru/beginnings").json()["beginnings"][0]
    asked = {"model": f"gru@{step}", "prompt": prompt, "length": 380, "temperature": 0.6, "seed": 1, "n": 4}
    written = client.post("/generate", json=asked).json()
    assert (passage["prompt"], passage["text"]) == (prompt, written["text"])
    assert (passage["model"], passage["digest"]) == (f"gru@{step}", written["digest"])
    known = {word.strip(".,").lower() for word in small_text().split()}
    whole = [word for choice in written["choices"] for word in choice["text"].split()[1:-1]]
    assert 0 <= passage["real"] <= passage["words"]
    assert any(word in known for word in whole) == (passage["real"] > 0)


def test_passage_without_a_step_is_from_the_newest_checkpoint(client):
    newest = client.get("/runs/gru/passage")
    assert newest.json()["model"] == "gru@60"
    again = client.get("/runs/gru/passage?step=60", headers={"if-none-match": newest.headers["etag"]})
    assert again.status_code == 304
    other = client.get("/runs/gru/passage?step=0", headers={"if-none-match": newest.headers["etag"]})
    assert other.status_code == 200


def test_passage_is_written_once_and_not_rate_limited(serving, trained):
    client = serving(trained.root, rate_limit="2/hour")
    answers = [client.get("/runs/gru/passage") for _ in range(5)]
    assert [answer.status_code for answer in answers] == [200] * 5
    assert len({answer.content for answer in answers}) == 1
    assert f"charloom_generation_tokens_total {float(4 * 380)}" in client.get("/metrics").text


def test_failed_answer_is_retried_and_concurrent_calls_share_one():
    async def run() -> tuple[list[bytes], int]:
        made = 0

        async def make() -> bytes:
            nonlocal made
            made += 1
            await asyncio.sleep(0)
            if made == 1:
                raise ValueError("not yet")
            return b"%d" % made

        once = Once(2)
        with pytest.raises(ValueError, match="not yet"):
            await once.get("one", make)
        same = await asyncio.gather(*(once.get("one", make) for _ in range(3)))
        for key in ("two", "three"):
            await once.get(key, make)
        return [*same, await once.get("one", make)], made

    assert asyncio.run(run()) == ([b"2", b"2", b"2", b"5"], 5)


@pytest.mark.parametrize(
    "path", ["/runs/nobody/beginnings", "/runs/nobody/passage", "/runs/gru/passage?step=7"]
)
def test_text_of_an_unknown_run_or_checkpoint_is_404(client, path: str):
    assert client.get(path).status_code == 404


def test_run_without_its_text_has_no_beginnings_and_no_words(serving, trained):
    (trained.get("gru").path / "corpus.txt").unlink()
    client = serving(trained.root)
    assert client.get("/runs/gru/beginnings").json()["beginnings"] == []
    passage = client.get("/runs/gru/passage").json()
    assert (passage["prompt"], passage["words"]) == ("", 0)
    assert len(passage["text"]) == 380
