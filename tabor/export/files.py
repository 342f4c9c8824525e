"""Where an export goes: a file that has its name only when it is whole, or standard output."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from common.errors import CallerError


class Counted:
    """A sink that knows how far it is, for what asks a pipe for its position."""

    closed = False

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._size = 0

    def write(self, data: bytes) -> int:
        self._file.write(data)
        self._size += len(data)
        return len(data)

    def tell(self) -> int:
        return self._size

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        """Whoever opened the file closes it."""

    def readable(self) -> bool:
        return False

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False


@contextlib.contextmanager
def output(path: str) -> Iterator[Counted]:
    """A sink; a file of that name appears, or is replaced, at the end, and not at all after an error or Ctrl-C.

    Raises:
        CallerError: the file cannot be written; says why.
    """
    if path == "-":
        yield Counted(sys.stdout.buffer)
        sys.stdout.buffer.flush()
        return
    target = Path(path)
    if target.is_dir():
        raise CallerError(f"--output {path} is a folder")
    try:
        number, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".part")
    except OSError as error:
        raise CallerError(f"--output {path} cannot be written: {error.strerror}") from None
    try:
        with os.fdopen(number, "wb") as file:
            yield Counted(file)
            file.flush()
            os.fsync(number)
        umask = os.umask(0)
        os.umask(umask)
        # A temporary file is its owner's only; the finished one is as any other.
        Path(name).chmod(0o666 & ~umask)
        Path(name).replace(target)
    except OSError as error:
        raise CallerError(f"--output {path} cannot be written: {error.strerror}") from None
    finally:
        Path(name).unlink(missing_ok=True)
