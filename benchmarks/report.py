"""What every benchmark prints with its results: machine, date and versions; and the file for the results."""

import datetime
import importlib.metadata
import os
import platform
import sys
from pathlib import Path

RESULTS = Path("benchmarks/results")


def processor():
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


def environment(*packages):
    """One paragraph: command, machine, date, versions."""
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in packages)
    return (
        f"`{' '.join(['python -m', 'benchmarks.' + Path(sys.argv[0]).stem, *sys.argv[1:]])}`; "
        f"{processor()}, {len(os.sched_getaffinity(0))} cores; {datetime.date.today()}; "
        f"Python {platform.python_version()}, {versions}."
    )


def table(head, rows):
    """A Markdown table."""
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(map(str, row)) + " |" for row in rows]
    return "\n".join(lines)


def save(name, text):
    """Print `text` and save it as benchmarks/results/<name>.md."""
    print(text)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.md").write_text(text.rstrip() + "\n", encoding="utf-8")
