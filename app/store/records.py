"""The small JSON files of a run, as validated records: what was asked, where it stands, what to load."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from app.errors import RunFileError
from app.store.files import read_regular, write_atomic
from model.checkpoint import MAX_STEP
from model.config import RunConfig

FORMAT = 1
RECORD_LIMIT = 1 << 20
MAX_TIME = 253_402_300_799.0  # the end of the year 9999, in Unix seconds
MAX_COUNT = 10**15
MAX_REASON = 300  # characters of a refusal that come from the file

RUN_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}", re.ASCII)
CheckpointFile = Annotated[str, Field(pattern=r"^(step|best)-[0-9]{9,12}\.safetensors$")]
State = Literal["queued", "training", "paused", "finished", "failed", "stopped"]
Wanted = Literal["train", "pause", "stop"]
Step = Annotated[int, Field(ge=0, le=MAX_STEP)]
Count = Annotated[int, Field(ge=0, le=MAX_COUNT)]
Time = Annotated[float, Field(ge=0, le=MAX_TIME)]  # Unix seconds, or a duration
Number = Annotated[float, Field(allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, le=1)]
ENDED = ("finished", "failed", "stopped")  # states of a run that has ended, until a person resumes it


class Record(BaseModel):
    """A JSON file that is read whole and replaced whole."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    format: Annotated[int, Field(ge=1, le=MAX_COUNT)] = FORMAT

    @classmethod
    def read(cls, path: Path) -> Self:
        """Raises FileNotFoundError where there is no file, and RunFileError for one that cannot be used."""
        name = f"{path.parent.name}/{path.name}"
        try:
            return cls.parse(read_regular(path, RECORD_LIMIT), name)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise RunFileError(f"{name} cannot be read: {error.strerror or error}") from error

    @classmethod
    def parse(cls, data: bytes, name: str) -> Self:
        """The record in a file's bytes; `name` is what a refusal calls it. Raises RunFileError."""
        try:
            written = Record.model_validate_json(data).format
            if written > FORMAT:
                raise RunFileError(
                    f"{name} has format {written}; this version reads up to {FORMAT}: update Charloom"
                )
            return cls.model_validate_json(data)
        except RunFileError:
            raise
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            reason = f"{'.'.join(map(str, first['loc']))} {first['msg']}"
        except Exception as error:  # whatever the parser raises, the file cannot be used
            reason = str(error)
        raise RunFileError(f"{name} is damaged or was not written by Charloom: {reason:.{MAX_REASON}}")

    def write(self, path: Path) -> None:
        """Replace the file at `path`. Raises OSError, RunFileError for what could not be read again."""
        write_atomic(path, self.encoded(path.name))

    def encoded(self, name: str) -> bytes:
        """The bytes of a file of that name. Raises RunFileError for what could not be read again."""
        data = self.model_dump_json(indent=2).encode() + b"\n"
        if len(data) > RECORD_LIMIT:
            raise RunFileError(f"{name} would have {len(data):,} bytes; at most {RECORD_LIMIT:,} are read")
        self.parse(data, name)
        return data


class TextFinding(BaseModel):
    """Something worth knowing of a text; `position` in characters, or in bytes of what cannot be decoded."""

    model_config = ConfigDict(frozen=True)

    level: Literal["refusal", "warning"]
    code: str
    message: str
    position: Count | None
    file: str | None


class RunSpec(Record):
    """What was asked of a run; never rewritten.

    `position` is its place in the queue, `characters` the length of its text, `created` in Unix seconds,
    `parent` the `run@step` that it was forked from, `licence` that of its text, as the owner named it,
    `training_file` the id of the uploaded file that its text came from, if it did, `findings` what was worth
    knowing of the text when it came, `parts` the models that it is merged from. An `apart` run is a group:
    each member of its ensemble is trained as a run of its own, which names the `group` and is its `member` of
    that number, counted from 1.
    """

    name: Annotated[str, Field(pattern=f"^{RUN_NAME.pattern}$")]
    config: RunConfig
    corpus_name: str
    corpus_sha256: str
    characters: Annotated[int, Field(ge=1, le=MAX_COUNT)]
    position: Count
    created: Time
    parent: str | None = None
    licence: str = ""
    training_file: str = ""
    findings: list[TextFinding] = []
    parts: list[str] = []
    apart: bool = False
    group: str | None = None
    member: Annotated[int, Field(ge=0, le=MAX_COUNT)] = 0

    @property
    def preset(self) -> str:
        return self.config.preset

    @property
    def member_names(self) -> list[str]:
        """The runs of a group's members."""
        return [f"{self.name}.{number}" for number in range(1, 1 + self.config.members)] if self.apart else []

    @property
    def steps(self) -> int:
        """Updates that the run takes, 0 if it ends by time."""
        return 0 if self.config.minutes else self.config.steps


class Status(Record):
    """Where a run stands. Losses are in nats per character, times in Unix seconds.

    `steps` is what the run takes in all, 0 if it ends by time; `fraction` the part of it that is done;
    `heartbeat` when the worker last wrote this, by its own clock; `host` and `process` name that worker;
    `seconds` the training time so far. A pause with `retry_at`
    is the worker's own and ends at that time; one without was asked for by a person. `warnings` are for
    people. Steps: `validation_step` of `validation_loss`, `rollbacks` to which the run went back,
    `overfitting_since` of the lowest held-out loss. `deaths` is how many workers in a row died while they
    trained the run from the checkpoint of step `died_at`,
    `kernel` what multiplied the matrices last (app/store/capacity.py).
    """

    state: State = "queued"
    step: Step = 0
    steps: Step = 0
    fraction: Fraction = 0.0
    heartbeat: Time = 0.0
    host: str | None = None
    process: int | None = None
    reason: str | None = None
    retry_at: Time | None = None
    loss: Number | None = None
    smooth_loss: Number | None = None
    validation_loss: Number | None = None
    validation_step: Step | None = None
    characters_per_second: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    seconds: Time = 0.0
    expected_end: Time | None = None
    warnings: list[str] = []
    rollbacks: list[Step] = []
    overfitting_since: Step | None = None
    deaths: Count = 0
    died_at: Step | None = None
    kernel: str | None = None

    @property
    def held(self) -> bool:
        """Whether the run is paused until a person resumes it."""
        return self.state == "paused" and self.retry_at is None


class Control(Record):
    """What people ask of a run: the one file of it that servers write and the worker obeys.

    `asked` is when, in Unix seconds; `answers` is the heartbeat of the status that it was asked about, which
    tells whether the worker has obeyed since: the clocks of two machines may differ. Runs of a higher
    `priority` go first.
    """

    wanted: Wanted | None = None
    asked: Time = 0.0
    answers: Time | None = None
    priority: Annotated[int, Field(ge=-1000, le=1000)] = 0

    def applied_to(self, status: Status) -> Status:
        """Where a run stands, given what the worker wrote last; it trains until it has stopped."""
        state = status.state
        if self.wanted in ("pause", "stop") and state in ("queued", "paused"):
            reason = "paused on request" if self.wanted == "pause" else f"stopped at step {status.step:,}"
            changed: State = "paused" if self.wanted == "pause" else "stopped"
            changes = {"state": changed, "reason": reason, "retry_at": None, "expected_end": None}
            return status.model_copy(update=changes)
        waits = state in ("failed", "stopped") or status.held
        # earlier versions wrote the time alone
        due = self.asked > status.heartbeat if self.answers is None else self.answers == status.heartbeat
        if self.wanted == "train" and waits and due:
            return status.model_copy(update={"state": "queued", "reason": None})
        return status


class Baselines(Record):
    """What models without a network reach on the run's held-out text, by name, in nats per character."""

    losses: dict[str, Annotated[float, Field(ge=0, allow_inf_nan=False)]]


class CheckpointEntry(BaseModel):
    """One checkpoint file of a run: its name, update, content digest, and the Unix time it was written here.

    What was `imported` was not trained here: it is served by default only where nothing else is.
    """

    model_config = ConfigDict(frozen=True)

    file: CheckpointFile
    step: Step
    digest: str
    time: Time
    loss: Number | None = None
    imported: bool = False


class Latest(Record):
    """The checkpoints that readers want: the newest, and the best so far (its `loss` says how good)."""

    newest: CheckpointEntry
    best: CheckpointEntry | None = None
