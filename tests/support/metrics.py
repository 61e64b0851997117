"""The metrics of a server: their names and types, and their values."""

from __future__ import annotations

import httpx
from prometheus_client.parser import text_string_to_metric_families

NAMES = {
    "num_requests_running": "gauge",
    "num_requests_waiting": "gauge",
    "batch_size": "gauge",
    "backlog_characters": "gauge",
    "characters_per_second": "gauge",
    "time_to_first_token_seconds": "histogram",
    "time_per_output_token_seconds": "histogram",
    "e2e_request_latency_seconds": "histogram",
    "request_queue_time_seconds": "histogram",
    "prompt_tokens": "counter",
    "generation_tokens": "counter",
    "request_success": "counter",
    "requests_rejected": "counter",
    "checkpoint_reload": "counter",
    "train_step": "gauge",
    "train_loss": "gauge",
    "checkpoint_age_seconds": "gauge",
    "model_info": "gauge",
    "runs": "gauge",
}


def scrape(client: httpx.Client) -> dict[tuple[str, str], float]:
    """Values by name and labels."""
    answer = client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    return {
        (sample.name.removeprefix("charloom_"), ",".join(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }
