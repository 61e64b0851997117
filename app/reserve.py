"""A little room kept on the disk, so that the reason can still be written down when the rest is full."""

from __future__ import annotations

import secrets
from pathlib import Path

from app.store.files import is_regular, write_atomic

SIZE = 1 << 16  # bytes: some statuses


class Reserve:
    """A file in `folder` that is there only to be given up."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / ".reserve"

    def keep(self) -> bool:
        """Take the room, unless it is taken; False where there is none."""
        if not is_regular(self.path):
            try:
                # random, since a file system may keep zeros for nothing
                write_atomic(self.path, secrets.token_bytes(SIZE))
            except OSError:
                return False
        return True

    def give_up(self) -> None:
        """Raises OSError."""
        self.path.unlink(missing_ok=True)
