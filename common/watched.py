"""Files that may change while a process runs, and those that others should not be able to read."""

from __future__ import annotations

import stat
from collections.abc import Iterable
from pathlib import Path
from typing import TypeAlias

from common.events import EventLog

Stamp: TypeAlias = "tuple[tuple[int, int, int] | None, ...]"
_log = EventLog("files")


def stamp(files: Iterable[Path]) -> Stamp:
    """Is another one after any of the files has been written or replaced, or what a link leads to."""
    return tuple(_stamp(file) for file in files)


def warn_if_readable_by_all(files: Iterable[Path]) -> None:
    """Say so in the log, for a secret that everyone on the machine can read is none."""
    for file in files:
        try:
            mode = file.stat().st_mode
        except OSError:
            continue
        if mode & stat.S_IROTH:
            _log.warning("secret_file_readable_by_all", file=str(file), mend=f"chmod o-rwx {file}")


def _stamp(file: Path) -> tuple[int, int, int] | None:
    try:
        about = file.stat()
    except OSError:
        return None
    return about.st_mtime_ns, about.st_size, about.st_ino
