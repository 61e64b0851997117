"""lm-eval: local-completions in its automatic mode, on own tasks; its result equals that of /score."""

import json
import math
import pathlib
import sys
import tempfile
import urllib.request

import lm_eval
from lm_eval.tasks import TaskManager

TEXT = "the cat sat on a mat\n the dog ran on the mat " * 3
TASKS = {
    "rolling": {
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "{{text}}",
        "metric_list": [{"metric": "bits_per_byte"}],
    },
    "choice": {
        "output_type": "multiple_choice",
        "doc_to_text": "the cat sat on a",
        "doc_to_choice": [" mat", " tam"],
        "doc_to_target": 0,
        "metric_list": [{"metric": "acc"}],
    },
    "written": {
        "output_type": "generate_until",
        "doc_to_text": "the cat",
        "doc_to_target": "{{text}}",
        "generation_kwargs": {"until": ["zzz"], "max_gen_toks": 20},
        "metric_list": [{"metric": "exact_match"}],
    },
}

url = sys.argv[1]
with tempfile.TemporaryDirectory() as made:
    folder = pathlib.Path(made)
    (folder / "data.json").write_text(json.dumps({"text": TEXT}) + "\n")
    for name, task in TASKS.items():
        data = {"data_files": {"test": str(folder / "data.json")}}
        described = {
            "task": f"charloom_{name}",
            "dataset_path": "json",
            "dataset_kwargs": data,
            "test_split": "test",
        }
        (folder / f"{name}.yaml").write_text(json.dumps(described | task))
    found = lm_eval.simple_evaluate(
        model="local-completions",
        model_args={"model": "gru", "base_url": f"{url}/v1/completions", "max_length": 2000},
        tasks=[f"charloom_{name}" for name in TASKS],
        task_manager=TaskManager(include_path=made, include_defaults=False),
        bootstrap_iters=0,
    )
results = found["results"]
assert results["charloom_choice"]["acc,none"] == 1.0, results
body = json.dumps({"text": TEXT, "prompt": "\n", "model": "gru"}).encode()
request = urllib.request.Request(f"{url}/score", body, {"content-type": "application/json"})
score = json.load(urllib.request.urlopen(request))["scores"][0]
bits = results["charloom_rolling"]["bits_per_byte,none"]
assert math.isclose(bits, score["bits_per_character"], rel_tol=1e-6), (bits, score["bits_per_character"])
