"""Mutated input from outside: checkpoints, records, curves, zips and forms.

    python -m tests.faults.fuzz --seconds 600

Each case is a golden file or request with random changes. It must be accepted or refused; any other exception
is a finding, which is printed with the name of its case. `--case zip:17` runs that case again. The exit code
is 1 if there are findings.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import itertools
import json
import logging
import random
import shutil
import sys
import tempfile
import time
import traceback
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from starlette.exceptions import HTTPException
from starlette.requests import Request

from app.api.native.run_info import describe
from app.api.openai import jobs
from app.engine.loaded_model import prepared
from app.engine.models import ModelStore
from app.errors import RunFileError
from app.intake.archive import export, import_run
from app.intake.new_runs import check
from app.server.upload_body import received
from app.slots import UploadSlots
from app.store.capacity import Capacity
from app.store.history import POINTS, SAMPLES
from app.store.leases import StoreInfo
from app.store.loss_curves import Curves
from app.store.records import Baselines, Control, Latest, RunSpec, Status
from app.store.run_store import RunStore
from app.store.space import Budget, Limits
from app.store.uploads import UploadedFile
from app.training.recovery import resuming
from model import checkpoint as checkpoints
from model.checkpoint import decode
from model.errors import CharloomError
from model.training import Training

GOLDEN = Path(__file__).parents[1] / "golden" / "format-1" / "checkpoints"
RUN = GOLDEN / "elman"
ODD: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2**31, 2**63, 10**15, 10**400, 0.5, -0.0, 1e308, 1e-320),
    *(
        float("inf"),
        float("nan"),
        "",
        "x",
        "\ud800",
        "\0",
        "é" * 100,
        "9" * 400,
        [],
        {},
        [[]],
        [1, 2, 3],
        {"step": 1},
    ),
    *("gru", "step-000000040.safetensors", "../../x", "nan"),
)
BYTES = (
    b"",
    b"\0",
    b"\xff",
    b"\n",
    b"[",
    b"{",
    b'"',
    b"\\ud800",
    b"Infinity",
    b"9" * 400,
    b"[" * 3000,
    b"\r\n--x\r\n",
)


def changed_json(rng: random.Random, value: Any) -> Any:
    """`value` with one to three places changed."""
    for _ in range(rng.randint(1, 3)):
        value = _changed_once(rng, value)
    return value


def _changed_once(rng: random.Random, value: Any) -> Any:
    if isinstance(value, dict) and value and rng.random() < 0.9:
        key = rng.choice(sorted(value))
        if rng.random() < 0.1:
            return {name: part for name, part in value.items() if name != key}
        return value | {key: _changed_once(rng, value[key])}
    if isinstance(value, list) and value and rng.random() < 0.8:
        index = rng.randrange(len(value))
        return [*value[:index], _changed_once(rng, value[index]), *value[index + 1 :]]
    if type(value) in (int, float) and rng.random() < 0.4:
        return rng.choice((value + 1, value - 1, value * 2, -value))
    if rng.random() < 0.1:
        return [value] if rng.random() < 0.5 else {"x": value}
    return rng.choice(ODD)


def changed_bytes(rng: random.Random, data: bytes) -> bytes:
    """`data` with some bytes flipped, removed, repeated or inserted."""
    changed = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(changed) + 1)
        end = min(len(changed), at + rng.choice((1, 2, 4, 8, 100)))
        kind = rng.randrange(5)
        if kind == 0 and at < len(changed):
            changed[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del changed[at:end]
        elif kind == 2:
            changed[at:at] = rng.choice(BYTES)
        elif kind == 3:
            changed[at:end] = rng.randbytes(end - at)
        elif at < len(changed):
            changed[at:at] = changed[at:end]
    return bytes(changed)


def text_of(value: Any) -> str:
    return json.dumps(value, ensure_ascii=True)


class Fuzzer:
    """The targets, and the directories and files that they work on."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.root = folder / "store"
        shutil.copytree(GOLDEN, self.root)
        self.store = RunStore(self.root)
        self.limits = Limits(4_000_000, 1000, Budget(self.store, 0))
        self.files = {path.name: path.read_bytes() for path in RUN.iterdir()}
        export(self.store.get("elman"), None, True, folder / "elman.zip")
        self.exported = (folder / "elman.zip").read_bytes()
        with zipfile.ZipFile(io.BytesIO(self.exported)) as archive:
            self.members = {name: archive.read(name) for name in archive.namelist()}
        self.weights = self.files["step-000000040.safetensors"]
        self.tensors = checkpoints.load_tensors(self.weights)
        self.described = json.loads(checkpoints._metadata(self.weights, "").partition(" ")[2])
        self.vocabulary = checkpoints.Vocabulary(self.described["vocabulary"])
        self.ids = self.vocabulary.encode(self.files["corpus.txt"].decode())

    def checkpoint(self, rng: random.Random) -> None:
        """Changed metadata with a matching checksum, or a damaged file."""
        if rng.random() < 0.8:
            text = text_of(changed_json(rng, self.described))
            if rng.random() < 0.1:
                text = changed_bytes(rng, text.encode()).decode("utf-8", "replace")
            digest = checkpoints._digest(text, self.tensors)
            data = checkpoints.save_tensors(self.tensors, {"charloom": f"{digest} {text}"})
        else:
            data = changed_bytes(rng, self.weights)
        decoded = decode(data)
        assert decoded.losses is not None
        prepared("elman", RUN, decoded)
        if decoded.config.hidden * decoded.config.streams * decoded.config.sequence_length < 10**6:
            self.resume(decoded)

    def resume(self, checkpoint: checkpoints.Checkpoint) -> None:
        """Resume it as the worker does, for one update and one checkpoint."""
        with resuming(checkpoint, self.folder / "step", self.vocabulary):
            training = Training.resume(checkpoint, self.ids)
        with np.errstate(over="ignore", invalid="ignore"):
            training.update()
            training.validate()
        if np.isfinite(training.parameters).all():
            decode(checkpoints.encode(training.checkpoint()))
        decode(checkpoints.encode(training.best_checkpoint()))

    def record(self, rng: random.Random) -> None:
        """A record of a run; one that is accepted can be written and read again."""
        kind, name = rng.choice(
            (
                (RunSpec, "run.json"),
                (Status, "status.json"),
                (Latest, "latest.json"),
                (Control, ""),
                (Baselines, ""),
                (UploadedFile, ""),
                (Capacity, ""),
                (StoreInfo, ""),
            )
        )
        seeds = {
            "Control": b'{"wanted": "stop", "asked": 1.5, "priority": 3}',
            "Baselines": b'{"losses": {"x": 1.0}}',
            "UploadedFile": b'{"id": "x", "filename": "x", "size": 1, "purpose": "x", "created": 1.5}',
            "Capacity": b'{"memory": 1000, "cores": 2}',
            "StoreInfo": b'{"lease_seconds": 30.0}',
        }
        data = self.files.get(name) or seeds[kind.__name__]
        data = (
            changed_bytes(rng, data)
            if rng.random() < 0.3
            else text_of(changed_json(rng, json.loads(data))).encode()
        )
        path = self.folder / "record.json"
        path.write_bytes(data)
        record = kind.read(path)
        record.write(path)
        assert kind.read(path) == record

    def lines(self, rng: random.Random) -> None:
        """Curves and samples are read without any exception, and can be checked."""
        name, kind = rng.choice((("history.jsonl", POINTS), ("samples.jsonl", SAMPLES)))
        lines = self.files[name].splitlines()
        at = rng.randrange(len(lines))
        lines[at] = text_of(changed_json(rng, json.loads(lines[at]))).encode()
        data = b"\n".join(lines) + b"\n"
        path = self.folder / name
        path.write_bytes(changed_bytes(rng, data) if rng.random() < 0.5 else data)
        assert len(kind.read(path)) <= len(kind.newest(path, 0, 10**6)) + 1
        json.dumps(kind.read(path), allow_nan=False).encode()
        kind.cut_back(path, 20)
        path.write_bytes(data)
        kind.check(path)

    def run(self, rng: random.Random) -> None:
        """A run with a changed file in a store: every list is still complete."""
        name = rng.choice([name for name in self.files if name != "corpus.txt"])
        path = self.root / "elman" / name
        data = self.files[name]
        if name.endswith(".json") and rng.random() < 0.7:
            data = text_of(changed_json(rng, json.loads(data))).encode()
        else:
            data = changed_bytes(rng, data)
        path.unlink()
        path.write_bytes(data)
        try:
            store = RunStore(self.root)
            models = ModelStore(store)
            models.refresh()
            assert models.ready
            services = type("Services", (), {"runs": store, "models": models})()
            runs = store.list()
            assert "gru" in {run.name for run in runs}
            for run in runs:
                json.dumps(describe(services, run).model_dump(mode="json"), allow_nan=False).encode()
            assert len(jobs.described(runs)) == len(runs) or name == "run.json"
            for run in runs:
                with contextlib.suppress(RunFileError):  # an error about this run only
                    Curves().get(run).thinned(10)
        except CharloomError as error:
            raise AssertionError("a fault of one run must not end a list") from error
        finally:
            path.unlink()
            path.write_bytes(self.files[name])

    def zip(self, rng: random.Random) -> None:
        """Import of a changed export."""
        if rng.random() < 0.5:
            data = changed_bytes(rng, self.exported)
        else:
            members = dict(self.members)
            name = rng.choice(sorted(members))
            if name == "run.json":
                members[name] = text_of(changed_json(rng, json.loads(members[name]))).encode()
            else:
                members[name] = changed_bytes(rng, members[name])
            content = io.BytesIO()
            with zipfile.ZipFile(content, "w", rng.choice((0, 8, 12, 14))) as archive:
                for member, part in members.items():
                    archive.writestr(member, part)
            data = content.getvalue()
        run = import_run(self.store, {"name": "imported"}, io.BytesIO(data), self.limits)
        shutil.rmtree(run.path)

    def form(self, rng: random.Random) -> None:
        """Upload of any kind, received and checked."""
        part = b'--x\r\nContent-Disposition: form-data; name="%s"%s\r\n\r\n%s\r\n'
        text = self.files["corpus.txt"][:500]
        small_zip = io.BytesIO()
        with zipfile.ZipFile(small_zip, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("a.txt", text)
        body, kind = rng.choice(
            (
                (
                    part % (b"file", b'; filename="a.txt"', text)
                    + part % (b"hidden", b"", b"4")
                    + b"--x--\r\n",
                    "multipart/form-data; boundary=x",
                ),
                (
                    part % (b"file", b'; filename="a.zip"', small_zip.getvalue()) + b"--x--\r\n",
                    "multipart/form-data; boundary=x",
                ),
                (
                    text_of({"text": text.decode(), "hidden": 4, "epochs": 2, "priority": 1}).encode(),
                    "application/json",
                ),
                (small_zip.getvalue(), "application/zip"),
                (b"text=Sat+ran+on&name=x", "application/x-www-form-urlencoded"),
                (text, "text/plain; charset=utf-8"),
            )
        )
        if kind == "application/json" and rng.random() < 0.6:
            body = text_of(changed_json(rng, json.loads(body))).encode()
        else:
            body = changed_bytes(rng, body)
        if rng.random() < 0.2:
            kind = changed_bytes(rng, kind.encode()).decode("latin-1")
        asyncio.run(self._upload(body, kind))

    async def _upload(self, body: bytes, kind: str) -> None:
        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": body, "more_body": False}

        scope = {
            "type": "http",
            "method": "POST",
            "path": "/runs",
            "client": None,
            "query_string": b"",
            "headers": [(b"content-type", kind.encode("latin-1"))],
        }
        async with received(Request(scope, receive), 1_000_000, UploadSlots(1)) as upload:
            check(self.store, upload.options, upload.sources, self.limits)


TARGETS = ("checkpoint", "record", "lines", "run", "zip", "form")
REFUSALS = (CharloomError, HTTPException)


def run_case(fuzzer: Fuzzer, target: str, number: int) -> str:
    """`accepted`, `refused`, or the traceback of a finding."""
    rng = random.Random(f"{target}:{number}")
    try:
        getattr(fuzzer, target)(rng)
    except REFUSALS as error:
        if str(fuzzer.folder) in str(error):
            return f"the message contains a path: {error}"
        return "refused"
    except Exception:
        return traceback.format_exc()
    return "accepted"


def cases(targets: tuple[str, ...], first: int) -> Iterator[tuple[str, int]]:
    return ((target, number) for number in itertools.count(first) for target in targets)


def fuzz(stop: Callable[[int], bool], first: int = 0) -> tuple[Counter[str], dict[str, str]]:
    """Counts of results until `stop(count)` is true, and the first traceback of each kind of finding."""
    counts: Counter[str] = Counter()
    findings: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as name:
        fuzzer = Fuzzer(Path(name))
        for count, (target, number) in enumerate(cases(TARGETS, first)):
            if stop(count):
                break
            result = run_case(fuzzer, target, number)
            kind = result if result in ("accepted", "refused") else "finding"
            counts[f"{target} {kind}"] += 1
            if kind == "finding":
                place = "\n".join(result.splitlines()[-6:])
                findings.setdefault(place, f"{target}:{number}\n{result}")
    return counts, findings


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--case", help="run one case again, such as zip:17")
    asked = parser.parse_args()
    logging.disable(logging.CRITICAL)
    if asked.case:
        target, _, number = asked.case.partition(":")
        with tempfile.TemporaryDirectory() as name:
            print(run_case(Fuzzer(Path(name)), target, int(number)))
        return 0
    end = time.monotonic() + asked.seconds
    counts, findings = fuzz(lambda count: time.monotonic() > end, asked.first)
    for finding in findings.values():
        print(finding)
    print(f"{counts.total():,} cases, {len(findings)} kinds of findings")
    for name, count in sorted(counts.items()):
        print(f"  {name}: {count:,}")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
