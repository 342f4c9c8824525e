"""Where backups are kept: a folder, or a bucket of an object store.

What is put is there whole and durable, or not at all. Names are relative paths of a few plain characters.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Protocol

from common.errors import StartupError
from common.log.url import has_secrets, redact
from storage_node.backup.errors import TargetError

MAX_BYTES = 64 << 20
"""No object is larger: what is read before its checksum is known."""
NAME = re.compile(r"[a-z0-9][a-zA-Z0-9.-]*(/[a-zA-Z0-9][a-zA-Z0-9.-]*){0,3}")
_STAGED = ".staged-"
_STAGED_OLD_S = 3600.0


class Entry(NamedTuple):
    """An object. modified_s: Unix seconds by the clock of the target."""

    name: str
    size_bytes: int
    modified_s: float


class Target(Protocol):
    """Any thread may call; all methods raise TargetError."""

    where: str
    """For messages; holds no secrets."""

    def put(self, name: str, data: bytes) -> None:
        """Keep data under a name, in place of what was there."""

    def get(self, name: str) -> bytes | None:
        """The data under a name, or None if there is no such object."""

    def entries(self, prefix: str) -> Iterator[Entry]:
        """All objects whose names start with `prefix`/, in no order; what is not named as we do is left out."""

    def delete(self, name: str) -> None:
        """Forget an object; nothing happens if there is none."""


def open_target(where: str, *, create: bool) -> Target:
    """The target that a user names: a path, or a URL such as s3://bucket/prefix.

    Raises:
        StartupError: it is neither, or the folder is not there and `create` is not set.
    """
    scheme, found, _ = where.partition("://")
    if not found:
        return FolderTarget(Path(where), create=create)
    if has_secrets(where):
        raise StartupError(
            f"{redact(where)!r} has credentials or parameters in it, where others can see them; those of buckets "
            "come from the environment, AWS_ACCESS_KEY_ID and the like"
        )
    if scheme not in ("s3", "gs", "az"):
        raise StartupError(f"{where!r} is no place for backups; give a folder, s3://bucket/prefix, gs:// or az://")
    from storage_node.backup.bucket import BucketTarget

    return BucketTarget(where)


class FolderTarget:
    """A folder of a file system that is mounted here."""

    def __init__(self, folder: Path, *, create: bool) -> None:
        self.where = str(folder)
        self._folder = folder
        try:
            if create:
                folder.mkdir(parents=True, exist_ok=True)
            elif not folder.is_dir():
                raise StartupError(f"there are no backups in {folder}: it is no folder")
            self._remove_staged()
        except OSError as error:
            raise StartupError(f"cannot use the folder {folder}: {error.strerror}") from None

    def put(self, name: str, data: bytes) -> None:
        path = self._path(name)
        staged = self._folder / f"{_STAGED}{secrets.token_hex(8)}"
        try:
            self._write(staged, data)
            path.parent.mkdir(parents=True, exist_ok=True)
            staged.rename(path)
            # The folders above the first are few and change rarely; one that was lost would be found missing.
            for parent in list(path.parents)[: name.count("/") + 1]:
                _sync(parent)
        except OSError as error:
            with contextlib.suppress(OSError):
                staged.unlink(missing_ok=True)
            raise TargetError(f"{path} cannot be written: {error.strerror}") from None

    def get(self, name: str) -> bytes | None:
        path = self._path(name)
        try:
            with path.open("rb") as file:
                data = file.read(MAX_BYTES + 1)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise TargetError(f"{path} cannot be read: {error.strerror}") from None
        return bounded(name, data)

    def entries(self, prefix: str) -> Iterator[Entry]:
        top = self._path(prefix)
        try:
            for folder, _, files in os.walk(top, onerror=_raise_unless_gone):
                for file in files:
                    path = Path(folder, file)
                    name = path.relative_to(self._folder).as_posix()
                    with contextlib.suppress(FileNotFoundError):
                        found = path.stat()
                        if NAME.fullmatch(name):
                            yield Entry(name, found.st_size, found.st_mtime)
        except OSError as error:
            raise TargetError(f"{error.filename or top} cannot be read: {error.strerror}") from None

    def delete(self, name: str) -> None:
        path = self._path(name)
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise TargetError(f"{path} cannot be deleted: {error.strerror}") from None
        with contextlib.suppress(OSError):
            path.parent.rmdir()

    def _path(self, name: str) -> Path:
        return self._folder / checked(name)

    def _write(self, path: Path, data: bytes) -> None:
        try:
            file = path.open("xb")
        except FileNotFoundError:
            self._folder.mkdir(parents=True, exist_ok=True)
            file = path.open("xb")
        with file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())

    def _remove_staged(self) -> None:
        """Remove what writers that were killed have left."""
        for path in self._folder.glob(f"{_STAGED}*"):
            with contextlib.suppress(FileNotFoundError):
                if time.time() - path.stat().st_mtime > _STAGED_OLD_S:
                    path.unlink() if path.is_file() else shutil.rmtree(path)


def checked(name: str) -> str:
    """The name of an object, which is one as we make them."""
    assert NAME.fullmatch(name), name
    return name


def bounded(name: str, data: bytes) -> bytes:
    """Data of an object. Raises TargetError if it is larger than any that we make."""
    if len(data) > MAX_BYTES:
        raise TargetError(f"{name} has more than {MAX_BYTES} bytes")
    return data


def _raise_unless_gone(error: OSError) -> None:
    # What is not listed looks as if it were not there, and pruning would act on that.
    if not isinstance(error, FileNotFoundError):
        raise error


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
