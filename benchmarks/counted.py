"""A `charloom` process that counts its operations on the directory of the store.

    python -m benchmarks.counted COUNT STORE serve --no-worker ...

The file COUNT always contains two numbers: the operations so far, and how many of them write. An operation is
a call with a path in the directory STORE, or a call that flushes a file. Opening a file counts as three, as a
network file system has to open it, read or write it, and close it. Child processes are not counted.
"""

import builtins
import io
import os
import sys
import threading

from app.cli import main as charloom

READING = ("stat", "lstat", "scandir", "listdir", "access", "readlink")
WRITING = ("utime", "mkdir", "rmdir", "rename", "replace", "unlink", "remove", "link", "chmod")
OPEN_OPERATIONS = 3


class Counter:
    """Counts operations on the directory `root`, and writes the counts to the file `path` after each."""

    def __init__(self, path, root):
        self.file, self.root = os.open(path, os.O_RDWR | os.O_CREAT), root
        self.total = self.writing = 0
        self.lock = threading.Lock()

    def install(self):
        for name in READING:
            setattr(os, name, self.counting(getattr(os, name), lambda arguments: False))
        for name in WRITING:
            setattr(os, name, self.counting(getattr(os, name), lambda arguments: True))
        os.fsync = self.counting(os.fsync, lambda arguments: True)
        os.open = self.counting(os.open, opens_to_write, OPEN_OPERATIONS)
        builtins.open = io.open = self.counting(builtins.open, opens_to_write, OPEN_OPERATIONS)

    def counting(self, call, writes, operations=1):
        flush = call is os.fsync

        def counted(*arguments, **options):
            done = 1  # if the call fails
            try:
                result = call(*arguments, **options)
                done = operations
                return result
            finally:
                named = arguments[0] if arguments else None
                if flush or self.concerns(named):
                    self.add(done, writes(arguments))

        return counted

    def concerns(self, path):
        return isinstance(path, (str, os.PathLike)) and os.fspath(path).startswith(self.root)

    def add(self, operations, writes):
        with self.lock:
            self.total += operations
            self.writing += operations if writes else 0
            os.pwrite(self.file, f"{self.total:12} {self.writing:12}".encode(), 0)


def opens_to_write(arguments):
    mode = arguments[1] if len(arguments) > 1 else "r"
    if isinstance(mode, int):
        return bool(mode & (os.O_WRONLY | os.O_RDWR))
    return any(letter in mode for letter in "wax+")


def main():
    count, root, *arguments = sys.argv[1:]
    Counter(count, os.path.realpath(root)).install()
    sys.exit(charloom(arguments))


if __name__ == "__main__":
    main()
