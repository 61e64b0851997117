"""Checkpoints that stay although training goes on, because somebody has copied a link to one.

A kept checkpoint is a second name of its file, `kept-<step>.safetensors`: what trains and thins the run knows
nothing of it, and it takes no room while the first name is there too.
"""

from __future__ import annotations

import contextlib
import shutil

from app.errors import ModelNotFoundError
from app.store.checkpoints import find_checkpoint
from app.store.files import flush, replacing
from app.store.run import Run
from app.store.space import Budget

MOST = 16  # of a run; the earliest steps go first


def keep(run: Run, step: int, budget: Budget) -> int:
    """Keep the checkpoint of `run` at `step`; how many are kept then.

    Raises NotReadyError, ModelNotFoundError, OSError.
    """
    target = run.kept_path(step)
    if step not in run.kept():
        found = find_checkpoint(run, step)
        try:
            with contextlib.suppress(FileExistsError):  # another server was quicker
                target.hardlink_to(found.path)
        except FileNotFoundError:
            raise ModelNotFoundError(f"the checkpoint {run.name}@{step} was just removed") from None
        except OSError:  # a file system without second names
            budget.make_room(found.path.stat().st_size)
            with replacing(target) as copy:
                shutil.copyfile(found.path, copy, follow_symlinks=False)
        flush(run.path)
    kept = run.kept()
    for other in [other for other in kept if other != step][: max(0, len(kept) - MOST)]:
        kept.pop(other).unlink(missing_ok=True)
    return len(kept)
