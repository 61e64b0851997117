"""GET /metrics: the names that dashboards rely on, and correct counts."""

import os
import subprocess
import sys

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.metrics import NAMES, scrape


def test_metric_names_and_types_do_not_change(client):
    client.post("/generate", json={"length": 3})
    found = text_string_to_metric_families(client.get("/metrics").text)
    families = {one.name: one.type for one in found if not one.name.endswith("_created")}
    process = {name: families.pop(name) for name in list(families) if name.startswith("process_")}
    assert families == {f"charloom_{name}": kind for name, kind in NAMES.items()}
    assert {"process_resident_memory_bytes", "process_open_fds"} <= process.keys()


@pytest.mark.slow
def test_metrics_count_requests_and_characters(serving, trained_root):
    client = serving(trained_root, max_body_bytes=1000)
    client.post("/generate", json={"prompt": "the ", "length": 30, "n": 2})
    with client.stream("POST", "/generate", json={"length": 40, "stream": True}) as answer:
        answer.read()
    whole = client.post("/generate", json={"length": 30, "seed": 1}).json()["text"]
    client.post("/generate", json={"length": 30, "seed": 1, "stop": whole[5]})
    assert client.post("/generate", content=b"x" * 2000).status_code == 413
    values = scrape(client)
    assert values["request_success_total", "length"] == 4
    assert values["request_success_total", "stop"] == 1
    assert values["generation_tokens_total", ""] == 60 + 40 + 30 + whole.index(whole[5])
    assert values["prompt_tokens_total", ""] == 4 + 4 + 1 + 1 + 1
    assert values["time_to_first_token_seconds_count", ""] == 1
    assert values["e2e_request_latency_seconds_count", ""] == 4
    assert values["requests_rejected_total", "body_too_large"] == 1
    assert values["num_requests_running", ""] == values["backlog_characters", ""] == 0
    assert values["train_step", ""] == 60
    assert values["checkpoint_reload_total", "loaded"] >= 1
    assert any(name == "model_info" and labels.startswith("gru@60,") for name, labels in values)


TRACED = """
import sys
from contextlib import contextmanager
from opentelemetry import trace

class Tracer(trace.NoOpTracer):
    def start_span(self, name, *arguments, **options):
        print("span", name)
        return super().start_span(name, *arguments, **options)

    @contextmanager
    def start_as_current_span(self, name, *arguments, **options):
        print("span", name)
        yield trace.INVALID_SPAN

class Provider(trace.TracerProvider):
    def get_tracer(self, *arguments, **options):
        return Tracer()

trace.set_tracer_provider(Provider())
from starlette.testclient import TestClient
from app.main import create_app
from app.settings import load_settings

with TestClient(create_app(load_settings(store=sys.argv[1]))) as client:
    assert client.get("/runs").status_code == 200
"""


@pytest.mark.slow
@pytest.mark.parametrize("switch", ["true", "false"])
def test_tracing_is_enabled_only_when_configured(trained_root, switch):
    environment = os.environ | {"CHARLOOM_TELEMETRY": switch}
    command = [sys.executable, "-W", "ignore", "-c", TRACED, str(trained_root)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert ("span" in done.stdout) == (switch == "true"), done.stdout
