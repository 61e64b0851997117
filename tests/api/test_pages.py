"""The pages as the server sends them: nothing inline, nothing from other hosts, every file cached."""

import posixpath
import re
from collections.abc import Set
from html.parser import HTMLParser

import httpx
import pytest

from app.api.assets import PLOTTING, SWAGGER, Asset, Assets
from app.store.run_store import RunStore
from tests.support.runs import LONGEST_WAIT

PAGES = [
    "/",
    "/loss-curve",
    "/loss-curve?model=classic",
    "/gradcheck",
    "/gradcheck?method=complex-step",
    "/docs",
]
BROWSER = {"accept": "text/html"}


class Page(HTMLParser):
    """The elements of a page, and the inline scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.inline: list[str] = []
        self._open = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._open = tag
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self._open in ("script", "style") and data.strip():
            self.inline.append(data)

    def values(self, attribute: str) -> list[str]:
        return [attrs[attribute] or "" for _, attrs in self.elements if attribute in attrs]


def page(client: httpx.Client, path: str) -> Page:
    response = client.get(path, headers=BROWSER)
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    return Page(response.text)


@pytest.mark.parametrize("path", PAGES)
def test_pages_have_no_inline_script_or_style(client: httpx.Client, path):
    found = page(client, path)
    assert not found.inline
    assert not found.values("style")
    assert not [name for _, attrs in found.elements for name in attrs if name.startswith("on")]


@pytest.mark.slow
@pytest.mark.parametrize("path", PAGES)
def test_everything_a_page_refers_to_is_served_locally(client: httpx.Client, path):
    found = page(client, path)
    addresses = found.values("src") + found.values("href") + found.values("srcset")
    assert addresses
    ids = found.values("id")
    for address in addresses:
        if address.startswith("#"):
            assert address[1:] in ids
            continue
        assert address.startswith("/")
        assert not address.startswith("//")
        if not address.startswith("/gradcheck"):
            assert client.get(address, timeout=LONGEST_WAIT).status_code == 200


@pytest.mark.parametrize("path", PAGES)
def test_page_has_labels_a_language_and_a_viewport(client: httpx.Client, path):
    found = page(client, path)
    elements = [tag for tag, _ in found.elements]
    assert ("html", {"lang": "en"}) in found.elements
    assert elements.count("main") == elements.count("title") == 1
    assert any(attrs.get("content", "").startswith("width=device-width") for _, attrs in found.elements)
    assert all("alt" in attrs for tag, attrs in found.elements if tag == "img")
    ids = found.values("id")
    assert len(ids) == len(set(ids))
    assert set(found.values("aria-labelledby")) <= set(ids)
    assert found.values("aria-current").count("page") >= 1


def test_elements_that_scripts_look_up_exist(client: httpx.Client):
    own = Assets().own
    for path in ("/", "/loss-curve", "/gradcheck"):
        found = page(client, path)
        entry = next(attrs["src"] for tag, attrs in found.elements if attrs.get("type") == "module")
        sources = [own[name].content.decode() for name in imported(own, entry.split("/", 3)[3])]
        wanted = set(re.findall(r'(?:getElementById|setText|\bat)\(\s*"([a-z-]+)"', "".join(sources)))
        assert wanted
        assert wanted <= set(found.values("id")), path


def imported(own: dict[str, Asset], name: str, found: Set[str] = frozenset()) -> Set[str]:
    """A script and everything that it imports."""
    if name in found:
        return found
    found = {*found, name}
    source = own[name].content.decode()
    relatives = re.findall(r'^(?:import|export) [^;]*?"(\.[^"]*)";$', source, re.M)
    for relative in relatives + re.findall(r'import\("(\.[^"]*)"\)', source):
        found = imported(own, posixpath.normpath(posixpath.join(posixpath.dirname(name), relative)), found)
    return found


def test_every_script_is_loaded_by_a_page():
    own = Assets().own
    entries = ("index.js", "loss-curve.js", "gradcheck.js", "docs.js", "error.js")
    used = set().union(*(imported(own, entry) for entry in entries))
    assert used == {name for name in own if name.endswith(".js")}


def test_lines_of_scripts_and_styles_have_at_most_120_columns():
    for name, asset in Assets().own.items():
        lines = asset.content.decode().splitlines()
        assert not [number for number, line in enumerate(lines, 1) if len(line) > 120], name


def test_assets_are_cached_under_names_of_their_content(client: httpx.Client):
    assets = Assets()
    for name in (*assets.own, *SWAGGER, *PLOTTING):
        response = client.get(assets._by_name[name].url)
        assert response.headers["cache-control"] == "public, max-age=31536000, immutable"
        assert response.content == assets._by_name[name].content
    url = assets.url("charloom.css")
    assert re.fullmatch(r"/assets/[0-9a-f]{12}/charloom\.css", url)
    assert client.get(url.replace(".css", "0.css")).status_code == 404


def test_scripts_write_no_markup_and_call_no_other_host():
    for asset in Assets().own.values():
        source = asset.content.decode()
        for word in (
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
            "new Function",
        ):
            assert word not in source
        assert not re.findall(r"https?://(?!www\.w3\.org/2000/svg)", source)


def test_assets_are_compressed_if_the_client_accepts_gzip(client: httpx.Client):
    url = Assets().url("index.js")
    packed, plain = (client.get(url, headers={"accept-encoding": coding}) for coding in ("gzip", "identity"))
    assert packed.content == plain.content == Assets().own["index.js"].content
    assert packed.headers["content-encoding"] == "gzip"
    assert "content-encoding" not in plain.headers
    assert packed.headers["vary"] == plain.headers["vary"] == "accept-encoding"


def test_own_assets_are_less_than_130_kb():
    assert sum(len(asset.content) for asset in Assets().own.values()) < 130_000


def test_page_loads_less_than_60_kb_of_own_assets(client: httpx.Client):
    own = Assets().own
    found = page(client, "/")
    loaded = {url.split("/", 3)[3] for url in found.values("src") + found.values("href") if "/assets/" in url}
    names = imported(own, "index.js") | (loaded & set(own))
    assert {"page.css", "views/runs.js", "icon.svg"} <= names
    assert sum(len(own[name].compressed) for name in names) < 60_000


def test_name_of_a_run_is_escaped(client: httpx.Client):
    hostile = '"><script>alert(1)</script>'
    response = client.get("/gradcheck", params={"model": hostile}, headers=BROWSER)
    assert "<script>alert" not in response.text
    assert "&lt;script&gt;alert" in response.text


def test_first_page_of_an_empty_store_is_served(serving, tmp_path):
    client = serving(RunStore(tmp_path).root)
    assert page(client, "/").values("id")
    assert client.get("/favicon.ico").headers["content-type"] == "image/svg+xml"
