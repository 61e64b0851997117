"""Travel in a real browser: a network at every age."""

from playwright.sync_api import expect


def test_slider_goes_through_the_ages_of_a_network(client, opened):
    page = opened(f"{client.base_url}#travel?run=classic")
    expect(page.locator("#travel-step")).to_contain_text("after 60 updates")
    page.focus("#travel-at")
    page.keyboard.press("Home")
    expect(page.locator("#travel-step")).to_contain_text("after 0 updates")
    samples = client.get("/samples", params={"model": "classic"}).json()["samples"]
    assert page.locator("#travel-text").text_content() == samples[0]["text"]
    page.get_by_text("Your prompt, each time").click()
    page.locator("#travel-form [name=prompt]").fill("the ")
    page.locator("#travel-form [name=seed]").fill("5")
    page.focus("#travel-at")
    page.keyboard.press("Home")
    request = {"model": "classic@0", "prompt": "the ", "seed": 5, "temperature": 0.7, "length": 400}
    expected = client.post("/generate", json=request).json()["text"]
    expect(page.locator("#travel-text")).to_have_text(f"the {expected}", use_inner_text=False)
    page.keyboard.press("ArrowRight")
    expect(page.locator("#travel-step")).not_to_contain_text("after 0 updates")
