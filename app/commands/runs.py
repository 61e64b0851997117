"""The options of `charloom runs …`; `app.commands.client` implements the commands."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer

from app.commands.options import APART_HELP, Store, with_run_options
from model.config import PRESETS

app = typer.Typer(
    help="The runs of a store, local or behind a server: list, control, fork, export, import, watch.",
    invoke_without_command=True,
    no_args_is_help=False,
)

Url = Annotated[
    str | None,
    typer.Option(help="Address of a server (CHARLOOM_URL); by default, the local store."),
]
Name = Annotated[str, typer.Argument(help="Name of a run.")]
NewName = Annotated[str | None, typer.Option("--name", help="Name of the new run.")]


@app.callback()
def runs(context: typer.Context, url: Url = None, store: Store = None) -> None:
    """List the runs, or act on one."""
    context.obj = (url, store)
    if context.invoked_subcommand is None:
        list_(context, url, store)


@contextmanager
def connection(context: typer.Context, url: str | None, store: Path | None) -> Iterator[httpx.Client]:
    """A client of the server or store given after the command, before it, or in CHARLOOM_URL, in that order.

    Raises as `chosen` and `connected` do.
    """
    from app.commands.client import chosen, connected

    with connected(*chosen((url, store), context.obj or (None, None))) as client:
        yield client


@app.command("list")
def list_(context: typer.Context, url: Url = None, store: Store = None) -> None:
    """List the runs, in the order of the queue."""
    from app.commands.client import list_runs

    with connection(context, url, store) as client:
        list_runs(client)


@app.command()
def show(context: typer.Context, name: Name, url: Url = None, store: Store = None) -> None:
    """Show everything about a run, as JSON."""
    from app.commands.client import show_run

    with connection(context, url, store) as client:
        show_run(client, name)


@app.command()
def pause(context: typer.Context, name: Name, url: Url = None, store: Store = None) -> None:
    """Pause a run until `resume`; other runs are trained meanwhile."""
    _ask(context, name, "pause", url, store)


@app.command()
def resume(context: typer.Context, name: Name, url: Url = None, store: Store = None) -> None:
    """Continue a run that is paused, was stopped or has failed."""
    _ask(context, name, "resume", url, store)


@app.command()
def stop(context: typer.Context, name: Name, url: Url = None, store: Store = None) -> None:
    """End a run and keep its checkpoints."""
    _ask(context, name, "stop", url, store)


@app.command()
def rm(
    context: typer.Context,
    name: Name,
    force: Annotated[
        bool, typer.Option(help="Delete it even if no other run can be served afterwards.")
    ] = False,
    url: Url = None,
    store: Store = None,
) -> None:
    """Delete a run once its training has stopped."""
    from app.commands.client import remove

    with connection(context, url, store) as client:
        remove(client, name, force)


@app.command()
@with_run_options
def add(
    context: typer.Context,
    texts: Annotated[list[Path], typer.Argument(help="Texts, or zips of texts, to join into one.")],
    preset: Annotated[str | None, typer.Option(metavar="|".join(PRESETS))] = None,
    name: NewName = None,
    encoding: Annotated[str | None, typer.Option(help="Encoding of the texts, if not UTF-8.")] = None,
    apart: Annotated[bool, typer.Option("--apart", help=APART_HELP)] = False,
    url: Url = None,
    store: Store = None,
    *,
    overrides: dict[str, Any],
) -> None:
    """Queue a run on a text; a worker trains it when its turn comes."""
    from app.commands.client import send

    options = overrides | {"preset": preset, "name": name, "encoding": encoding, "apart": apart or None}
    with connection(context, url, store) as client:
        send(client, "/runs", options, texts)


@app.command()
@with_run_options
def fork(
    context: typer.Context,
    run: Name,
    step: Annotated[str | None, typer.Option(help="A step, or `best` (default: the newest).")] = None,
    text: Annotated[list[Path] | None, typer.Option(help="Another text; may be repeated.")] = None,
    name: NewName = None,
    url: Url = None,
    store: Store = None,
    *,
    overrides: dict[str, Any],
) -> None:
    """Start a run with the weights of another, with changed settings or another text."""
    from app.commands.client import path_of, send

    with connection(context, url, store) as client:
        send(client, f"{path_of(run)}/fork", overrides | {"step": step, "name": name}, text or [])


@app.command()
def merge(
    context: typer.Context,
    models: Annotated[
        list[str], typer.Argument(help="RUN or RUN@STEP, at least two with the same network shape.")
    ],
    name: NewName = None,
    url: Url = None,
    store: Store = None,
) -> None:
    """Merge runs into one whose predictions are the mean of theirs."""
    from app.commands.client import merge as run

    with connection(context, url, store) as client:
        run(client, models, name)


@app.command()
def export(
    context: typer.Context,
    name: Name,
    step: Annotated[str | None, typer.Option(help="A step, or `best` (default: the newest).")] = None,
    out: Annotated[Path | None, typer.Option(help="The file to write (default: NAME-STEP.zip).")] = None,
    url: Url = None,
    store: Store = None,
) -> None:
    """Export a run to one file: weights, settings, vocabulary, loss curve and a model card."""
    from app.commands.client import export_run

    with connection(context, url, store) as client:
        export_run(client, name, step, out)


@app.command("import")
def import_(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="A file written by export.")],
    name: NewName = None,
    url: Url = None,
    store: Store = None,
) -> None:
    """Import an exported run."""
    from app.commands.client import import_run

    with connection(context, url, store) as client:
        import_run(client, file, name)


@app.command()
def watch(context: typer.Context, name: Name, url: Url = None, store: Store = None) -> None:
    """Follow a run until it ends: losses, samples, checkpoints. Ctrl-C ends only the display."""
    from app.commands.watch import watch_run

    with connection(context, url, store) as client:
        watch_run(client, name)


def _ask(context: typer.Context, name: str, action: str, url: str | None, store: Path | None) -> None:
    from app.commands.client import ask

    with connection(context, url, store) as client:
        ask(client, name, action)
