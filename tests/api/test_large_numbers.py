"""An integer of 400 digits in every documented field and parameter never causes a server error."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

LARGE = 10**400
BASE = {
    "prompt": "a",
    "text": "a",
    "inputs": "a",
    "messages": [{"role": "user", "content": "a"}],
    "training_file": "file-x",
}
NAMES = {"{name}": "gru", "{job_id}": "ftjob-gru", "{file_id}": "file-" + "0" * 24}


def fields(document: dict[str, Any], schema: dict[str, Any]) -> Iterator[str]:
    """The names of the fields of a body in all its variants."""
    if "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    for part in (*schema.get("anyOf", ()), *schema.get("oneOf", ()), *schema.get("allOf", ())):
        yield from fields(document, part)
    yield from schema.get("properties", {})


def requests(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Method, path and options of a request for each field and parameter."""
    for path, operations in document["paths"].items():
        place = path
        for name, value in NAMES.items():
            place = place.replace(name, value)
        for method, operation in operations.items():
            if method == "delete":
                continue
            content = operation.get("requestBody", {}).get("content", {})
            names = set(fields(document, content.get("application/json", {}).get("schema", {})))
            known = {name: value for name, value in BASE.items() if name in names}
            for name in sorted(names):
                body = json.dumps(known | {name: LARGE})
                yield method, place, {"content": body, "headers": {"content-type": "application/json"}}
            for parameter in operation.get("parameters", ()):
                if parameter["in"] == "query":
                    yield method, place, {"params": {parameter["name"]: str(LARGE)}}


@pytest.mark.slow
def test_integer_of_400_digits_causes_no_server_error(client: httpx.Client):
    failed, count = [], 0
    for method, path, rest in requests(client.get("/openapi.json").json()):
        count += 1
        answer = client.request(method, path, **rest)
        if answer.status_code >= 500:
            failed.append((method, path, rest, answer.status_code))
    assert not failed
    assert count > 300
