"""The JSON of the native routes for runs: requests, answers and examples."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

from app.reports.gradchecks import Method
from app.store.records import State, TextFinding

PAIR: dict[str, Any] = {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2}


class CheckpointInfo(BaseModel):
    """A checkpoint: its updates, sha256, Unix time, and loss in nats per character."""

    step: int
    digest: str
    time: float
    loss: float | None


class RunInfo(BaseModel):
    """One run: its settings and progress. Losses in nats per character, times in Unix seconds."""

    name: str
    serving: str | None = Field(
        description="The checkpoint that answers requests without a model, if it belongs to this run."
    )
    state: State
    priority: int = Field(description="Runs of higher priority are trained first.")
    parent: str | None = Field(description="The `run@step` that it was forked from.")
    parts: list[str] = Field(
        description="The models that it was or, if its members are trained separately, will be merged from; "
        "otherwise empty."
    )
    group: str | None = Field(description="The run that this one is a separately trained member of.")
    stale: bool = Field(description="Whether the run is in state `training` but its worker is silent.")
    host: str | None = Field(description="The machine, or container, of the worker that trains it.")
    process: int | None = Field(description="The process id of that worker, on its machine.")
    reason: str | None = Field(description="Why it is paused or has failed.")
    warnings: list[str] = Field(description="Warnings about the run, such as rollbacks and overfitting.")
    preset: str
    settings: dict[str, int | float | str] = Field(description="Settings that differ from the preset.")
    cell: str
    hidden: int
    layers: int
    members: int = Field(description="Networks trained side by side, whose predictions are averaged.")
    corpus: str
    characters: int = Field(description="Length of its text, in characters.")
    findings: list[TextFinding] = Field(description="Findings about the text at its upload.")
    step: int
    steps: int = Field(description="Number of updates; 0 if the run ends by time.")
    fraction: float = Field(description="Fraction of the training that is done, 0 to 1.")
    seconds: float = Field(description="Training time so far.")
    expected_end: float | None
    seconds_left: float | None = Field(
        description="Expected time for the rest of the training, without the wait; null after its end."
    )
    characters_per_second: float | None
    kernel: str | None = Field(
        description="BLAS library and kernel that trained it last, such as `openblas-haswell`; with another "
        "one, the last bits of the weights differ."
    )
    loss: float | None
    smooth_loss: float | None
    validation_loss: float | None
    validation_step: int | None = Field(description="The step at which `validation_loss` was measured.")
    newest: CheckpointInfo | None
    best: CheckpointInfo | None
    checkpoints: list[int] = Field(description="Steps that can be requested as `run@step`.")
    samples: int = Field(description="Number of samples written during training; see /samples.")


class RunList(BaseModel):
    """All runs, in the order of the queue."""

    runs: list[RunInfo]


class RunChange(BaseModel):
    """A change to a run; its worker applies it within a second."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"action": "pause"}]})

    action: Literal["pause", "resume", "stop"] | None = Field(
        None,
        description="`pause` holds the run until `resume`; `stop` ends it and keeps its checkpoints; "
        "`resume` also continues a run that was stopped or has failed.",
    )
    priority: int | None = Field(
        None,
        ge=-1000,
        le=1000,
        strict=True,
        description="Runs of higher priority are trained first, and the queue changes immediately. Default "
        "0.",
    )


class MergeRequest(BaseModel):
    """The models to merge."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        json_schema_extra={"examples": [{"models": ["mine", "mine-2"], "name": "mine-merged"}]},
    )

    models: list[str] = Field(
        min_length=2, max_length=16, description="Runs at their newest step, or `run@step`; all different."
    )
    name: str | None = Field(
        None, description="Name of the new run; by default derived from the first model."
    )


class RunAccepted(BaseModel):
    """A queued run, and the findings about its text."""

    name: str
    url: str = Field(description="URL of the run; `/events` below it streams its progress.")
    state: State
    corpus: str
    characters: int
    distinct_characters: int
    expected_seconds: float = Field(description="Expected training time, without the wait.")
    findings: list[TextFinding]


class Beginnings(BaseModel):
    """Prompts from the text of a run."""

    run: str
    beginnings: list[str] = Field(
        description="At most three; empty for a run that was imported without its text."
    )


class PassageInfo(BaseModel):
    """A passage that a checkpoint wrote, and how many of its words occur in the text of the run."""

    model: str = Field(description="The checkpoint, as `run@step`.")
    step: int
    digest: str = Field(description="sha256 of the checkpoint.")
    prompt: str = Field(description="The first of the run's prompts.")
    text: str = Field(description="The generated text, without the prompt.")
    words: int = Field(
        description="Number of whole words in this passage and three others; 0 for a run without a text."
    )
    real: int = Field(description="Number of those words that occur in the text of the run.")


class TextChecked(BaseModel):
    """The findings about a text, and the network that would be trained on it."""

    name: str = Field(description="The name that the run would have, if it is not taken.")
    corpus: str
    characters: int
    distinct_characters: int
    cell: str
    hidden: int
    layers: int
    members: int
    expected_seconds: float = Field(description="Expected training time.")
    expected_loss: list[float] = Field(
        min_length=2,
        max_length=2,
        description="The lowest and the highest held-out loss that the best checkpoint is likely to have, in "
        "nats per character.",
    )
    beginning: str = Field(description="The first characters of the text, as decoded.")
    findings: list[TextFinding]


class KeepRequest(BaseModel):
    """The checkpoint to keep."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"step": 4000}]})

    step: int = Field(ge=0, lt=10**12, strict=True)


class Kept(BaseModel):
    """A checkpoint that training does not delete."""

    model: str = Field(description="The name to request: `run@step`.")
    kept: int = Field(description="Number of kept checkpoints of the run.")
    limit: int = Field(description="Maximum number of kept checkpoints; beyond it the earliest is released.")


class Deleted(BaseModel):
    """A run was deleted with all its files."""

    name: str
    deleted: Literal[True] = True


class SampleInfo(BaseModel):
    """A passage written during training; `kind` is `best` for that of the best checkpoint at the end."""

    step: int
    kind: str
    text: str
    smooth_loss: float | None = Field(description="Smooth loss at that step, nats per character.")
    validation_loss: float | None = Field(
        description="Last held-out loss measured up to that step, nats per character."
    )
    validation_step: int | None = Field(description="The step at which it was measured.")


class SampleList(BaseModel):
    """The samples of one run, oldest first."""

    run: str
    samples: list[SampleInfo]


class CurvePoint(BaseModel):
    """One point of a loss curve. Losses in nats per character."""

    step: int
    loss: float | None = Field(None, description="Loss of one window, before the update.")
    smooth_loss: float | None = None
    summed_smooth_loss: float | None = Field(
        None,
        description="The smooth loss as the assignment defines it: initialised with the first loss, summed "
        "over a sequence, in nats.",
    )
    validation_loss: float | None = Field(None, description="Loss on the held-out text, where measured.")
    seconds: float | None = Field(None, description="Training time.")
    learning_rate: float | None = None


class LossCurve(BaseModel):
    """The loss curve of a run, thinned out except for its extremes."""

    run: str
    state: State
    step: int
    steps: int
    recorded: int = Field(description="Number of recorded points before thinning.")
    points: list[CurvePoint]
    checkpoints: list[int]
    best: Annotated[tuple[int, float], WithJsonSchema(PAIR)] | None = Field(
        description="Step and loss of the best checkpoint."
    )
    baselines: dict[str, float] = Field(
        description="Loss of simple models on the held-out text, or on the last tenth if there is none: "
        "`uniform` (ln K), `unigram`, `5-gram` (Witten-Bell smoothing). Empty until measured."
    )
    rollbacks: list[int] = Field(description="Steps to which the run was rolled back when its loss exploded.")
    overfitting_since: int | None = Field(
        description="Step of the lowest held-out loss, if the loss has risen since."
    )
    warnings: list[str] = Field(description="Warnings about the run.")
    characters_per_update: int = Field(description="Characters of the text per update.")
    sequence_length: int | None = Field(
        description="Sequence length, if the run sums its loss over a sequence."
    )
    version: str = Field(description="Changes when the curve changes.")


class ParameterReport(BaseModel):
    """The comparison of one parameter's analytic and numerical gradients."""

    name: str
    shape: list[int]
    relative_error: float = Field(description="‖ga − gn‖ / (‖ga‖ + ‖gn‖), Frobenius norms, no clipping.")
    limit: float
    assignment_figure: float | None = Field(description="The relative error in the assignment's own report.")
    passed: bool
    checked: int = Field(description="Number of elements compared.")


class GradcheckReport(BaseModel):
    """The check of every parameter and of the initial state by one method, in float64."""

    model: str = Field(
        description="`assignment`: the assignment's network, newly initialised; otherwise a checkpoint."
    )
    method: Method
    step_size: float = Field(description="h of the numerical derivative.")
    passed: bool
    seconds: float
    cell: str
    hidden: int
    layers: int
    sequence_length: int
    vocabulary: int
    parameters: list[ParameterReport]
