"""What /metrics tells: counters and times of the texts written, and a look at engine and checkpoint.

The names behind the prefix are those of vLLM's server where it has one for the same thing.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from typing import get_args

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from app.engine.engine import Engine
from app.engine.job import Job
from app.engine.models import ModelStore
from app.errors import RunError
from app.server.problems import TABLE
from app.store.records import State

SHORT = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10)
LONG = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 60)
A_CHARACTER = (0.000003, 0.00001, 0.00003, 0.0001, 0.0003, 0.001, 0.003, 0.01)
REJECTIONS = (401, 403, 413, 429, 503)  # statuses of requests refused for no fault in what they ask for


class Metrics:
    """The metrics of one application, in a registry of its own. For the event loop's thread."""

    def __init__(self, engine: Engine, models: ModelStore) -> None:
        registry = self._registry = CollectorRegistry()
        registry.register(_Look(engine, models))
        ProcessCollector(registry=registry)  # memory, descriptors, processor time; where there is /proc
        self._first = Histogram(
            "charloom_time_to_first_token_seconds",
            "From admission to a stream's first characters.",
            buckets=SHORT,
            registry=registry,
        )
        self._each = Histogram(
            "charloom_time_per_output_token_seconds",
            "A text's time in the engine for each of its characters.",
            buckets=A_CHARACTER,
            registry=registry,
        )
        self._whole = Histogram(
            "charloom_e2e_request_latency_seconds",
            "From admission to the end of the last text.",
            buckets=LONG,
            registry=registry,
        )
        self._queue = Histogram(
            "charloom_request_queue_time_seconds",
            "From admission to the first text's place.",
            buckets=SHORT,
            registry=registry,
        )
        self._read = Counter(
            "charloom_prompt_tokens", "Characters of prompts that were read.", registry=registry
        )
        self._written = Counter(
            "charloom_generation_tokens", "Characters that were written.", registry=registry
        )
        success = Counter(
            "charloom_request_success",
            "Texts finished: by length, by a stop string, or given up by whoever asked (abort).",
            ["finished_reason"],
            registry=registry,
        )
        self._success = {reason: success.labels(reason) for reason in ("length", "stop", "abort")}
        self._rejected = Counter(
            "charloom_requests_rejected", "Requests refused, by error code.", ["reason"], registry=registry
        )
        for reason in {code for _, status, code in TABLE if status in REJECTIONS}:
            self._rejected.labels(reason)  # from the start, or an alert on its rate misses the first ones

    def ended(self, job: Job) -> None:
        """A job has ended, or nobody waits for it any more; does nothing for one that was not admitted."""
        if job.submitted is None:
            return  # it was refused
        written = sum(len(row.ids) for row in job.rows)
        self._read.inc(sum(len(row.prompt) for row in job.rows))
        self._written.inc(written)
        for row in job.rows:
            self._success[row.finish_reason or "abort"].inc()
        if job.first is not None:
            self._first.observe(job.first - job.submitted)
        if job.ended is None:
            return
        self._queue.observe(job.queue_seconds)
        self._whole.observe(job.ended - job.submitted)
        longest = max((len(row.ids) for row in job.rows), default=0)
        if longest:
            self._each.observe((job.ended - job.submitted - job.queue_seconds) / longest)

    def refused(self, status: int, code: str) -> None:
        """A request got an error; counts those refused for load, size, keys or readiness."""
        if status in REJECTIONS:
            self._rejected.labels(code).inc()

    def expose(self) -> bytes:
        """The text format. Reads a file's time: not for an event loop."""
        return generate_latest(self._registry)


class _Look(Collector):
    """What is known without counting: asked for at each scrape."""

    def __init__(self, engine: Engine, models: ModelStore) -> None:
        self.engine, self.models = engine, models

    def describe(self) -> list[Metric]:
        return []  # else the registry would look before there is anything to see

    def collect(self) -> Iterator[Metric]:
        stats = self.engine.stats()
        yield _gauge("num_requests_running", "Texts being written.", stats.running)
        yield _gauge("num_requests_waiting", "Texts waiting for a place.", stats.waiting)
        yield _gauge("batch_size", "Texts in a batch, on average.", stats.running / max(1, stats.models))
        yield _gauge("backlog_characters", "Characters admitted and not yet read or written.", stats.backlog)
        yield _gauge("characters_per_second", "The engine's rate while busy.", stats.rate)
        reloads = CounterMetricFamily(
            "charloom_checkpoint_reload", "Checkpoints read, by what came of it.", labels=["result"]
        )
        reloads.add_metric(["loaded"], self.models.loads)
        reloads.add_metric(["refused"], self.models.refusals)
        yield reloads
        yield self._runs()
        yield from self._checkpoint()

    def _runs(self) -> Metric:
        """How many runs are in each state; one that cannot be read is `unreadable`."""
        counts = dict.fromkeys((*get_args(State), "unreadable"), 0)
        with suppress(OSError):
            for run in self.models.runs.list():
                try:
                    counts[run.standing.state] += 1
                except (RunError, OSError):
                    counts["unreadable"] += 1
        runs = GaugeMetricFamily("charloom_runs", "Runs of the store, by state.", labels=["state"])
        for state, count in counts.items():
            runs.add_metric([state], count)
        return runs

    def _checkpoint(self) -> Iterator[Metric]:
        if not self.models.ready:
            return
        model = self.models.current
        yield _gauge("train_step", "Updates of the checkpoint being served.", model.step)
        loss = model.progress.get("smooth_loss")
        if loss is not None:
            yield _gauge("train_loss", "Its smoothed training loss, nats per character.", loss)
        try:
            age = time.time() - model.path.stat().st_mtime
        except OSError:  # thinned out, or the store is gone: it is served from memory
            age = None
        if age is not None:
            yield _gauge("checkpoint_age_seconds", "Since it was written.", max(0.0, age))
        info = GaugeMetricFamily("charloom_model_info", "The checkpoint.", labels=["checkpoint", "digest"])
        info.add_metric([model.id, model.digest[:12]], 1)
        yield info


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"charloom_{name}", text, value=value)
