import pytest
from starlette.exceptions import HTTPException

from app.server.accept import preferred

OFFERED = ("application/json", "text/html", "image/svg+xml", "image/png")
CHROME = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8"
CHROME_IMAGE = "image/avif,image/webp,image/apng,image/svg+xml,image/*,*/*;q=0.8"


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        (None, "application/json"),
        ("", "application/json"),
        ("*/*", "application/json"),
        (CHROME, "text/html"),
        (CHROME_IMAGE, "image/svg+xml"),
        ("image/png", "image/png"),
        ("image/*", "image/svg+xml"),
        ("image/*;q=0.5, image/png", "image/png"),
        ("application/json;q=0.1, text/html;q=0.2", "text/html"),
        ("*/*, application/json;q=0", "text/html"),
        ("IMAGE/PNG ; Q=1", "image/png"),
        ("text/html;level=1", "text/html"),
        ("image/png;q=x, text/html;q=0.1", "text/html"),
    ],
)
def test_media_type_with_the_highest_quality_is_chosen(accept, chosen):
    assert preferred(accept, OFFERED) == chosen


@pytest.mark.parametrize("accept", ["audio/mpeg", "image/png;q=0", ",", "text"])
def test_unsupported_media_type_is_refused_with_the_supported(accept):
    with pytest.raises(HTTPException, match="application/json") as caught:
        preferred(accept, OFFERED)
    assert caught.value.status_code == 406
