"""Answers to errors: validation errors are sentences, and no answer names a path of the server."""

import errno
import shutil

import pytest
from filelock import Timeout

from app.server.problems import problem_of


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


FOLDER = "/srv/secret"


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (PermissionError(errno.EACCES, "Permission denied", f"{FOLDER}/run.json"), "Permission denied"),
        (FileNotFoundError(errno.ENOENT, f"none usable in ['{FOLDER}']"), "No such file or directory"),
        (OSError("run.json is not a regular file"), "run.json is not a regular file"),
        (TimeoutError("the store was busy: try again"), "the store was busy: try again"),
        (Timeout(f"{FOLDER}/.queue.lock"), "the store cannot be used"),
        (shutil.Error([(f"{FOLDER}/a", "b", "denied")]), "the store cannot be used"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_answer_to_a_disk_error_names_no_path(error, message):
    told = problem_of(error).message
    assert message in told
    assert FOLDER not in told
