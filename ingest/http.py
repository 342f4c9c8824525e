"""Remote write over HTTP: POST /api/v1/write and /write.

204   every sample is durable in the log, or there was none
400   the body cannot be read, or some series are not valid (the message says whether the others are stored)
413   too many bytes, series or samples        415   not snappy, or not prometheus.WriteRequest
422   series break a limit of labels           429   too many active series
503   the log does not take more; Retry-After says when to come again
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from concurrent.futures import Future
from typing import NamedTuple

from fastapi import APIRouter

from common import asgi
from common.asgi import App, Receive, Scope, Send
from common.errors import RetryableError
from common.tenants import TenantRefused, tenant_of
from ingest.errors import BodyTooLarge, RequestRefused, UnsupportedType, retry_after
from ingest.ingestor import Ingestor, WriteOutcome

PATHS = ("/api/v1/write", "/write")
_MEDIA_TYPE = "application/x-protobuf"
_MESSAGES = {"prometheus.writerequest": 1, "io.prometheus.write.v2.request": 2}


def router(ingestor: Ingestor) -> APIRouter:
    """The routes of remote write for this ingestor."""
    routes = APIRouter()
    endpoint = WriteEndpoint(ingestor)
    for path in PATHS:
        routes.add_route(path, endpoint, methods=["POST"], include_in_schema=False)  # type: ignore[arg-type]
    return routes


def in_front_of(app: App, ingestor: Ingestor) -> App:
    """An application that answers remote write itself and leaves all else to `app`.

    A write is one small request of very many; it does not go through the layers that `app` has for the others.
    """
    return asgi.in_front_of(app, dict.fromkeys(PATHS, WriteEndpoint(ingestor)), ("POST",))


class WriteEndpoint:
    """Remote write as an ASGI application of its own."""

    def __init__(self, ingestor: Ingestor) -> None:
        self._ingestor = ingestor
        self._outcomes: _Outcomes | None = None
        self._counters = {status: ingestor.metrics.requests.labels(str(status)) for status in (204, 503)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = await self._answer(scope, receive)
        counter = self._counters.get(answer.status) or self._ingestor.metrics.requests.labels(str(answer.status))
        counter.inc()
        await send({"type": "http.response.start", "status": answer.status, "headers": answer.headers})
        await send({"type": "http.response.body", "body": answer.body})

    async def _answer(self, scope: Scope, receive: Receive) -> _Answer:
        ingestor = self._ingestor
        version = 1
        headers = {name: value.decode("latin-1") for name, value in scope["headers"] if name in _USED_HEADERS}
        try:
            ingestor.check_open()
            tenant = tenant_of(scope, ingestor.config.tenancy)
            version = version_of(headers.get(b"content-type", ""), headers.get(b"content-encoding", ""))
            declared = headers.get(b"content-length", "0")
            started = time.perf_counter()
            body = await _read_body(receive, declared, ingestor.config.max_compressed_bytes)
            ingestor.metrics.receive_seconds.inc(time.perf_counter() - started)
            submit = ingestor.submit_v2 if version == 2 else ingestor.submit
            outcome = await self._outcome(submit(body, tenant))
        except (RequestRefused, TenantRefused) as error:
            nothing = _written(None) if version == 2 else ()
            return _text(error.status, str(error), *nothing, *_retry_after(error))
        except RetryableError as error:
            return _text(503, str(error), *_retry_after(error))
        except _Disconnected:
            return _text(400, "the body ended early")
        written = _written(outcome) if version == 2 else ()
        if outcome.refusal is not None:
            return _text(outcome.refusal.status, outcome.refusal.message, *written, *_retry_after(outcome.refusal))
        return _Answer(204, list(written), b"") if written else _STORED

    def _outcome(self, future: Future[WriteOutcome]) -> asyncio.Future[WriteOutcome]:
        loop = asyncio.get_running_loop()
        if self._outcomes is None or self._outcomes.loop is not loop:
            self._outcomes = _Outcomes(loop)
        return self._outcomes.awaitable(future)


class _Outcomes:
    """Carries outcomes from the log's thread to the event loop, those of a group with one wake-up."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._done: deque[tuple[asyncio.Future[WriteOutcome], Future[WriteOutcome]]] = deque()
        self._woken = False

    def awaitable(self, future: Future[WriteOutcome]) -> asyncio.Future[WriteOutcome]:
        """The same outcome, for the event loop."""
        waiter: asyncio.Future[WriteOutcome] = self.loop.create_future()

        def note(done: Future[WriteOutcome]) -> None:
            self._done.append((waiter, done))
            if not self._woken and not self.loop.is_closed():
                self._woken = True
                self.loop.call_soon_threadsafe(self._settle)

        future.add_done_callback(note)
        return waiter

    def _settle(self) -> None:
        # First: what is added from here on wakes the loop again.
        self._woken = False
        while self._done:
            waiter, done = self._done.popleft()
            if waiter.cancelled():
                continue
            error = done.exception()
            if error is None:
                waiter.set_result(done.result())
            else:
                waiter.set_exception(error)


class _Answer(NamedTuple):
    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes


_USED_HEADERS = (b"content-type", b"content-encoding", b"content-length")
_STORED = _Answer(204, [], b"")


def _text(status: int, message: str, *headers: tuple[bytes, bytes]) -> _Answer:
    body = (message + "\n").encode()
    length = str(len(body)).encode()
    always = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", length)]
    return _Answer(status, [*always, *headers], body)


def _retry_after(error: object) -> list[tuple[bytes, bytes]]:
    return [(name.lower().encode(), text.encode()) for name, text in retry_after(error).items()]


def _written(outcome: WriteOutcome | None) -> tuple[tuple[bytes, bytes], ...]:
    """The headers by which an answer to 2.0 says how much was stored."""
    counts = (0, 0, 0)
    if outcome is not None:
        counts = outcome.n_samples - outcome.n_histograms, outcome.n_histograms, outcome.n_exemplars
    kinds = (b"samples", b"histograms", b"exemplars")
    return tuple(
        (b"x-prometheus-remote-write-%b-written" % kind, b"%d" % count)
        for kind, count in zip(kinds, counts, strict=True)
    )


def version_of(content_type: str, content_encoding: str) -> int:
    """Which version of remote write a request is, 1 or 2; a missing header stands for 1.0, as in Prometheus.

    Raises:
        UnsupportedType: it is something else; says what.
    """
    media_type, *parameters = (part.strip() for part in content_type.split(";"))
    if media_type and media_type.lower() != _MEDIA_TYPE:
        raise UnsupportedType(f"Content-Type is {media_type}; {_MEDIA_TYPE} is expected")
    version = 1
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        message = value.strip().strip('"')
        if name.strip().lower() == "proto":
            if message.lower() not in _MESSAGES:
                raise UnsupportedType(
                    f"protobuf message {message} is not supported; send prometheus.WriteRequest (remote write 1.0)"
                    " or io.prometheus.write.v2.Request (2.0)"
                )
            version = _MESSAGES[message.lower()]
    if content_encoding.strip().lower() not in ("", "snappy"):
        raise UnsupportedType(f"Content-Encoding is {content_encoding}; snappy is expected")
    return version


class _Disconnected(Exception):
    """The sender went away before the end of its body."""


async def _read_body(receive: Receive, declared: str, max_bytes: int) -> bytes:
    """Read the body, as long as it keeps to the limit.

    Raises:
        BodyTooLarge: the length that the header declares or what has arrived exceeds it. _Disconnected.
    """
    if declared.isdecimal() and int(declared) > max_bytes:
        raise _too_large(max_bytes)
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _Disconnected
        chunk: bytes = message.get("body", b"")
        size += len(chunk)
        if size > max_bytes:
            raise _too_large(max_bytes)
        chunks.append(chunk)
        if not message.get("more_body", False):
            return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _too_large(max_bytes: int) -> BodyTooLarge:
    return BodyTooLarge(f"the body has more than {max_bytes} bytes compressed (--max-body-bytes)")
