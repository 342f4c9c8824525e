"""A bucket of an object store, through obstore; credentials, region and endpoint come from the environment."""

from __future__ import annotations

import contextlib
import os
import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from datetime import timedelta
from typing import Any, TypeVar

from common.errors import StartupError
from storage_node.backup.errors import TargetError
from storage_node.backup.target import MAX_BYTES, NAME, Entry, bounded, checked

T = TypeVar("T")

_SAID = re.compile(r"<Code>([^<]*)</Code>\s*<Message>([^<]*)</Message>")
_ASKED = re.compile(r"Error performing [A-Z]+ (\w+://[^/\s]+)")
_CAUSE = re.compile(r'(?:message|error): "([^"]*)"')
_ROLE = re.compile("/latest/(api/token|meta-data/)")
"""Where instances of EC2 ask for the credentials of their role."""
_VARIABLES = (
    ("AWS_SECRET_ACCESS_KEY", "Missing SecretAccessKey"),
    ("AWS_ACCESS_KEY_ID", "Missing AccessKeyId"),
)


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

        with self._named(checked(name)):
            _waited(lambda: obstore.put(self._store, name, data))

    def get(self, name: str) -> bytes | None:
        import obstore

        try:
            with self._named(checked(name)):
                found = _waited(lambda: obstore.get(self._store, name))
                if found.meta["size"] > MAX_BYTES:
                    raise TargetError(f"{name} in {self.where} has more than {MAX_BYTES} bytes")
                return bounded(name, _waited(lambda: bytes(found.bytes())))
        except _NoSuchObject:
            return None

    def entries(self, prefix: str) -> Iterator[Entry]:
        import obstore

        with self._named(checked(prefix)):
            pages = obstore.list(self._store, prefix=prefix, chunk_size=1000)
            while page := _waited(lambda: next(pages, None)):
                for one in page:
                    if NAME.fullmatch(one["path"]):
                        yield Entry(one["path"], one["size"], one["last_modified"].timestamp())

    def delete(self, name: str) -> None:
        import obstore

        with contextlib.suppress(_NoSuchObject), self._named(checked(name)):
            _waited(lambda: obstore.delete(self._store, name))

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


def _waited(call: Callable[[], T]) -> T:
    """What a call returns or raises. obstore does not hear signals, so the main thread does not call it itself."""
    if threading.current_thread() is not threading.main_thread():
        return call()
    outcome: Future[T] = Future()

    def run() -> None:
        try:
            outcome.set_result(call())
        except BaseException as error:  # whatever it is, the caller gets it
            outcome.set_exception(error)

    threading.Thread(target=run, name="bucket", daemon=True).start()
    return outcome.result()


def _reason(error: Exception) -> str:
    """What the server says, else what is wrong in a line."""
    text = str(error)
    if said := _SAID.search(text):
        return f"{said[2]} ({said[1]})"
    if _ROLE.search(text):
        return (
            "no credentials: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are not set, and this is no instance of "
            "EC2 with a role"
        )
    for variable, missing in _VARIABLES:
        if missing in text:
            return f"{variable} is not set"
    asked = _ASKED.search(text)
    server = asked[1] if asked else "the server"
    if "kind: Timeout" in text or "TimedOut" in text:
        return f"no answer from {server} within {_TIMEOUT.total_seconds():g} s"
    if cause := _CAUSE.search(text):
        return f"no answer from {server}: {cause[1]}"
    return (text.strip().splitlines() or [type(error).__name__])[0][:300]
