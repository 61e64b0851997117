"""The commands of `charloom runs`, all through the HTTP API.

Without a server's address, the command serves the API to itself over a Unix socket in a private directory, so
that a local store behaves exactly like a server.
"""

from __future__ import annotations

import json
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
from rich import box
from rich.console import Console
from rich.table import Table
from threadpoolctl import threadpool_limits

from app.commands.progress import duration
from app.commands.terminal import cell, say
from app.intake.findings import printable_name
from app.main import build_server
from app.settings import load_settings
from app.streams import visible
from model.errors import CharloomError

KEY_VARIABLE, URL_VARIABLE = "CHARLOOM_API_KEY", "CHARLOOM_URL"
Place = tuple[str | None, Path | None]  # a server's address or a store's directory
PIECE = 1 << 20
START_SECONDS = 30.0
LONGEST_FOLDER = 80  # bytes; the path of a socket may have 107
PATIENCE = httpx.Timeout(60.0, connect=10.0)  # a watched run sends something every 15 s
MERGE_TIMEOUT = httpx.Timeout(1800.0, connect=10.0)  # large networks are measured on 100,000 characters


class RefusedError(CharloomError):
    """A server refused the request, or there was no answer."""


def chosen(*places: Place) -> Place:
    """The first of `places` that names a server or a store, else the server of CHARLOOM_URL.

    Raises CharloomError if a place names both, or if its server is empty: an unset variable in a script
    must not lead to the local store.
    """
    for url, store in places:
        if url is not None and store is not None:
            raise CharloomError(f"give --url or --store, not both. Given: --url {url} --store {store}")
        if url == "":
            raise CharloomError("--url is empty: give the address of a server, or leave it out")
        if url is not None or store is not None:
            return url, store
    return os.environ.get(URL_VARIABLE) or None, None


@contextmanager
def connected(url: str | None, store: Path | None) -> Iterator[httpx.Client]:
    """A client of the server at `url` or else of the local store. Raises RefusedError, ConfigError."""
    key = os.environ.get(KEY_VARIABLE)
    headers = [(b"authorization", os.fsencode(f"Bearer {key}"))] if key else []
    try:
        if url:
            with httpx.Client(base_url=url, headers=headers, timeout=PATIENCE) as client:
                yield client
        else:
            with _own_server(store) as client:
                yield client
    except UnicodeEncodeError as error:
        raise RefusedError(f"{str(error.object)[:80]!r} is not UTF-8 and cannot be sent") from None
    except httpx.InvalidURL as error:
        raise RefusedError(f"{url!r} is not the address of a server: {error}") from None
    except httpx.TransportError as error:
        raise RefusedError(f"no server answers at {url or 'the local store'}: {error}") from None


@contextmanager
def _own_server(store: Path | None) -> Iterator[httpx.Client]:
    # file permissions are the only access control for a local store
    settings = load_settings(store=store, api_keys="", rate_limit="", access_log=False, grace_seconds=0)
    private = tempfile.TemporaryDirectory(prefix="charloom-", dir=short_folder())
    # as in a server: with more BLAS threads, a merge takes several times as long on busy cores
    with threadpool_limits(1), private as folder:
        socket = str(Path(folder) / "socket")
        server = build_server(settings, uds=socket, lifespan=False)
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        try:
            end = time.monotonic() + START_SECONDS
            while not server.started and thread.is_alive() and time.monotonic() < end:
                time.sleep(0.005)
            transport = httpx.HTTPTransport(uds=socket)
            with httpx.Client(transport=transport, base_url="http://store", timeout=PATIENCE) as client:
                yield client
        finally:
            server.should_exit = True
            thread.join()


def short_folder() -> str:
    """A directory for temporary files with a path short enough for a socket in it."""
    usual = tempfile.gettempdir()
    return usual if len(os.fsencode(usual)) <= LONGEST_FOLDER else "/tmp"  # noqa: S108


def checked(answer: httpx.Response) -> httpx.Response:
    """The answer if it is a success. Otherwise raises RefusedError with the server's message."""
    if answer.is_success:
        return answer
    answer.read()
    try:
        message = answer.json()["error"]["message"]
    except (ValueError, KeyError, TypeError):
        message = f"{answer.url} answered {answer.status_code}: this is not a Charloom server"
    raise RefusedError(str(message))


def path_of(name: str) -> str:
    """The path of a run on a server; whatever characters the name has, no other path."""
    return f"/runs/{quote(name, safe='')}"


def list_runs(client: httpx.Client) -> None:
    """Print the runs in the order of the queue; a group is one line, in place of its members."""
    runs = checked(client.get("/runs")).json()["runs"]
    if not runs:
        say("There are no runs; create one with: charloom train my.txt")
        return
    table = Table("run", "state", "step", "of", "loss", "held-out", "left", "text", box=box.SIMPLE)
    table.columns[0].overflow = "fold"  # a truncated name could not be copied
    names = {run["name"] for run in runs}
    shown = [run for run in runs if run["group"] not in names]
    for run in shown:
        values = (
            run["name"],
            "interrupted" if run["stale"] else run["state"],
            f"{run['step']:,}",
            f"{run['steps']:,}" if run["steps"] else "",
            _number(run["smooth_loss"]),
            _held_out(run),
            duration(run["seconds_left"]) if run["state"] == "training" else "",
            run["corpus"],
        )
        table.add_row(*map(cell, values))
    Console().print(table)
    for run in shown:
        if states := [one["state"] for one in runs if one["group"] == run["name"]]:
            say(f"{run['name']}: {states.count('finished')} of {len(states)} members are finished")
        if run["reason"]:
            say(f"{run['name']}: {run['reason']}")


def show_run(client: httpx.Client, name: str) -> None:
    """Print everything about a run, as JSON."""
    shown = json.dumps(checked(client.get(path_of(name))).json(), indent=2, ensure_ascii=False)
    print(visible(shown, json=True), flush=True)


def ask(client: httpx.Client, name: str, action: str) -> None:
    """Ask a run to pause, resume or stop."""
    run = checked(client.patch(path_of(name), json={"action": action})).json()
    soon = "; its worker will act within a second" if run["state"] == "training" else ""
    say(f"run {name} is {run['state']}{soon}")


def remove(client: httpx.Client, name: str, force: bool) -> None:
    """Delete a run."""
    checked(client.delete(path_of(name), params={"force": force}))
    say(f"deleted run {name}")


def send(client: httpx.Client, path: str, options: dict[str, Any], texts: list[Path]) -> None:
    """Queue a run on `texts`, or on its parent's text if there are none, and print the findings."""
    given = {name: value for name, value in options.items() if value is not None}
    with ExitStack() as stack:
        files = [
            ("file", (printable_name(text.name), stack.enter_context(text.open("rb")))) for text in texts
        ]
        answer = client.post(path, params=given, files=files or None)
    made = checked(answer).json()
    for finding in made["findings"]:
        place = "" if finding["position"] is None else f" (at {finding['position']:,})"
        say(f"{finding['level']}: {finding['message']}{place}")
    about = duration(made["expected_seconds"])
    say(f"run {made['name']} is queued: {made['characters']:,} characters, about {about} of training")


def merge(client: httpx.Client, models: list[str], name: str | None) -> None:
    """Merge models into a new run, and print its loss."""
    body = {"models": models} | ({} if name is None else {"name": name})
    run = checked(client.post("/runs/merge", json=body, timeout=MERGE_TIMEOUT)).json()
    loss = "" if run["validation_loss"] is None else f", held-out loss {run['validation_loss']:.4f}"
    say(f"run {run['name']} is merged from {len(models)} models: {run['members']} members{loss}")


def export_run(client: httpx.Client, name: str, step: str | None, out: Path | None) -> None:
    """Export a run to one file. Raises RefusedError, or OSError, also if the file exists already."""
    given = {} if step is None else {"step": step}
    with client.stream("GET", f"{path_of(name)}/export", params=given) as answer:
        checked(answer)
        head = answer.headers.get("content-disposition", "")
        named = head.partition('filename="')[2].partition('"')[0]
        target = out or Path(Path(named).name or f"{name}.zip")
        with target.open("xb") as file:
            for piece in answer.iter_bytes(PIECE):
                file.write(piece)
    say(f"wrote {target}")


def import_run(client: httpx.Client, file: Path, name: str | None) -> None:
    """Import an exported run."""
    with file.open("rb") as content:
        given = {} if name is None else {"name": name}
        answer = client.post(
            "/runs/import", params=given, files={"file": (printable_name(file.name), content)}
        )
    say(f"imported run {checked(answer).json()['name']}")


def _held_out(run: dict[str, Any]) -> str:
    """The held-out loss, with its step if that is not the run's."""
    loss, step = run["validation_loss"], run.get("validation_step")
    return _number(loss) + ("" if step in (None, run["step"]) else f" @{step:,}")


def _number(loss: float | None) -> str:
    return "" if loss is None else f"{loss:.4f}"
