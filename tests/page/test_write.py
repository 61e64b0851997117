"""Write in a real browser: texts are streamed, and can be reproduced and copied."""

import re
import subprocess
import sys

import pytest
from playwright.sync_api import expect

from tests.support.browser import before_the_module, write

HOSTILE = "<img src=x onerror=document.title='hacked'><script>document.title='hacked'</script>"


@pytest.mark.slow
def test_link_of_a_streamed_text_reproduces_it(client, opened):
    page = opened(f"{client.base_url}#write")
    growing = """() => {
        const lengths = window.lengths = [];
        new MutationObserver(() => {
            const text = document.querySelector("#write-texts .text");
            if (text) lengths.push(text.textContent.length);
        }).observe(
            document.getElementById("write-texts"), {subtree: true, childList: true, characterData: true}
        );
    }"""
    page.evaluate(growing)
    text = write(page, "the ", length="10000", temperature="1.2")
    assert len(text) == 10_004
    assert len(set(page.evaluate("window.lengths"))) > 2  # not all at once

    code = page.locator("#write-code").text_content() or ""
    again = opened(code.splitlines()[0])
    expect(again.locator("#write-again")).to_be_visible()
    assert again.locator("#write-texts .text").text_content() == text


@pytest.mark.slow
def test_variants_are_shown_side_by_side(client, opened):
    page = opened(client.base_url)
    first = write(page, "the ", length="60", seed="7", n="3")
    texts = page.locator("#write-texts .text").all_text_contents()
    assert len(set(texts)) == 3
    assert texts[0] == first == write(page, "the ", n="1")


@pytest.mark.slow
def test_hostile_prompt_is_escaped_and_its_characters_reported(client, opened):
    page = opened(f"{client.base_url}#write", expected="422")
    page.fill("#write-prompt", HOSTILE)
    page.click("#write-go")
    expect(page.locator("#write-unknown")).to_contain_text("gru has never seen “<”")
    page.click("#write-unknown button")
    assert not set("<>='") & set(page.input_value("#write-prompt"))
    page.click("#write-go")
    expect(page.locator("#write-again")).to_be_visible()
    hostile = opened(
        f"{client.base_url}#write?prompt={HOSTILE.replace('#', '%23')}&seed=1&model={HOSTILE}", expected="404"
    )
    expect(hostile.locator("#write-made")).to_contain_text("deleted meanwhile")
    assert "hacked" not in page.title() + hostile.title()


@pytest.mark.slow
def test_prompt_typed_while_the_page_loads_is_checked(opened, serving, trained_root):
    base = serving(trained_root, max_prompt=40).base_url
    page = opened(f"{base}/healthz")
    with before_the_module(page, f"{base}#write", "views/write"):
        page.fill("#write-prompt", "the cat sat " * 5)
    expect(page.locator("#write-unknown")).to_contain_text("20 too many")


@pytest.mark.slow
def test_prompt_that_is_too_long_can_be_shortened(opened, serving, trained_root):
    page = opened(f"{serving(trained_root, max_prompt=40).base_url}#write")
    page.fill("#write-prompt", "the cat sat " * 5)
    expect(page.locator("#write-unknown")).to_contain_text("At most 40 characters can be read: 20 too many")
    page.click("#write-unknown button")
    expect(page.locator("#write-unknown")).to_be_hidden()
    assert page.input_value("#write-prompt") == ("the cat sat " * 5)[:40]
    assert write(page, page.input_value("#write-prompt"), length="10000").startswith("the cat")
    assert page.evaluate("document.documentElement.scrollWidth") <= 1280


@pytest.mark.slow
def test_page_waits_the_retry_time_of_a_busy_server(opened, serving, trained_root):
    client = serving(trained_root, rate_limit="1/5seconds")
    page = opened(f"{client.base_url}#write", expected="429")
    write(page, "the ", length="30")
    page.evaluate(
        """() => {
            const shown = window.shown = [];
            new MutationObserver(() => shown.push(document.getElementById("write-made").textContent)).observe(
                document.getElementById("write-made"), {childList: true});
        }"""
    )
    for _ in range(3):  # of four texts, at least two fall into the same window of the limit
        write(page, "the ", length="30")
        if busy := page.evaluate("window.shown.filter(text => text.includes('busy'))"):
            break
    waits = [int(re.search(r"in (\d+) s", text)[1]) for text in busy]
    assert waits
    assert waits[-1] == 1  # counted down
    assert max(waits) <= 5


@pytest.mark.slow
def test_text_to_copy_is_selected_without_a_clipboard(trained, serving, opened):
    page = opened(serving(trained.root).base_url)
    write(page, "the ", length="30", seed="5")
    page.evaluate("Object.defineProperty(navigator, 'clipboard', {value: undefined})")
    page.get_by_role("button", name="Copy as Python").click()
    expect(page.locator("#write-copied")).to_contain_text("Copy this by hand")
    chosen = page.evaluate("getSelection().toString()")
    assert chosen.startswith("import httpx")
    assert '"seed": 5' in chosen


@pytest.mark.slow
def test_copied_link_keeps_its_checkpoint(trained, serving, opened):
    page = opened(serving(trained.root).base_url)
    write(page, "the ", length="30", seed="5")
    page.get_by_role("button", name="Copy link").click()
    expect(page.locator("#write-copied")).to_contain_text("The server keeps this checkpoint")
    assert list(trained.get("gru").kept()) == [60]


@pytest.mark.slow
def test_copied_link_of_a_removed_checkpoint_is_reported(trained, serving, opened):
    page = opened(serving(trained.root).base_url, expected="404")
    write(page, "the ", length="30", seed="5")
    for path in trained.get("gru").path.glob("*-000000060.safetensors"):
        path.unlink()
    page.get_by_role("button", name="Copy link").click()
    expect(page.locator("#write-copied")).to_contain_text("Training may delete this checkpoint")


@pytest.mark.slow
def test_two_temperatures_are_compared_with_the_same_seed(client, opened):
    page = opened(f"{client.base_url}#write")
    page.select_option("#write-form [name=against]", "temperature 0")
    write(page, "the ", length="40", seed="7")
    texts = page.locator("#write-texts .text").all_text_contents()
    asked = {"model": "gru", "prompt": "the ", "length": 40, "seed": 7}
    for text, temperature in zip(texts, (0.8, 0), strict=True):
        answer = client.post("/generate", json=asked | {"temperature": temperature}).json()
        assert text == "the " + answer["text"]


@pytest.mark.slow
def test_copied_python_code_prints_every_variant(client, opened, tmp_path):
    page = opened(f"{client.base_url}#write")
    write(page, "the ", length="40", seed="7", n="3")
    texts = page.locator("#write-texts .text").all_text_contents()
    code = page.locator("#write-code").text_content()
    program = tmp_path / "program.py"
    program.write_text(code[code.index("import httpx") :])
    printed = subprocess.run(
        [sys.executable, str(program)], capture_output=True, text=True, check=True
    ).stdout
    assert printed == "".join(f"{text}\n" for text in texts)


@pytest.mark.slow
def test_text_is_continued_at_its_end(client, opened):
    page = opened(f"{client.base_url}#write")
    text = write(page, "the ", length="40", seed="7")
    page.click("#write-on")
    expect(page.locator("#write-again")).to_be_visible()
    longer = page.locator("#write-texts .text").text_content()
    assert longer.startswith(text)
    assert len(longer) == len(text) + 40


@pytest.mark.slow
def test_alternative_characters_are_shown_at_the_pointer(client, opened):
    page = opened(f"{client.base_url}#write")
    write(page, "the ", length="40", seed="7")
    box = page.locator("#write-texts .text").bounding_box()
    page.mouse.move(box["x"] + 12, box["y"] + 12)
    expect(page.get_by_role("tooltip")).to_contain_text("had")
    expect(page.get_by_role("tooltip")).to_contain_text("Instead:")
    page.mouse.move(0, 0)
    expect(page.locator("#tip")).to_be_hidden()
