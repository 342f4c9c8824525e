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
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from common.errors import StartupError
from common.log.url import has_secrets, redact
from storage_node.backup.errors import TargetError

MAX_BYTES = 64 << 20
"""No object is larger: what is read before its checksum is known."""
_NAME = re.compile(r"[a-z0-9][a-zA-Z0-9.-]*(/[a-zA-Z0-9][a-zA-Z0-9.-]*){0,3}")
_SAID = re.compile(r"<Code>([^<]*)</Code>\s*<Message>([^<]*)</Message>")
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
        return _bounded(name, data)

    def entries(self, prefix: str) -> Iterator[Entry]:
        top = self._path(prefix)
        try:
            for folder, _, files in os.walk(top, onerror=_raise_unless_gone):
                for file in files:
                    path = Path(folder, file)
                    name = path.relative_to(self._folder).as_posix()
                    with contextlib.suppress(FileNotFoundError):
                        found = path.stat()
                        if _NAME.fullmatch(name):
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
        return self._folder / _checked(name)

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


class _NoSuchObject(TargetError):
    """There is none of this name."""


class BucketTarget:
    """A bucket, through obstore; credentials, region and endpoint come from the environment as usual.

    For S3: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION, AWS_ENDPOINT_URL, which
    may be http://. Raises StartupError.
    """

    def __init__(self, where: str) -> None:
        from obstore.store import from_url

        self.where = where
        try:
            self._store: Any = from_url(where, retry_config=_RETRIES, client_options=_client_options())
        except Exception as error:  # obstore raises its own, which have no common root that is exported
            raise StartupError(f"cannot use {where} for backups: {_reason(error)}") from None

    def put(self, name: str, data: bytes) -> None:
        import obstore

        with self._named(_checked(name)):
            obstore.put(self._store, name, data)

    def get(self, name: str) -> bytes | None:
        import obstore

        try:
            with self._named(_checked(name)):
                found = obstore.get(self._store, name)
                if found.meta["size"] > MAX_BYTES:
                    raise TargetError(f"{name} in {self.where} has more than {MAX_BYTES} bytes")
                return _bounded(name, bytes(found.bytes()))
        except _NoSuchObject:
            return None

    def entries(self, prefix: str) -> Iterator[Entry]:
        import obstore

        with self._named(_checked(prefix)):
            for page in obstore.list(self._store, prefix=prefix, chunk_size=1000):
                for one in page:
                    if _NAME.fullmatch(one["path"]):
                        yield Entry(one["path"], one["size"], one["last_modified"].timestamp())

    def delete(self, name: str) -> None:
        import obstore

        with contextlib.suppress(_NoSuchObject), self._named(_checked(name)):
            obstore.delete(self._store, name)

    @contextlib.contextmanager
    def _named(self, name: str) -> Iterator[None]:
        try:
            yield
        except TargetError:
            raise
        except Exception as error:  # as above
            reason = _reason(error)
            if isinstance(error, FileNotFoundError) and "NoSuchBucket" not in reason:
                raise _NoSuchObject(f"{name} is not in {self.where}") from None
            raise TargetError(f"{name} in {self.where}: {reason}") from None


# Who stops waits for the request under way, so all of its attempts together are to take less than a minute.
_RETRIES: Any = {"max_retries": 3, "retry_timeout": timedelta(seconds=20)}
_CONNECT_TIMEOUT = timedelta(seconds=5)
_TIMEOUT = timedelta(seconds=30)


def _client_options() -> Any:
    # An endpoint that is given as http:// is meant so.
    endpoints = (os.environ.get(name, "") for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"))
    plain = next(filter(None, endpoints), "").startswith("http://")
    return {"connect_timeout": _CONNECT_TIMEOUT, "timeout": _TIMEOUT, "allow_http": plain}


def _checked(name: str) -> str:
    assert _NAME.fullmatch(name), name
    return name


def _bounded(name: str, data: bytes) -> bytes:
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


def _reason(error: Exception) -> str:
    """What the server says, else the first line of what obstore says."""
    if said := _SAID.search(str(error)):
        return f"{said[2]} ({said[1]})"
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
