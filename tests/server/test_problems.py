"""Validation errors are reported as sentences."""

import pytest


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        (
            "/v1/fine_tuning/jobs",
            {"model": "auto", "training_file": "x", "suffix": "s" * 65},
            "suffix must have at most 64 characters",
        ),
        ("/generate", {"logit_bias": {"ab": 1}}, "must have exactly 1 character"),
        ("/score", {"text": ""}, "text must have at least 1 character"),
        ("/score", {"text": "a", "models": []}, "models must have at least 1 item"),
    ],
)
def test_length_out_of_range_is_refused_with_its_limit(client, path, body, message):
    answer = client.post(path, json=body)
    assert answer.status_code in (400, 422)
    assert message in answer.json()["error"]["message"]
