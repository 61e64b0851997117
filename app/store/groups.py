"""Groups: ensembles whose members are trained as separate runs and then merged.

The group is also a run. It stays in the queue until all its members are finished, and then a worker merges
them. Requests for the group, such as a pause, are passed on to its members.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from app.errors import ConflictError, RunError, RunNameError
from app.store.control import POSSIBLE, STOP_SECONDS, ask, begin_deletion, finish_deletion
from app.store.files import flush
from app.store.records import RUN_NAME, Control, State, Status, Wanted
from app.store.run import Run, Text
from app.store.run_store import RunStore

CORPUS = "corpus.txt"
# a group has the first of these states that one of its members has
ORDER: tuple[State, ...] = ("training", "queued", "paused", "failed", "stopped")


def members_of(store: RunStore, group: Run) -> list[Run]:
    """The members of a group that exist and can be read; empty for a run that is not a group."""
    found = []
    for name in group.spec.member_names:
        try:
            run = store.get(name)
        except RunError:
            continue
        if run.spec.group == group.name:
            found.append(run)
    return found


def waits(run: Run, read: Mapping[str, tuple[Run, Status]]) -> bool:
    """Whether `run` is a group that cannot be merged yet. `read` has the runs of the store by name."""
    if not run.spec.apart:
        return False
    members = [read[name] for name in run.spec.member_names if name in read]
    finished = [one for one, status in members if one.spec.group == run.name and status.state == "finished"]
    return len(finished) < run.config.members


def add_members(store: RunStore, group: Run, priority: int = 0) -> None:
    """Adds a run for each member of a new group to the queue. After an error the whole group is deleted.

    Raises RunNameError, RunExistsError, OSError.
    """
    spec = group.spec
    text = Text(spec.corpus_name, spec.corpus_sha256, spec.characters)
    config = spec.config.replace(members=1)

    def fill(folder: Path) -> None:
        _link(group.path / CORPUS, folder / CORPUS)
        if priority:
            Control(priority=priority).write(folder / "control.json")

    try:
        for number, name in enumerate(spec.member_names, 1):
            if not RUN_NAME.fullmatch(name):
                raise RunNameError(name)
            known: dict[str, Any] = {"group": group.name, "member": number, "licence": spec.licence}
            store.add(name, config, text, fill, findings=spec.findings, **known)
    except BaseException:
        for name in begin_group_deletion(store, group.name, force=True):
            end = time.monotonic() + STOP_SECONDS
            while not finish_deletion(store, name, end):
                time.sleep(0.05)
        raise


def _link(source: Path, target: Path) -> None:
    """Makes `target` a hard link to `source`, or a copy if the file system has no hard links."""
    try:
        target.hardlink_to(source)
    except OSError:
        shutil.copyfile(source, target, follow_symlinks=False)
        flush(target)


def standing_of(store: RunStore, run: Run) -> Status:
    """The status of a run; for a group that is not merged yet, the combined status of its members."""
    own = run.standing
    if not run.spec.apart or own.state not in ("queued", "paused", "stopped"):
        return own
    members = members_of(store, run)
    missing = set(run.spec.member_names).difference(member.name for member in members)
    if missing:
        reason = (
            f"its member {min(missing)} was deleted or cannot be read: delete this run and train it again"
        )
        return own.model_copy(update={"state": "failed", "reason": reason})
    found = [member.standing for member in members]
    states = {status.state for status in found}
    reasons = [
        f"its member {member.name} failed: {status.reason}"
        for member, status in zip(members, found, strict=True)
        if status.state == "failed"
    ]
    heartbeat = max(status.heartbeat for status in found)
    unfinished = [status for status in found if status.state != "finished"]
    # both times are by the clock of the member's worker; the workers' clocks may differ
    left = [one.expected_end - one.heartbeat for one in unfinished if one.expected_end is not None]
    return own.model_copy(
        update={
            "state": next((state for state in ORDER if state in states), own.state),
            "reason": reasons[0] if reasons else None,
            "step": min(status.step for status in found),
            "fraction": sum(status.fraction for status in found) / len(found),
            "heartbeat": heartbeat,
            "seconds": max(status.seconds for status in found),
            "smooth_loss": _mean([status.smooth_loss for status in found]),
            "characters_per_second": sum(
                status.characters_per_second or 0.0 for status in found if status.state == "training"
            ),
            "expected_end": heartbeat + max(left) if left and len(left) == len(unfinished) else None,
        }
    )


def _mean(losses: list[float | None]) -> float | None:
    known = [loss for loss in losses if loss is not None]
    return sum(known) / len(known) if len(known) == len(losses) else None


def ask_group(store: RunStore, run: Run, wanted: Wanted | None, priority: int | None) -> None:
    """`ask` for a run and, if it is a group, for its unfinished members. Raises as `ask`."""
    if run.spec.apart and run.standing.state != "finished":
        for member in members_of(store, run):
            if wanted is None or member.standing.state in POSSIBLE[wanted]:
                try:
                    ask(store, member, wanted, priority)
                except ConflictError:  # it has just finished
                    continue
    ask(store, run, wanted, priority)


def begin_group_deletion(store: RunStore, name: str, force: bool) -> list[str]:
    """`begin_deletion` for a run and its members; returns all names in the order in which to delete them.

    Raises as `begin_deletion`.
    """
    names = [member.name for member in members_of(store, store.get(name))]
    begin_deletion(store, name, force, others=names)
    for member in names:
        begin_deletion(store, member, force=True)
    return [name, *names]
