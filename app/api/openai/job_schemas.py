"""The JSON of OpenAI's files and fine-tuning jobs; a job is a run."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from app.api.fields import LARGEST_SEED, Only
from app.api.openai.schemas import FORBIDDING

Auto = Literal["auto"]
FineTuningStatus = Literal["queued", "running", "paused", "succeeded", "failed", "cancelled"]
Setting = str | int | float


class FileObject(BaseModel):
    """An uploaded file."""

    id: str
    object: Literal["file"] = "file"
    bytes: int
    created_at: int
    filename: str
    purpose: str
    status: Literal["processed"] = "processed"


class FileList(BaseModel):
    """Uploaded files, by default the newest first."""

    object: Literal["list"] = "list"
    data: list[FileObject]
    has_more: bool


class FileDeleted(BaseModel):
    """A file was deleted; runs created from it keep their text."""

    id: str
    object: Literal["file"] = "file"
    deleted: Literal[True] = True


class Hyperparameters(BaseModel):
    """How to train; `auto`, the default, uses the value of the preset or of the run to continue from."""

    model_config = FORBIDDING

    n_epochs: Annotated[int, Field(gt=0, le=1_000_000)] | Auto | None = Field(
        None, description="Number of passes over the text."
    )
    batch_size: Annotated[int, Field(ge=1, le=1024)] | Auto | None = Field(
        None, description="Number of streams: positions of the text that are read in parallel."
    )
    learning_rate_multiplier: Annotated[float, Field(gt=0, le=1000)] | Auto | None = Field(
        None, description="Factor of the learning rate of the preset, or of the run that the job starts from."
    )


class Supervised(BaseModel):
    """The only supported method."""

    model_config = FORBIDDING

    hyperparameters: Hyperparameters | None = None


class FineTuningMethod(BaseModel):
    """The training method."""

    model_config = FORBIDDING

    type: Literal["supervised"]
    supervised: Supervised | None = None


class JobRequest(BaseModel):
    """What to train, and on which file; null is the same as absent."""

    model_config = FORBIDDING | ConfigDict(
        json_schema_extra={
            "examples": [
                {"model": "auto", "training_file": "file-0123456789abcdef01234567", "suffix": "mine"}
            ]
        }
    )

    model: Annotated[str, StringConstraints(max_length=200)] = Field(
        description="A run (`run`, `run@step`), from which training continues; or, for a new network, the "
        "name of a preset (if no run has that name), or `auto`, which chooses sizes that suit the text."
    )
    training_file: Annotated[str, StringConstraints(max_length=200)] = Field(
        description="Id of an uploaded file: a plain text, a zip of texts, or JSON lines with `text`, with "
        "`prompt` and `completion`, or with `messages`."
    )
    suffix: Annotated[str, StringConstraints(max_length=64)] | None = Field(
        None, description="The name of the run, with a number appended if it is taken."
    )
    seed: int | None = Field(None, ge=0, le=LARGEST_SEED)
    hyperparameters: Hyperparameters | None = None
    method: FineTuningMethod | None = Field(None, description="The newer form of `hyperparameters`.")
    options: dict[str, Setting] | None = Field(
        None, description="Settings of the run as `POST /runs` takes them, such as `minutes`. Not OpenAI's."
    )
    validation_file: Annotated[Any, Only()] = Field(
        None, description="Not supported: part of the text is held out automatically."
    )
    integrations: Annotated[Any, Only([])] = Field(None, description="Not supported.")
    metadata: dict[str, str] | None = Field(None, description="Accepted and ignored.")


class HyperparametersUsed(BaseModel):
    """The hyperparameters of a run; `n_epochs` is `auto` if the run ends by time."""

    n_epochs: int | Auto
    batch_size: int
    learning_rate_multiplier: float


class JobError(BaseModel):
    """Why a job failed."""

    code: str
    message: str
    param: str | None = None


class SupervisedUsed(BaseModel):
    """The hyperparameters, in their newer place."""

    hyperparameters: HyperparametersUsed


class MethodUsed(BaseModel):
    """The training method of a run."""

    type: Literal["supervised"] = "supervised"
    supervised: SupervisedUsed


class FineTuningJob(BaseModel):
    """A run as a job. Times in Unix seconds."""

    id: str
    object: Literal["fine_tuning.job"] = "fine_tuning.job"
    created_at: int
    finished_at: int | None
    estimated_finish: int | None
    model: str = Field(description="What the run started from: a checkpoint or a preset.")
    fine_tuned_model: str | None = Field(description="The run, once the job has ended with a checkpoint.")
    organization_id: str = "charloom"
    status: FineTuningStatus
    error: JobError | None
    hyperparameters: HyperparametersUsed
    method: MethodUsed
    seed: int
    training_file: str = Field(
        description="Id of the uploaded file, or the name of a text that was not uploaded as a file."
    )
    validation_file: None = None
    result_files: list[str] = []
    trained_tokens: int = Field(description="Characters read so far.")
    integrations: list[Any] = []
    metadata: None = None


class JobList(BaseModel):
    """Jobs, the newest first."""

    object: Literal["list"] = "list"
    data: list[FineTuningJob]
    has_more: bool


class JobEvent(BaseModel):
    """An event of a job. Times of earlier events are estimates based on the training time."""

    id: str
    object: Literal["fine_tuning.job.event"] = "fine_tuning.job.event"
    created_at: int
    level: Literal["info", "warn", "error"]
    message: str
    type: Literal["message", "metrics"]
    data: dict[str, Any] | None = None


class JobEventList(BaseModel):
    """Events, the newest first."""

    object: Literal["list"] = "list"
    data: list[JobEvent]
    has_more: bool


class JobCheckpoint(BaseModel):
    """A checkpoint of a job; `metrics` in nats per character."""

    id: str
    object: Literal["fine_tuning.job.checkpoint"] = "fine_tuning.job.checkpoint"
    created_at: int
    fine_tuned_model_checkpoint: str = Field(description="The name to request: `run@step`.")
    fine_tuning_job_id: str
    step_number: int
    metrics: dict[str, float]


class JobCheckpointList(BaseModel):
    """Checkpoints, the newest first."""

    object: Literal["list"] = "list"
    data: list[JobCheckpoint]
    first_id: str | None
    last_id: str | None
    has_more: bool
