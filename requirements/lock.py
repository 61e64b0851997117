"""The locks: the versions that are installed, with the hashes of their files on the package index.

    python requirements/lock.py write [--upgrade]   make them fit pyproject.toml (needs uv and the index)
    python requirements/lock.py check               fail if one does not fit
    python requirements/lock.py lowest FILE         make one of the lowest versions that pyproject.toml allows

A lock keeps the versions it has where they still fit; `--upgrade` takes the newest. It begins with the
requirements that it was made for, so that `check` needs no network.
"""

import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

FOLDER = Path(__file__).parent
OLDEST_PYTHON = "3.11"
PIN = re.compile(r"^([a-z0-9.-]+)==([^\s;]+)(?: ; [^\\]+)? \\$", re.MULTILINE)
LINE = re.compile(r"(#|    #|    --hash=sha256:[0-9a-f]{64}( \\)?$)")


def wanted() -> dict[str, list[str]]:
    """What each lock is made for. A later one agrees with those before it."""
    declared = tomllib.loads((FOLDER.parent / "pyproject.toml").read_text(encoding="utf-8"))
    extras = declared["project"]["optional-dependencies"]
    build = declared["build-system"]["requires"]
    runtime = [*declared["project"]["dependencies"], *extras["documents"]]
    return {
        "build": build,
        "runtime": runtime,
        "dev": [*build, *runtime, *extras["sweep"], *extras["dev"]],
        "release": [*build, *extras["release"]],
    }


def heading(requirements: list[str]) -> str:
    return "\n".join(["# Made by `make lock`, for:", *(f"#   {one}" for one in sorted(requirements))]) + "\n"


def resolve(requirements: list[str], path: Path, *options: str) -> None:
    """Write the versions that meet the requirements, and those of what they need in turn."""
    # only the index that everybody has: no setting of this machine may affect a lock
    environment = {name: value for name, value in os.environ.items() if not name.startswith("UV_")}
    command = [sys.executable, "-m", "uv", "pip", "compile", "-", "--no-config", "--quiet", "--no-header"]
    command += ["--generate-hashes", "--only-binary", ":all:", "--output-file", str(path), *options]
    subprocess.run(command, input="\n".join(requirements), text=True, env=environment, check=True)


def write(options: list[str]) -> None:
    earlier: list[str] = []
    for name, requirements in wanted().items():
        path = FOLDER / f"{name}.txt"
        resolve(requirements, path, "--universal", "--python-version", OLDEST_PYTHON, *earlier, *options)
        text = path.read_text(encoding="utf-8").replace("via -r -", "via pyproject.toml")
        path.write_text(heading(requirements) + text, encoding="utf-8")
        earlier += ["--constraint", str(path)]


def write_lowest(path: Path) -> None:
    """Also with what the tests need, in any version that goes with the lowest ones."""
    from packaging.requirements import Requirement

    lowest = []
    for one in map(Requirement, wanted()["runtime"]):
        bounds = [bound.version for bound in one.specifier if bound.operator in (">=", "==")]
        lowest.append(f"{one.name}=={bounds[0]}")
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    resolve([*wanted()["dev"], *lowest], path)


def faults() -> Iterator[str]:
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    for name, requirements in wanted().items():
        text = (FOLDER / f"{name}.txt").read_text(encoding="utf-8")
        if not text.startswith(heading(requirements)):
            yield f"requirements/{name}.txt was made for other requirements than those of pyproject.toml"
        pins = PIN.findall(text)
        for one in map(Requirement, requirements):
            versions = [version for pin, version in pins if pin == canonicalize_name(one.name)]
            if not versions or not all(one.specifier.contains(version) for version in versions):
                yield f"requirements/{name}.txt has {one.name} {versions or 'not at all'}, not {one}"
        for line in text.splitlines():
            if not (LINE.match(line) or PIN.match(line)):
                yield f"requirements/{name}.txt has a line that is neither a version nor a hash: {line}"


def main() -> None:
    match sys.argv[1:]:
        case ["write", *options]:
            write(options)
        case ["check"]:
            found = list(faults())
            if found:
                sys.exit("\n".join([*found, "Renew the locks with: make lock"]))
        case ["lowest", path]:
            write_lowest(Path(path))
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
