"""Files that OpenAI clients upload before they create a fine-tuning job.

checkpoints/.files/<id>/file.json   the description (UploadedFile)
                        content     the uploaded bytes
"""

from __future__ import annotations

import re
import secrets
import time
from contextlib import suppress
from pathlib import Path
from typing import IO

from app.errors import ConflictError, NotFoundError, RunFileError, TooLargeError
from app.store.files import Source, flush, make_folder, make_private, open_regular, remove_folder
from app.store.records import Count, Record, Time
from app.store.run_store import RunStore
from app.store.space import Limits, scratch

FILE_ID = re.compile(r"file-[0-9a-f]{24}", re.ASCII)
LONGEST_NAME = 200
PIECE = 1 << 20


class UploadedFile(Record):
    """An uploaded file; `size` is in bytes, `created` in Unix seconds."""

    id: str
    filename: str
    size: Count
    purpose: str
    created: Time


class UploadedFiles:
    """The uploaded files of a store; their maximum number is that of its runs."""

    def __init__(self, store: RunStore, limits: Limits) -> None:
        self._store, self._limits = store, limits
        self.folder = store.root / ".files"

    def add(self, source: Source, purpose: str) -> UploadedFile:
        """Stores a file. Raises ConflictError (too many), TooLargeError, OSError; nothing is left then."""
        files, limit = len(self.list()), self._limits.runs
        if files >= limit:
            raise ConflictError(
                f"the store has {files} of {limit} files (CHARLOOM_MAX_RUNS): delete some first"
            )
        with scratch(self._store) as folder:
            size = self._copy(source, folder / "content")
            self._limits.budget.make_room(0)
            record = UploadedFile(
                id=f"file-{secrets.token_hex(12)}",
                filename=source.name[:LONGEST_NAME],
                size=size,
                purpose=purpose,
                created=time.time(),
            )
            record.write(folder / "file.json")
            make_private(folder)
            with suppress(FileExistsError):
                make_folder(self.folder)
            kept = folder.rename(self.folder / record.id)
            flush(kept.parent)
        return record

    def _copy(self, source: Source, target: Path) -> int:
        size = 0
        with target.open("wb") as out:
            while piece := source.content.read(PIECE):
                size += len(piece)
                if size > self._limits.text:
                    raise TooLargeError(
                        f"a file must have at most {self._limits.text:,} bytes (CHARLOOM_MAX_CORPUS_BYTES)"
                    )
                out.write(piece)
        flush(target)
        return size

    def get(self, file_id: str) -> UploadedFile:
        """The description of a file. Raises NotFoundError, RunFileError if it cannot be used."""
        path = self._path(file_id)
        try:
            found = UploadedFile.read(path / "file.json")
        except FileNotFoundError:
            raise NotFoundError(f"there is no file {file_id!r}") from None
        if found.id != file_id:
            raise RunFileError(f"the record of the file {file_id} is that of another")
        return found

    def list(self) -> list[UploadedFile]:
        """All readable files, newest first."""
        found = []
        for path in self.folder.iterdir() if self.folder.is_dir() else ():
            try:
                found.append(self.get(path.name))
            except (NotFoundError, RunFileError):  # just deleted, or not a Charloom file
                continue
        return sorted(found, key=lambda file: (file.created, file.id), reverse=True)

    def open(self, file_id: str) -> IO[bytes]:
        """Opens the content of a file. Raises NotFoundError, OSError."""
        try:
            return open_regular(self._path(file_id) / "content")
        except FileNotFoundError:
            raise NotFoundError(f"there is no file {file_id!r}") from None

    def delete(self, file_id: str) -> None:
        """Deletes a file; runs made from it keep their text. Raises NotFoundError, OSError."""
        self.get(file_id)
        remove_folder(self._path(file_id), self._store.root)

    def _path(self, file_id: str) -> Path:
        path = self.folder / file_id
        # a link could point outside the store
        if not FILE_ID.fullmatch(file_id) or path.is_symlink() or self.folder.is_symlink():
            raise NotFoundError(f"there is no file {file_id[:80]!r}")
        return path
