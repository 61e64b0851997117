"""Metrics collected when /metrics is scraped: engine, process, checkpoint and store.

prometheus-client's multi-process mode adds up what the processes have counted in files. It does not cover
collected metrics, so each process also writes those to its files (`FileCopy`), a few times a second.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Literal, Protocol, get_args

from prometheus_client import Counter, Gauge, values
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

from app.engine.engine import Engine
from app.engine.models import ModelStore
from app.errors import RunError
from app.server.shared import Shared
from app.store.records import State

Mode = Literal["livemin", "livesum"]

RUNNING, BATCHES = "charloom_num_requests_running", "charloom_batches"
OLDEST = ("process_start_time_seconds",)  # aggregated by minimum, all others by sum


class Look(Protocol):
    """A source of metrics."""

    def collect(self) -> Iterable[Metric]: ...


class EngineLook:
    """The engine of this process."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def collect(self) -> Iterator[Metric]:
        stats = self.engine.stats()
        yield _gauge(RUNNING, "Texts being written.", stats.running)
        yield _gauge("charloom_num_requests_waiting", "Texts waiting to be generated.", stats.waiting)
        yield _gauge(BATCHES, "Batches.", stats.models)
        backlog = "Characters admitted but not yet read or written."
        yield _gauge("charloom_backlog_characters", backlog, stats.backlog)
        yield _gauge("charloom_characters_per_second", "Speed of the engine while busy.", stats.rate)


class ReadLook:
    """The checkpoints that this process has read."""

    def __init__(self, models: ModelStore) -> None:
        self.models = models

    def collect(self) -> Iterator[Metric]:
        reloads = CounterMetricFamily(
            "charloom_checkpoint_reload", "Checkpoints read, by result.", labels=["result"]
        )
        reloads.add_metric(["loaded"], self.models.loads)
        reloads.add_metric(["refused"], self.models.refusals)
        yield reloads


class StoreLook(Collector):
    """The store and the checkpoint being served, which are the same in each process."""

    def __init__(self, models: ModelStore) -> None:
        self.models = models

    def describe(self) -> list[Metric]:
        return []  # otherwise the registry would collect at registration

    def collect(self) -> Iterator[Metric]:
        yield self._runs()
        yield from self._checkpoint()

    def _runs(self) -> Metric:
        """Number of runs in each state, including `unreadable`."""
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
        yield _gauge("charloom_train_step", "Training step of the checkpoint being served.", model.step)
        loss = model.progress.get("smooth_loss")
        if loss is not None:
            yield _gauge(
                "charloom_train_loss",
                "Smooth training loss of the checkpoint being served, nats per character.",
                loss,
            )
        try:
            age = time.time() - model.path.stat().st_mtime
        except OSError:  # the file was pruned, or the store is gone: the model is served from memory
            age = None
        if age is not None:
            yield _gauge(
                "charloom_checkpoint_age_seconds", "Age of the checkpoint being served.", max(0.0, age)
            )
        info = GaugeMetricFamily("charloom_model_info", "The checkpoint.", labels=["checkpoint", "digest"])
        info.add_metric([model.id, model.digest[:12]], 1)
        yield info


class Whole(Collector):
    """The metrics of all `looks`, plus the average number of texts per batch."""

    def __init__(self, looks: Sequence[Look]) -> None:
        self.looks = looks

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        found = {metric.name: metric for look in self.looks for metric in look.collect()}
        running, batches = (
            sum(sample.value for sample in found[name].samples) if name in found else 0.0
            for name in (RUNNING, BATCHES)
        )
        found.pop(BATCHES, None)
        yield from found.values()
        yield _gauge("charloom_batch_size", "Texts in a batch, on average.", running / max(1.0, batches))


def count_in_files(shared: Shared) -> None:
    """Make this process count in the files of its number in `shared.metrics`.

    The library would use its PID. With the number, a process that replaces another continues its counts, and
    the number of files is bounded.
    """
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(shared.metrics)
    values.ValueClass = values.MultiProcessValue(lambda: shared.number)  # type: ignore[no-untyped-call]


class FileCopy:
    """Copies the metrics of `looks` into the files of this process."""

    def __init__(self, looks: Sequence[Look]) -> None:
        self._looks = looks
        self._lock = threading.Lock()
        self._metrics: dict[str, Counter | Gauge] = {}
        self._counted: dict[tuple[str, ...], float] = {}

    def write(self) -> None:
        """Safe in any thread."""
        with self._lock:
            for look in self._looks:
                for metric in look.collect():
                    for sample in metric.samples:
                        self._write(metric, sample)

    def _write(self, metric: Metric, sample: Sample) -> None:
        copy = self._metrics.get(metric.name) or self._made(metric, list(sample.labels))
        child = copy.labels(**sample.labels) if sample.labels else copy
        if isinstance(child, Counter):
            key = (metric.name, *sample.labels.values())
            child.inc(max(0.0, sample.value - self._counted.get(key, 0.0)))
            self._counted[key] = sample.value
        else:
            child.set(sample.value)

    def _made(self, metric: Metric, labels: list[str]) -> Counter | Gauge:
        made: Counter | Gauge
        if metric.type == "counter":
            made = Counter(metric.name, metric.documentation, labels, registry=None)
        else:
            mode: Mode = "livemin" if metric.name in OLDEST else "livesum"
            made = Gauge(metric.name, metric.documentation, labels, registry=None, multiprocess_mode=mode)
        self._metrics[metric.name] = made
        return made


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=value)
