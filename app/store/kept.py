"""Pinned checkpoints: they are not deleted by training, because someone has copied a link to them.

A kept checkpoint is a hard link to its file, `kept-<step>.safetensors`. The worker, which deletes old
checkpoints, ignores it, and it needs no disk space while the original exists.
"""

from __future__ import annotations

import contextlib
import shutil

from app.errors import ModelNotFoundError
from app.store.checkpoints import find_checkpoint
from app.store.files import flush, replacing
from app.store.run import Run
from app.store.space import Budget

MAX_KEPT = 16  # per run; the lowest steps are deleted first


def keep(run: Run, step: int, budget: Budget) -> int:
    """Keeps the checkpoint of `run` at `step`; returns how many are kept.

    Raises NotReadyError, ModelNotFoundError, OSError.
    """
    target = run.kept_path(step)
    if step not in run.kept():
        found = find_checkpoint(run, step)
        try:
            with contextlib.suppress(FileExistsError):  # another server has just made it
                target.hardlink_to(found.path)
        except FileNotFoundError:
            raise ModelNotFoundError(f"the checkpoint {run.name}@{step} was just removed") from None
        except OSError:  # a file system without hard links
            budget.make_room(found.path.stat().st_size)
            with replacing(target) as copy:
                shutil.copyfile(found.path, copy, follow_symlinks=False)
        flush(run.path)
    kept = run.kept()
    for other in [other for other in kept if other != step][: max(0, len(kept) - MAX_KEPT)]:
        kept.pop(other).unlink(missing_ok=True)
    return len(kept)
