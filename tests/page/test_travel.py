"""Travel in a real browser: a network at each of its checkpoints."""

import httpx
import pytest
from playwright.sync_api import expect


def text_of(client: httpx.Client, model: str, prompt: str, seed: int) -> str:
    asked = {"model": model, "prompt": prompt, "seed": seed, "temperature": 0.7, "length": 400}
    return prompt + client.post("/generate", json=asked).json()["text"]


@pytest.mark.slow
def test_slider_shows_the_samples_of_a_run(client, opened):
    page = opened(f"{client.base_url}#travel?run=classic")
    expect(page.locator("#travel-step")).to_contain_text("after 60 updates")
    page.focus("#travel-at")
    page.keyboard.press("Home")
    expect(page.locator("#travel-step")).to_contain_text("classic after 0 updates")
    samples = client.get("/samples", params={"model": "classic"}).json()["samples"]
    assert page.locator("#travel-text").text_content() == samples[0]["text"]


@pytest.mark.slow
def test_own_prompt_is_continued_at_every_step(client, opened):
    page = opened(f"{client.base_url}#travel?run=classic")
    page.get_by_text("Your own prompt").click()
    page.fill("#travel-form [name=prompt]", "the ")
    page.fill("#travel-form [name=seed]", "5")
    page.click("#travel-form .go")
    page.focus("#travel-at")
    page.keyboard.press("Home")
    expect(page.locator("#travel-step")).to_contain_text("after 0 updates")
    first = text_of(client, "classic@0", "the ", 5)
    expect(page.locator("#travel-text")).to_have_text(first, use_inner_text=False)
    page.keyboard.press("End")
    last = text_of(client, "classic@60", "the ", 5)
    expect(page.locator("#travel-text")).to_have_text(last, use_inner_text=False)


@pytest.mark.slow
def test_refusal_is_shown_outside_the_text_box(client, opened):
    page = opened(f"{client.base_url}#travel?run=classic", expected="422")
    page.get_by_text("Your own prompt").click()
    expect(page.locator("#travel-text .prompt")).not_to_be_empty()
    before = page.locator("#travel-text").text_content()
    page.fill("#travel-form [name=prompt]", "the €")
    page.click("#travel-form .go")
    expect(page.locator("#travel-refused")).to_contain_text("It has never seen “€” in its text")
    assert page.locator("#travel-text").text_content() == before


@pytest.mark.slow
def test_click_on_the_curve_shows_the_sample_of_that_step(client, opened):
    page = opened(f"{client.base_url}#travel?run=classic")
    expect(page.locator("#travel-step")).to_contain_text("after 60 updates")
    samples = client.get("/samples", params={"model": "classic"}).json()["samples"]
    sample = next(one for one in samples if one["step"] == 20)
    box = page.locator("#travel-curve").bounding_box()
    page.locator("#travel-curve").click(position={"x": box["width"] * 20 / 60, "y": box["height"] / 2})
    expect(page.locator("#travel-step")).to_contain_text("classic after 20 updates")
    expect(page.locator("#travel-text")).to_have_text(sample["text"], use_inner_text=False)


@pytest.mark.slow
def test_text_box_has_the_same_height_at_every_step(client, opened):
    page = opened(f"{client.base_url}#travel?run=classic")
    expect(page.locator("#travel-step")).to_contain_text("after 60 updates")
    box = page.locator("#travel-text")
    height = box.bounding_box()["height"]
    page.focus("#travel-at")
    page.keyboard.press("Home")
    expect(page.locator("#travel-step")).to_contain_text("after 0 updates")
    assert box.bounding_box()["height"] == height
