"""The data folder: made when missing, and held by one process at a time."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from types import TracebackType

from common.errors import StartupError

RESTORE_MARK = "restore.json"
"""There while a restore has been begun and not finished."""


class DataFolder:
    """A folder locked for this process until `close`; the kernel gives the lock back when the process dies.

    restoring: whether a folder that is half restored will do.
    Raises StartupError.
    """

    def __init__(self, path: Path, *, restoring: bool = False) -> None:
        self.path = path
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._fd = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise StartupError(
                f"cannot use the data folder {path}: {error.strerror}; make it writable for this user "
                "or choose another with --data-dir"
            ) from None
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.pread(self._fd, 32, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(self._fd)
            raise StartupError(
                f"the data folder {path} is in use by process {holder}; stop it or choose another with --data-dir"
            ) from None
        if not restoring and (path / RESTORE_MARK).exists():
            os.close(self._fd)
            raise StartupError(
                f"the data folder {path} is half restored; give the same `tabor restore` again, which goes on, or "
                f"remove the folder"
            )
        try:
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)
        except OSError as error:
            os.close(self._fd)
            raise StartupError(f"cannot use the data folder {path}: {error.strerror}") from None

    def close(self) -> None:
        os.close(self._fd)

    def __enter__(self) -> DataFolder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
