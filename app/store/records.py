"""The small JSON files of a run as validated records: specification, status, requests, newest checkpoints."""

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
LARGEST_NUMBER = 1e100  # far more than a loss can be; a sum of such numbers is still finite
MAX_REASON = 300  # characters of a parser's message, which may quote the file

RUN_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}", re.ASCII)
CheckpointFile = Annotated[str, Field(pattern=r"^(step|best)-[0-9]{9,12}\.safetensors$")]
State = Literal["queued", "training", "paused", "finished", "failed", "stopped"]
Wanted = Literal["train", "pause", "stop"]
Step = Annotated[int, Field(ge=0, le=MAX_STEP)]
Count = Annotated[int, Field(ge=0, le=MAX_COUNT)]
Time = Annotated[float, Field(ge=0, le=MAX_TIME)]  # Unix seconds, or a duration
Number = Annotated[float, Field(ge=-LARGEST_NUMBER, le=LARGEST_NUMBER, allow_inf_nan=False)]
Speed = Annotated[float, Field(ge=0, le=MAX_COUNT)]
BaselineName = Annotated[str, Field(pattern=r"^[a-z0-9-]{1,20}$")]  # drawn, so without any markup
Fraction = Annotated[float, Field(ge=0, le=1)]
ENDED = ("finished", "failed", "stopped")  # states of a run that does not continue unless a user resumes it


class Record(BaseModel):
    """A JSON file that is read and replaced as a whole."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    format: Annotated[int, Field(ge=1, le=MAX_COUNT)] = FORMAT

    @classmethod
    def read(cls, path: Path) -> Self:
        """Reads a file. Raises FileNotFoundError if it does not exist, RunFileError if it cannot be used."""
        name = f"{path.parent.name}/{path.name}"
        try:
            return cls.parse(read_regular(path, RECORD_LIMIT), name)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise RunFileError(f"{name} cannot be read: {error.strerror or error}") from error

    @classmethod
    def parse(cls, data: bytes, name: str) -> Self:
        """The record in the content of a file; `name` is for error messages. Raises RunFileError."""
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
        except Exception as error:  # the parser may raise anything for a damaged file
            reason = str(error)
        raise RunFileError(f"{name} is damaged or was not written by Charloom: {reason:.{MAX_REASON}}")

    def write(self, path: Path) -> None:
        """Replaces the file at `path`. Raises OSError, RunFileError if the record could not be read back."""
        write_atomic(path, self.encoded(path.name))

    def encoded(self, name: str) -> bytes:
        """The content of the file `name`. Raises RunFileError if the record could not be read back."""
        data = self.model_dump_json(indent=2).encode() + b"\n"
        if len(data) > RECORD_LIMIT:
            raise RunFileError(f"{name} would have {len(data):,} bytes; at most {RECORD_LIMIT:,} are read")
        self.parse(data, name)
        return data


class TextFinding(BaseModel):
    """A problem found in a text. `position` is in characters, or in bytes if the text cannot be decoded."""

    model_config = ConfigDict(frozen=True)

    level: Literal["refusal", "warning"]
    code: str
    message: str
    position: Count | None
    file: str | None


class RunSpec(Record):
    """The specification of a run; never rewritten.

    Attributes:
        corpus_name: the file name of the text, for people.
        corpus_sha256: the digest of the text in UTF-8.
        characters: the length of the text.
        position: the run's place in the queue.
        created: in Unix seconds.
        parent: the `run@step` that it was forked from.
        licence: the licence of the text, as given by its owner.
        training_file: the id of the uploaded file that the text came from.
        findings: problems found in the text when it was imported.
        parts: the models that it was merged from.
        apart: whether it is a group, whose members are trained as separate runs (app/store/groups.py).
        group, member: for a member of a group, the group's name and the member's number, counted from 1.
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
        """The names of a group's members; empty for a run that is not a group."""
        return [f"{self.name}.{number}" for number in range(1, 1 + self.config.members)] if self.apart else []

    @property
    def steps(self) -> int:
        """The number of updates of the whole run; 0 if it ends by time."""
        return 0 if self.config.minutes else self.config.steps


class Status(Record):
    """The status of a run. Losses are in nats per character, times in Unix seconds.

    Attributes:
        steps: the number of updates of the whole run; 0 if it ends by time.
        fraction: the completed fraction of the run.
        heartbeat: when the worker last wrote this file, by its own clock.
        host, process: the worker.
        reason: why the run has this state, for people.
        retry_at: when the worker ends a pause that it made itself; None for a pause that a user asked for.
        validation_step: the step of `validation_loss`.
        seconds: of training so far.
        warnings: for people.
        rollbacks: the steps that the run was rolled back to.
        overfitting_since: the step of the lowest held-out loss if the run is overfitting.
        deaths: how many workers in a row died while training the run from the checkpoint of step `died_at`.
        lost: host and process of workers that lost the run at that step and may be alive.
        kernel: the BLAS kernel of the last worker (app/store/capacity.py).
    """

    state: State = "queued"
    step: Step = 0
    steps: Step = 0
    fraction: Fraction = 0.0
    heartbeat: Time = 0.0
    host: str | None = None
    process: Count | None = None
    reason: str | None = None
    retry_at: Time | None = None
    loss: Number | None = None
    smooth_loss: Number | None = None
    validation_loss: Number | None = None
    validation_step: Step | None = None
    characters_per_second: Speed | None = None
    seconds: Time = 0.0
    expected_end: Time | None = None
    warnings: list[str] = []
    rollbacks: list[Step] = []
    overfitting_since: Step | None = None
    deaths: Count = 0
    died_at: Step | None = None
    lost: list[tuple[str, int]] = []
    kernel: str | None = None

    @property
    def held(self) -> bool:
        """Whether the run is paused until a user resumes it."""
        return self.state == "paused" and self.retry_at is None


class Control(Record):
    """The requests of users for a run; servers write this file and the worker acts on it.

    Attributes:
        wanted: the last request.
        asked: when, in Unix seconds.
        answers: the heartbeat of the status at that time. If the status has another heartbeat, the worker has
            acted since; the clocks of two machines cannot be compared.
        priority: runs of higher priority are trained first.
    """

    wanted: Wanted | None = None
    asked: Time = 0.0
    answers: Time | None = None
    priority: Annotated[int, Field(ge=-1000, le=1000)] = 0

    def applied_to(self, status: Status) -> Status:
        """The status that results from the worker's last one and these requests.

        A run in training keeps its state until the worker has stopped it.
        """
        state = status.state
        if self.wanted in ("pause", "stop") and state in ("queued", "paused"):
            reason = "paused on request" if self.wanted == "pause" else f"stopped at step {status.step:,}"
            changed: State = "paused" if self.wanted == "pause" else "stopped"
            changes = {"state": changed, "reason": reason, "retry_at": None, "expected_end": None}
            return status.model_copy(update=changes)
        waits = state in ("failed", "stopped") or status.held
        # earlier versions wrote only the time
        due = self.asked > status.heartbeat if self.answers is None else self.answers == status.heartbeat
        if self.wanted == "train" and waits and due:
            return status.model_copy(update={"state": "queued", "reason": None})
        return status


class Baselines(Record):
    """Losses of the baseline models (model/ngram.py) on the held-out text, by name, in nats per character."""

    losses: Annotated[dict[BaselineName, Annotated[Number, Field(ge=0)]], Field(max_length=10)]


class CheckpointEntry(BaseModel):
    """A checkpoint file of a run: its name, step, content digest, and when it was written, in Unix seconds.

    The `time` is by the clock of the volume, because those of machines may differ. An `imported` checkpoint
    was not trained here; it is served by default only if there is no other.
    """

    model_config = ConfigDict(frozen=True)

    file: CheckpointFile
    step: Step
    digest: str
    time: Time
    loss: Number | None = None
    imported: bool = False


class Latest(Record):
    """The newest checkpoint of a run, and the best one so far, with its `loss`."""

    newest: CheckpointEntry
    best: CheckpointEntry | None = None
