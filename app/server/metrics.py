"""The metrics of /metrics: counters and times of the texts written, and the state of engine and checkpoint.

After the prefix, the names are those of vLLM where it has the same metric.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from app.engine.engine import Engine
from app.engine.job import Job
from app.engine.models import ModelStore
from app.server.metric_looks import EngineLook, FileCopy, Look, ReadLook, StoreLook, Whole, count_in_files
from app.server.problems import TABLE
from app.server.shared import Shared

SHORT = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10)
LONG = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 60)
A_CHARACTER = (0.000003, 0.00001, 0.00003, 0.0001, 0.0003, 0.001, 0.003, 0.01)
REJECTIONS = (401, 403, 413, 429, 503)  # statuses of requests refused for keys, size, load or readiness


class Metrics:
    """The metrics of one application, in its own registry. Only for the event loop's thread.

    Each of several processes writes its metrics to files (prometheus-client's multi-process mode), and
    `expose` adds them up. `note` writes those that are otherwise collected only at a scrape.
    """

    def __init__(self, engine: Engine, models: ModelStore, shared: Shared | None = None) -> None:
        self.shared = shared
        registry, self._exposed = CollectorRegistry(), CollectorRegistry()
        # ProcessCollector has memory, descriptors and processor time, on systems with /proc
        looks: list[Look] = [EngineLook(engine), ReadLook(models), ProcessCollector(registry=None)]
        self._copy: FileCopy | None = None
        if shared is None:
            self._exposed.register(Whole([registry, *looks]))
        else:
            count_in_files(shared)
            self._copy = FileCopy(looks)
            counted = MultiProcessCollector(None, str(shared.metrics))  # type: ignore[no-untyped-call]
            self._exposed.register(Whole([counted]))
        self._exposed.register(StoreLook(models))
        self._first = Histogram(
            "charloom_time_to_first_token_seconds",
            "Time from admission to a stream's first characters.",
            buckets=SHORT,
            registry=registry,
        )
        self._each = Histogram(
            "charloom_time_per_output_token_seconds",
            "Time per character of a text in the engine.",
            buckets=A_CHARACTER,
            registry=registry,
        )
        self._whole = Histogram(
            "charloom_e2e_request_latency_seconds",
            "Time from admission to the end of the last text.",
            buckets=LONG,
            registry=registry,
        )
        self._queue = Histogram(
            "charloom_request_queue_time_seconds",
            "Time from admission until the first text starts.",
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
            "Texts finished: by length, by a stop string, or cancelled by the client (abort).",
            ["finished_reason"],
            registry=registry,
        )
        self._success = {reason: success.labels(reason) for reason in ("length", "stop", "abort")}
        self._rejected = Counter(
            "charloom_requests_rejected", "Requests refused, by error code.", ["reason"], registry=registry
        )
        for reason in {code for _, status, code in TABLE if status in REJECTIONS}:
            self._rejected.labels(reason)  # else an alert on the rate misses the first refusals

    def ended(self, job: Job) -> None:
        """Count a job that has ended or was abandoned by its client; ignore jobs that were not admitted."""
        if job.submitted is None:
            return
        read = written = longest = 0
        for row in job.rows:
            read, written = read + len(row.prompt), written + len(row.ids)
            longest = max(longest, len(row.ids))
            self._success[row.finish_reason or "abort"].inc()
        self._read.inc(read)
        self._written.inc(written)
        if job.first is not None:
            self._first.observe(job.first - job.submitted)
        if job.ended is None:
            return
        self._queue.observe(job.queue_seconds)
        self._whole.observe(job.ended - job.submitted)
        if longest:
            self._each.observe((job.ended - job.submitted - job.queue_seconds) / longest)

    def refused(self, status: int, code: str) -> None:
        """Count an error if its status is one of REJECTIONS."""
        if status in REJECTIONS:
            self._rejected.labels(code).inc()

    def note(self) -> None:
        """Write the collected metrics to files, for scrapes answered by other processes. Reads files."""
        if self._copy is not None:
            self._copy.write()

    def expose(self) -> bytes:
        """The metrics in Prometheus's text format. Reads files: not for an event loop."""
        self.note()
        return generate_latest(self._exposed)
