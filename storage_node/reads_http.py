"""The read API of a storage node, for query servers (`docs/format/read-api.md`).

POST /internal/v1/{select,series,label_names,label_values,metadata,exemplars,extent,caught_up}, JSON in, frames out

The answer begins before its outcome is known: while the node works it sends a keep-alive frame every second, so
that whoever asks can tell a node that works from one that hangs. Errors of the work are frames, too. By status:
400 the request cannot be read   413 it is too large   421 it is meant for another node   503 too many reads wait
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from threading import BoundedSemaphore
from typing import Any

import structlog
from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.requests import ClientDisconnect

from common.errors import CallerError, RetryableError
from common.store import SeriesStore
from common.wire import answers
from common.wire.frames import MEDIA_TYPE, Kind, frame, json_frame
from common.wire.requests import MAX_REQUEST_BYTES, PATHS, ReadRequest, parse_request

MAX_READS = 16
KEEP_ALIVE_S = 1.0
PART_BYTES = 256 << 10
_WAITING_PER_RUNNING = 10
_KEEP_ALIVE = frame(Kind.KEEP_ALIVE)

Frames = Iterator[bytes]

_log = structlog.get_logger("storage_node")


class NodeReads:
    """Answers reads on threads of its own: at most `max_reads` at a time, ten times as many wait.

    name: of this node. wait_applied(offsets, timeout_s): returns when the next offset of each partition is at
    least the given one, else raises NotCaughtUp. applied: the next offset of each partition.
    """

    def __init__(
        self,
        name: str,
        store: SeriesStore,
        wait_applied: Callable[[Sequence[int], float], None],
        applied: Callable[[], list[int]],
        *,
        max_reads: int = MAX_READS,
        keep_alive_s: float = KEEP_ALIVE_S,
    ) -> None:
        self._name = name
        self._store = store
        self._wait_applied = wait_applied
        self._applied = applied
        self._keep_alive_s = keep_alive_s
        self._threads = ThreadPoolExecutor(max_reads, thread_name_prefix="read")
        self._slots = BoundedSemaphore(max_reads * (1 + _WAITING_PER_RUNNING))
        self._work: dict[str, Callable[[ReadRequest], Frames]] = {
            "select": self._select,
            "series": self._series,
            "label_names": self._label_names,
            "label_values": self._label_values,
            "metadata": self._metadata,
            "exemplars": self._exemplars,
            "extent": self._extent,
            "caught_up": self._caught_up,
        }

    def close(self) -> None:
        """Wait for reads under way; those that wait are dropped."""
        self._threads.shutdown(wait=True, cancel_futures=True)

    def router(self) -> APIRouter:
        """The routes."""
        routes = APIRouter()
        for read, path in PATHS.items():
            routes.add_api_route(
                path, self._endpoint(self._work[read]), methods=["POST"], response_class=Response, name=read
            )
        return routes

    def _endpoint(self, work: Callable[[ReadRequest], Frames]) -> Any:
        def refuse(status: int, error: Exception) -> Response:
            return JSONResponse(answers.error_content(error), status_code=status)

        async def endpoint(request: Request) -> Response:
            arrived_s = time.monotonic()
            try:
                body = await _body(request)
                if body is None:
                    return refuse(413, CallerError(f"the request has more than {MAX_REQUEST_BYTES} bytes"))
                asked = parse_request(body)
                if asked.node != self._name:
                    return refuse(421, RetryableError(f"this is node {self._name!r}, not {asked.node!r}"))
                future = self._submit(work, asked, arrived_s)
            except ClientDisconnect:
                return refuse(400, CallerError("the request ended early"))
            except CallerError as error:
                return refuse(400, error)
            except RetryableError as error:
                return refuse(503, error)
            return StreamingResponse(self._stream(future), media_type=MEDIA_TYPE)

        return endpoint

    def _submit(
        self, work: Callable[[ReadRequest], Frames], asked: ReadRequest, arrived_s: float
    ) -> Future[Frames]:
        if not self._slots.acquire(blocking=False):
            raise RetryableError("too many reads wait for this node")

        def job() -> Frames:
            if asked.required is not None:
                held = len(self._applied())
                if len(asked.required) != held:
                    raise RetryableError(f"this node holds {held} partitions, not {len(asked.required)}")
                self._wait_applied(asked.required, max(0.0, arrived_s + asked.wait_s - time.monotonic()))
            return work(asked)

        try:
            future = self._threads.submit(job)
        except RuntimeError:
            self._slots.release()
            raise RetryableError("the node is stopping") from None
        future.add_done_callback(lambda _: self._slots.release())
        return future

    async def _stream(self, future: Future[Frames]) -> AsyncIterator[bytes]:
        outcome = asyncio.wrap_future(future)
        try:
            while not (await asyncio.wait((outcome,), timeout=self._keep_alive_s))[0]:
                yield _KEEP_ALIVE
            frames = await outcome
            # Compressing takes its time, so it is not done on the event loop.
            while part := await asyncio.to_thread(_part, frames):
                yield part
        except Exception as error:
            if not isinstance(error, CallerError | RetryableError):
                _log.exception("read_failed")
            yield json_frame(Kind.ERROR, answers.error_content(error))
        finally:
            # Whoever asked may have gone away.
            outcome.cancel()

    def _select(self, asked: ReadRequest) -> Frames:
        if len(asked.matcher_sets) != 1:
            raise CallerError("'select' takes one set of matchers")
        times = asked.min_time_ms, asked.max_time_ms
        found = self._store.select(asked.matcher_sets[0], *times, asked.max_samples, asked.max_series)
        return answers.selection_frames(found)

    def _series(self, asked: ReadRequest) -> Frames:
        found = self._store.series(asked.matcher_sets, asked.min_time_ms, asked.max_time_ms, asked.max_series)
        return answers.table_frames(found)

    def _label_names(self, asked: ReadRequest) -> Frames:
        found = self._store.label_names(asked.matcher_sets, asked.min_time_ms, asked.max_time_ms)
        return answers.text_frames(found)

    def _label_values(self, asked: ReadRequest) -> Frames:
        found = self._store.label_values(asked.label, asked.matcher_sets, asked.min_time_ms, asked.max_time_ms)
        return answers.text_frames(found)

    def _metadata(self, asked: ReadRequest) -> Frames:
        return answers.metadata_frames(self._store.metadata(asked.label or None))

    def _exemplars(self, asked: ReadRequest) -> Frames:
        found = self._store.exemplars(asked.matcher_sets, asked.min_time_ms, asked.max_time_ms)
        return answers.exemplar_frames(found)

    def _extent(self, asked: ReadRequest) -> Frames:
        return answers.extent_frames(self._store.extent())

    def _caught_up(self, asked: ReadRequest) -> Frames:
        return answers.applied_frames(self._applied())


def _part(frames: Frames) -> bytes:
    """The next frames, small ones together; nothing at the end."""
    part = bytearray()
    for one in frames:
        part += one
        if len(part) >= PART_BYTES:
            break
    return bytes(part)


async def _body(request: Request) -> bytes | None:
    """The body, or None if it is too large."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_REQUEST_BYTES:
            return None
    return bytes(body)
