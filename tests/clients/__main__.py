"""Run third-party clients against this server, and print the results as a table for docs/clients.md.

    python -m tests.clients            # all of them; guidellm installs PyTorch, several gigabytes
    python -m tests.clients hub litellm

The newest version of each client is installed into its own environment in a temporary directory. Its check is
a program in `checks/` that gets only the address of the server, and fails on any unexpected result.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path
from typing import NamedTuple

from app.store.run_store import RunStore
from app.training.trainer import train_run
from tests.support.runs import gru_like, small_text
from tests.support.servers import server_process

CHECKS = Path(__file__).parent / "checks"
SECONDS = 600
SHOWN = 300  # characters of an error in the table


class Client(NamedTuple):
    """A client: the program that checks it, and the packages to install; the first gives name and version."""

    check: str
    packages: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.packages[0]


CLIENTS = {
    "hub": Client("hub.py", ("huggingface_hub",)),
    "text-generation": Client("text_generation_client.py", ("text-generation",)),
    "langchain": Client(
        "langchain_endpoint.py", ("langchain-huggingface", "langchain-community", "text-generation")
    ),
    "litellm": Client("litellm_client.py", ("litellm",)),
    "haystack": Client("haystack_client.py", ("huggingface-api-haystack", "haystack-ai")),
    "llama-index": Client(
        "llama_index_client.py",
        (
            "llama-index-llms-huggingface-api",
            "llama-index-llms-text-generation-inference",
            "llama-index-llms-openai-like",
        ),
    ),
    "lm-eval": Client("lm_eval_auto.py", ("lm-eval", "lm-eval[api]")),
    "guidellm": Client("guidellm_run.py", ("guidellm",)),
    "inference.js": Client("inference.mjs", ("@huggingface/inference",)),
    "openai.js": Client("openai_stream.mjs", ("openai",)),
}


def main(names: list[str]) -> int:
    """Check the named clients, or all; return the number of failures."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        store = RunStore(folder / "checkpoints")
        train_run(store.create("gru", gru_like(), small_text(), "small.txt"), lambda: False)
        rows, failed = ["| client | version | what was tried | result |", "|---|---|---|---|"], 0
        with server_process(store.root) as server:
            for name in names or CLIENTS:
                client = CLIENTS[name]
                error = check(client, folder / name, str(server.base_url).rstrip("/"))
                failed += error is not None
                tried = (CHECKS / client.check).read_text().splitlines()[0].strip('"/ ')
                what = tried.partition(": ")[2].rstrip(".")
                version = installed(client, folder / name)
                rows.append(f"| {client.name} | {version} | {what} | {error or 'works'} |")
                print(rows[-1], file=sys.stderr)
    print("\n".join(rows))
    return failed


def check(client: Client, folder: Path, url: str) -> str | None:
    """The error in one line, or None."""
    folder.mkdir()
    # a client stores its files in its own directory
    environment = os.environ | {"HOME": str(folder), "HF_HOME": str(folder)}
    if client.check.endswith(".mjs"):
        (folder / client.check).write_text((CHECKS / client.check).read_text())
        install = ["npm", "install", "--silent", "--no-audit", *client.packages]
        program = ["node", client.check, url]
    else:
        venv.create(folder / "venv", with_pip=True)
        python = str(folder / "venv/bin/python")
        install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *client.packages]
        program = [python, str(CHECKS / client.check), url]
    for command in (install, program):
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=SECONDS, check=False
        )
        if done.returncode:
            lines = (done.stderr.strip() or done.stdout.strip()).splitlines() or ["no message"]
            print(done.stdout, done.stderr, file=sys.stderr)
            return f"{command[0]}: {lines[-1]}"[-SHOWN:].replace("|", "\\|")
    return None


def installed(client: Client, folder: Path) -> str:
    """The installed version of the client."""
    if client.check.endswith(".mjs"):
        package = folder / "node_modules" / client.name / "package.json"
        return str(json.loads(package.read_text())["version"]) if package.exists() else "none"
    ask = f"from importlib.metadata import version; print(version({client.name!r}))"
    python = folder / "venv/bin/python"
    done = subprocess.run([python, "-c", ask], capture_output=True, text=True, timeout=60, check=False)
    return done.stdout.strip() or "none"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
