"""The command line: `charloom serve`, `train`, `generate`, `doctor` and the others.

This module defines the options and the exit codes. `app.commands` implements the commands; it is imported
only when one is called, so that `charloom --help` is fast. Bad input prints one line and exits with code 2.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from app.commands import runs
from app.commands.options import APART_HELP, Store, path_if_given, with_run_options
from app.streams import prepare_standard_streams, unfailing_output, visible
from model.cells import CELLS
from model.config import DEFAULT_PRESET, PRESETS
from model.errors import CharloomError

USAGE_ERROR = 2
FAILED = 1
INTERRUPTED = 130  # what a shell reports for a program ended by Ctrl-C
REPORTING = ("serve", "worker", "doctor")  # commands that report unknown variables in their own way
# base class of Typer's argument errors; its module depends on Typer's version
UsageError: Any = typer.BadParameter.__base__

app = typer.Typer(
    help="Train a character-level RNN, written in NumPy, on any text; serve its newest checkpoint over HTTP.",
    pretty_exceptions_enable=False,
    add_completion=False,
)

app.add_typer(runs.app, name="runs")


def show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"charloom {version('charloom')}")
        raise typer.Exit


@app.callback()
def options(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    from app.settings import unknown_variables

    if context.invoked_subcommand not in REPORTING:
        for message in unknown_variables(os.environ):
            print(visible(f"charloom: warning: {message}"), file=sys.stderr)


Corpus = Annotated[
    Path | None,
    typer.Option(
        help="Text that a new store trains on (CHARLOOM_CORPUS).", parser=path_if_given, metavar="PATH"
    ),
]


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on (CHARLOOM_HOST).")] = None,
    port: Annotated[int | None, typer.Option(help="Port, 0 for a free one (CHARLOOM_PORT).")] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="RUN, RUN@STEP or RUN@best that answers requests without a model (CHARLOOM_MODEL)."
        ),
    ] = None,
    processes: Annotated[
        str | None,
        typer.Option(
            help="Server processes that share the port, to use more than one core; `auto` starts one per "
            "core (CHARLOOM_PROCESSES).",
            metavar="N|auto",
        ),
    ] = None,
    worker: Annotated[bool, typer.Option(help="Start workers with the server.")] = True,
    store: Store = None,
    corpus: Corpus = None,
) -> None:
    """Serve the newest checkpoint over HTTP, and train at the same time."""
    from app.commands.serve import serve as run
    from app.settings import load_settings

    settings = load_settings(
        host=host, port=port, model=model, processes=processes, store=store, corpus=corpus
    )
    run(settings, with_worker=worker)


@app.command()
def worker(
    until_idle: Annotated[
        bool, typer.Option("--until-idle", help="Exit when no run is left to train.")
    ] = False,
    cores: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Leave runs that need more processes than this to other workers (default: the number of "
            "cores of this machine or container; larger runs are then left for a few seconds only).",
        ),
    ] = None,
    nice: Annotated[
        int, typer.Option(min=0, max=19, help="Niceness: how much to yield to other programs.")
    ] = 0,
    parent: Annotated[int | None, typer.Option(hidden=True)] = None,
    store: Store = None,
    corpus: Corpus = None,
) -> None:
    """Train the queued runs of a store, one after the other, until stopped.

    Any number of workers may work on one store, from any machine that has it.
    """
    from app.logs import configure_logging
    from app.settings import load_settings
    from app.worker import run_worker

    settings = load_settings(store=store, corpus=corpus)
    configure_logging(settings)
    run_worker(settings, nice=nice, parent=parent, cores=cores, until_idle=until_idle)


@app.command()
@with_run_options
def train(
    text: Annotated[Path, typer.Argument(help="A text, a zip of texts, or a document.")],
    preset: Annotated[
        str | None,
        typer.Option(
            help=f"Settings to start from (default: {DEFAULT_PRESET}; with --minutes, settings that suit the "
            f"text, the time and the machine).",
            metavar="|".join(PRESETS),
        ),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the run (default: the file's name).")] = None,
    encoding: Annotated[str | None, typer.Option(help="Encoding of the text, if it is not UTF-8.")] = None,
    apart: Annotated[bool, typer.Option("--apart", help=APART_HELP)] = False,
    store: Store = None,
    *,
    overrides: dict[str, Any],
) -> None:
    """Train on your own text: `charloom train my.txt --minutes 3`.

    Ctrl-C saves; the same command continues from there.
    """
    from app.commands.train import train as run

    with unfailing_output():
        finished = run(open_store(store), text, preset, name, encoding, overrides, apart)
    if not finished:
        raise typer.Exit(INTERRUPTED)


@app.command()
@with_run_options
def sweep(
    text: Annotated[Path, typer.Argument(help="A text, a zip of texts, or a document.")],
    trials: Annotated[
        int, typer.Option(min=1, max=1000, help="Number of runs to try, including existing ones.")
    ] = 20,
    set: Annotated[
        list[str] | None,
        typer.Option(
            help="What to try for a setting: FIELD=A,B,C or FIELD=LOW..HIGH; may be repeated (default: "
            "learning_rate and weight_decay)."
        ),
    ] = None,
    parallel: Annotated[
        int,
        typer.Option(min=1, max=100, help="Runs to queue at the same time; set it to the number of workers."),
    ] = 1,
    preset: Annotated[str | None, typer.Option(metavar="|".join(PRESETS))] = None,
    name: Annotated[
        str | None, typer.Option(help="Prefix of the runs' names (default: the file's name).")
    ] = None,
    encoding: Annotated[str | None, typer.Option(help="Encoding of the text, if it is not UTF-8.")] = None,
    out: Annotated[Path | None, typer.Option(help="The picture to write (default: NAME.svg).")] = None,
    keep_all: Annotated[bool, typer.Option("--keep-all", help="Keep all runs at the end.")] = False,
    url: Annotated[
        str | None,
        typer.Option(help="A server whose workers train; without one, a worker is started here."),
    ] = None,
    store: Store = None,
    *,
    overrides: dict[str, Any],
) -> None:
    """Try settings on a text and keep the best run: `charloom sweep my.txt --trials 20 --minutes 2`.

    Ctrl-C ends the sweep; the same command continues it. Needs `pip install 'charloom[sweep]'`.
    """
    from app.commands.sweep import Sweep
    from app.commands.sweep import sweep as run

    options = overrides | {"preset": preset, "encoding": encoding}
    with unfailing_output():
        run(Sweep(text, name, trials, parallel, options, tuple(set or ()), keep_all, out), url, store)


@app.command()
def generate(
    model: Annotated[
        str | None,
        typer.Option(help="RUN, RUN@STEP or RUN@best (default: CHARLOOM_MODEL, or the newest)."),
    ] = None,
    prompt: Annotated[str, typer.Option(help="Text to continue.")] = "",
    length: Annotated[int, typer.Option(help="Characters to write.")] = 500,
    temperature: Annotated[float, typer.Option(help="0 always takes the most likely character.")] = 1.0,
    top_k: Annotated[int, typer.Option(help="Choose among the k most likely characters; 0 for all.")] = 0,
    top_p: Annotated[
        float,
        typer.Option(help="Choose among the most likely characters that together reach this probability."),
    ] = 1.0,
    typical_p: Annotated[
        float,
        typer.Option(
            help="Choose among the characters whose surprise is closest to the entropy and that together "
            "reach this probability (locally typical sampling)."
        ),
    ] = 1.0,
    seed: Annotated[int, typer.Option(help="The same seed gives the same text.")] = 0,
    stop: Annotated[
        list[str] | None, typer.Option(help="String that ends the text; may be repeated.")
    ] = None,
    unknown: Annotated[
        str | None,
        typer.Option(
            help="What to do with characters that the model has never seen (CHARLOOM_UNKNOWN).",
            metavar="refuse|drop|replace",
        ),
    ] = None,
    store: Store = None,
) -> None:
    """Write a text with a trained model, without a server."""
    from app.commands.generate import generate as run
    from app.settings import load_settings
    from model.sampling import SamplingConfig

    sampling = SamplingConfig(temperature=temperature, top_k=top_k, top_p=top_p, typical_p=typical_p)
    settings = load_settings(store=store, model=model, unknown=unknown)
    run(settings, prompt, length, sampling, seed, stop or ())


@app.command()
def gradcheck(
    cell: Annotated[str, typer.Option(help="Recurrent cell.", metavar="|".join(CELLS))] = "elman",
    layers: Annotated[int, typer.Option(help="Stacked layers.")] = 1,
    hidden: Annotated[int, typer.Option(help="Hidden units per layer.")] = 100,
    method: Annotated[str | None, typer.Option(help="centred or complex-step (default: both).")] = None,
    elements: Annotated[int, typer.Option(min=0, help="Elements to compare per tensor, 0 for all.")] = 0,
) -> None:
    """Check the gradient of every parameter; the default is the network of the assignment."""
    from app.commands.gradcheck import gradcheck as run

    if not run(cell, layers, hidden, method, elements):
        raise typer.Exit(FAILED)


@app.command()
def report(
    run: Annotated[str, typer.Argument(help="Name of the run.")] = "classic",
    out: Annotated[Path | None, typer.Option(help="The file to write (default: RUN.html).")] = None,
    markdown: Annotated[
        bool, typer.Option(help="Write Markdown, with the picture in a file next to it.")
    ] = False,
    author: Annotated[str, typer.Option(help="Author to print on the report.")] = "",
    date: Annotated[str, typer.Option(help="Date to print on the report.")] = "",
    store: Store = None,
) -> None:
    """Write the full report of a run, as the assignment asks for it, to one file."""
    from app.commands.report import write_report
    from app.settings import load_settings

    form: Literal["markdown", "html"] = "markdown" if markdown else "html"
    write_report(load_settings(store=store), open_store(store), run, out, form, author, date)


@app.command()
def doctor(
    host: Annotated[str | None, typer.Option(help="Address to listen on (CHARLOOM_HOST).")] = None,
    port: Annotated[int | None, typer.Option(help="Port (CHARLOOM_PORT).")] = None,
    store: Store = None,
) -> None:
    """Check versions, BLAS, store, worker, disk, port, gradients and generation; report what to fix."""
    from app.commands.doctor import doctor as run
    from app.settings import load_settings

    if not run(load_settings(host=host, port=port, store=store)):
        raise typer.Exit(FAILED)


@app.command()
def corpus(
    target: Annotated[Path | None, typer.Option(help="Where to save it (CHARLOOM_CORPUS).")] = None,
) -> None:
    """Download the default text, Shakespeare's plays."""
    from app.intake.corpus import fetch
    from app.settings import load_settings

    path = load_settings(corpus=target).corpus
    print(visible(f"downloaded {path}" if fetch(path) else f"{path} exists already"))


def open_store(path: Path | None) -> Any:
    from app.settings import load_settings
    from app.store.run_store import RunStore

    settings = load_settings(store=path)
    return RunStore(settings.store, settings.lease_seconds)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code. Expected errors become one line on standard error."""
    prepare_standard_streams()
    arguments = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    try:
        code = typer.main.get_command(app).main(arguments, prog_name="charloom", standalone_mode=False)
    except UsageError as error:
        return complain(error.format_message())
    except CharloomError as error:
        return complain(str(error))
    except BrokenPipeError:
        # the reader closed the pipe (`charloom runs | head`); Python must not flush into it at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except OSError as error:
        return complain(f"{error.filename}: {error.strerror}" if error.filename else str(error))
    except KeyboardInterrupt:
        return INTERRUPTED
    return code or 0


def complain(message: str) -> int:
    print(f"charloom: {visible(' '.join(message.split()))}", file=sys.stderr)
    return USAGE_ERROR


if __name__ == "__main__":
    sys.exit(main())
