"""The whole OpenAPI document against the application, with valid and invalid data."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.schemas import APIOperation
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance

from model.cells import CELLS
from model.config import SETTINGS
from tests.support.servers import application

EXAMPLES = 20  # for each operation, of each kind
SLOW = ("/gradcheck", "/report")  # take seconds each
LIMITS = {"deadline_seconds": 5, "max_length": 300, "default_length": 20, "max_body_bytes": 100_000}


@pytest.fixture(scope="module")
def operations(trained_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[APIOperation]]:
    """The operations of a server over a copy of the store, as some of the generated bodies become runs."""
    root = tmp_path_factory.mktemp("documented") / "checkpoints"
    shutil.copytree(trained_root, root)
    with application(root, **LIMITS) as client:
        schema = schemathesis.openapi.from_dict(with_events(client.app.openapi()))
        schema.config.update(base_url=str(client.base_url).rstrip("/"))
        yield [result.ok() for result in schema.get_all_operations()]


def with_events(document: dict[str, Any]) -> dict[str, Any]:
    """The document with each stream described by its events, as schemathesis reads OpenAPI 3.1."""
    text = {"type": "string"}
    event = {"type": "object", "required": ["data"], "properties": {"data": text, "event": text, "id": text}}
    for methods in document["paths"].values():
        for operation in methods.values():
            for answer in operation["responses"].values():
                if "text/event-stream" in answer.get("content", {}):
                    answer["content"]["text/event-stream"] = {"schema": event}
    return document


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("mode", list(GenerationMode))
def test_every_answer_is_documented(operations, mode):
    assert len(operations) > 10
    for operation in operations:
        check(operation, mode)


def check(operation: APIOperation, mode: GenerationMode) -> None:
    """Check that statuses, content types, headers and bodies of a route are as documented."""

    @settings(
        max_examples=2 if operation.path.startswith(SLOW) else EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],
    )
    @given(st.data())
    def requests(data: st.DataObject) -> None:
        case = data.draw(operation.as_strategy(generation_mode=mode))
        # a schema cannot express which characters a model knows, or the configured limits
        excluded = [positive_data_acceptance]
        if case.media_type == "application/x-www-form-urlencoded":
            # curl declares this type for any data: what is not a form of known fields is read as plain text
            excluded.append(negative_data_rejection)
        case.call_and_validate(excluded_checks=excluded, timeout=60)

    try:
        requests()
    except Unsatisfiable:
        assert mode is GenerationMode.NEGATIVE, operation.path  # no invalid request is possible


def test_run_settings_are_documented_with_their_limits(client):
    parameters = client.get("/openapi.json").json()["paths"]["/runs"]["post"]["parameters"]
    schemas = {parameter["name"]: parameter["schema"] for parameter in parameters}
    page = client.get("/").text
    for name, known in SETTINGS.items():
        schema = schemas[name]
        assert schema["description"] == f"{known.help}."
        if known.kind is not str:
            assert (schema["minimum"], schema["maximum"]) == (known.low, known.high)
        elif known.choices:
            assert schema["enum"] == list(known.choices)
        assert (f'name="{name}" data-setting' in page) == bool(known.label)
    assert f'min="{SETTINGS["hidden"].low}" max="{SETTINGS["hidden"].high}"' in page
    assert all(f"<option>{cell}</option>" in page for cell in CELLS)


@pytest.mark.slow
def test_document_marks_the_routes_that_need_a_key(serving, trained_root):
    with_keys = serving(trained_root, api_keys="ann:s3cret").app.openapi()
    assert with_keys["security"] == [{"key": []}]
    assert with_keys["components"]["securitySchemes"]["key"]["scheme"] == "bearer"
    assert with_keys["paths"]["/healthz"]["get"]["security"] == []
    assert "security" not in with_keys["paths"]["/runs"]["get"]
    assert serving(trained_root).app.openapi()["security"] == []


def test_every_answer_of_the_document_has_a_schema_with_a_type(client):
    """Without a schema it would be `unknown` in generated clients."""
    document = client.app.openapi()
    empty = [
        (path, status, kind)
        for path, methods in document["paths"].items()
        for operation in methods.values()
        for status, answer in operation["responses"].items()
        for kind, content in answer.get("content", {}).items()
        if not content.get("schema")
    ]
    assert empty == []


def test_document_meets_the_rules_of_linters(client):
    document = client.app.openapi()
    assert document["servers"]
    assert document["info"]["license"]["name"] == "MIT"
    assert document["info"]["contact"]["url"]
    for path, methods in document["paths"].items():
        for operation in methods.values():
            assert any(status.startswith("4") for status in operation["responses"]), path
            assert operation["summary"], path
            assert operation["description"], path
            assert operation["tags"], path

    def arrays(value: object) -> Iterator[dict]:
        if isinstance(value, dict):
            if value.get("type") == "array":
                yield value
            for part in value.values():
                yield from arrays(part)
        elif isinstance(value, list):
            for part in value:
                yield from arrays(part)

    assert all("items" in array for array in arrays(document["components"]["schemas"]))
