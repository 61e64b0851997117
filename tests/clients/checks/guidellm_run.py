"""guidellm: a benchmark of completions and one of chats, each of four requests."""

import json
import pathlib
import subprocess
import sys
import tempfile

with tempfile.TemporaryDirectory() as made:
    folder = pathlib.Path(made)
    (folder / "prompts.csv").write_text("prompt\nthe cat\na dog\nthe mat\nthe dog\n")
    for route in ("/v1/completions", "/v1/chat/completions"):
        subprocess.run(
            [
                pathlib.Path(sys.executable).parent / "guidellm",
                "run",
                "--backend",
                f"kind=openai_http,target={sys.argv[1]},request_format={route}",
                "--profile",
                "kind=synchronous",
                "--constraint",
                "kind=max_requests,count=4",
                "--data",
                f"kind=csv_file,path={folder}/prompts.csv",
                "--output",
                f"kind=json,path={folder}/report.json",
                "--disable-console",
            ],
            check=True,
        )
        benchmark = json.loads((folder / "report.json").read_text())["benchmarks"][0]
        totals = benchmark["metrics"]["request_totals"]
        assert (totals["successful"], totals["errored"]) == (4, 0), totals
