"""The read API of a storage node, for query servers (`docs/format/read-api.md`).

POST /internal/v1/{select,series,label_names,label_values,metadata,exemplars,extent,evaluate,usage,births}
JSON in, frames out

The answer begins before its outcome is known: while the node works it sends a keep-alive frame every second, so
that whoever asks can tell a node that works from one that hangs. Errors of the work are frames, too. By status:
400 the request cannot be read   413 it is too large   421 it is meant for another node   503 too many reads wait
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from threading import BoundedSemaphore
from typing import Any, Protocol

from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse
from starlette.requests import ClientDisconnect

from common.errors import CallerError, RetryableError
from common.events import EventLog
from common.store import SeriesStore
from common.wire import answers
from common.wire.frames import MEDIA_TYPE, Kind, frame, json_frame
from common.wire.requests import MAX_REQUEST_BYTES, PATHS, ReadRequest, parse_request
from storage_node.doors import body_of, refusal

MAX_READS = 16
KEEP_ALIVE_S = 1.0
PART_BYTES = 256 << 10
_WAITING_PER_RUNNING = 10
_KEEP_ALIVE = frame(Kind.KEEP_ALIVE)

Frames = Iterator[bytes]
Work = Callable[[SeriesStore, ReadRequest, Sequence[threading.Event]], Frames]
"""Does a read; it should end early once one of the events is set."""

_log = EventLog("storage_node")


class PartitionedStore(Protocol):
    """What a node reads from; see `storage_node.store.NodeStore`."""

    def over(self, partitions: Sequence[int]) -> SeriesStore:
        """The store confined to some partitions; its reads raise NotHeld if the node does not hold them all."""

    def wait_applied(self, wanted: Mapping[int, int], timeout_s: float) -> None:
        """Return when each of these partitions has reached its next offset; raises NotCaughtUp, NotHeld."""


class NodeReads:
    """Answers reads on threads of its own: at most `max_reads` at a time, ten times as many wait.

    name: of this node. evaluate: the engine of the query tier, which this one does not know.
    """

    def __init__(
        self,
        name: str,
        store: PartitionedStore,
        *,
        evaluate: Work | None = None,
        max_reads: int = MAX_READS,
        keep_alive_s: float = KEEP_ALIVE_S,
    ) -> None:
        self._name = name
        self._store = store
        self._keep_alive_s = keep_alive_s
        self._work = _WORK if evaluate is None else {**_WORK, "evaluate": evaluate}
        self._closing = threading.Event()
        self._threads = ThreadPoolExecutor(max_reads, thread_name_prefix="read")
        self._slots = BoundedSemaphore(max_reads * (1 + _WAITING_PER_RUNNING))

    def close(self) -> None:
        """Wait for reads under way, end evaluations; those that wait are dropped."""
        self._closing.set()
        self._threads.shutdown(wait=True, cancel_futures=True)

    def router(self) -> APIRouter:
        """The routes."""
        routes = APIRouter()
        for read, work in self._work.items():
            endpoint = self._endpoint(work)
            routes.add_api_route(PATHS[read], endpoint, methods=["POST"], response_class=Response, name=read)
        return routes

    def _endpoint(self, work: Work) -> Any:
        async def endpoint(request: Request) -> Response:
            arrived_s = time.monotonic()
            try:
                body = await body_of(request, MAX_REQUEST_BYTES)
                if body is None:
                    return refusal(413, CallerError(f"the request has more than {MAX_REQUEST_BYTES} bytes"))
                asked = parse_request(body)
                if asked.node != self._name:
                    return refusal(421, RetryableError(f"this is node {self._name!r}, not {asked.node!r}"))
                gone = threading.Event()
                future = self._submit(work, asked, arrived_s, gone)
            except ClientDisconnect:
                return refusal(400, CallerError("the request ended early"))
            except CallerError as error:
                return refusal(400, error)
            except RetryableError as error:
                return refusal(503, error)
            return StreamingResponse(self._stream(future, gone), media_type=MEDIA_TYPE)

        return endpoint

    def _submit(self, work: Work, asked: ReadRequest, arrived_s: float, gone: threading.Event) -> Future[Frames]:
        if not self._slots.acquire(blocking=False):
            raise RetryableError("too many reads wait for this node")

        def job() -> Frames:
            if asked.required is not None:
                wanted = dict(zip(asked.partitions, asked.required, strict=True))
                self._store.wait_applied(wanted, max(0.0, arrived_s + asked.wait_s - time.monotonic()))
            return work(self._store.over(asked.partitions), asked, (gone, self._closing))

        try:
            # In the context of the request, so that what is logged has its id.
            future = self._threads.submit(contextvars.copy_context().run, job)
        except RuntimeError:
            self._slots.release()
            raise RetryableError("the node is stopping") from None
        future.add_done_callback(lambda _: self._slots.release())
        return future

    async def _stream(self, future: Future[Frames], gone: threading.Event) -> AsyncIterator[bytes]:
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
            gone.set()
            outcome.cancel()


def _select(store: SeriesStore, asked: ReadRequest) -> Frames:
    if len(asked.matcher_sets) != 1:
        raise CallerError("'select' takes one set of matchers")
    times = asked.min_time_ms, asked.max_time_ms
    return answers.selection_frames(
        store.select(asked.matcher_sets[0], *times, asked.max_samples, asked.max_series)
    )


def _series(store: SeriesStore, asked: ReadRequest) -> Frames:
    times = asked.min_time_ms, asked.max_time_ms
    return answers.table_frames(store.series(asked.matcher_sets, *times, asked.max_series))


def _label_names(store: SeriesStore, asked: ReadRequest) -> Frames:
    return answers.text_frames(store.label_names(asked.matcher_sets, asked.min_time_ms, asked.max_time_ms))


def _label_values(store: SeriesStore, asked: ReadRequest) -> Frames:
    times = asked.min_time_ms, asked.max_time_ms
    return answers.text_frames(store.label_values(asked.label, asked.matcher_sets, *times))


def _metadata(store: SeriesStore, asked: ReadRequest) -> Frames:
    return answers.metadata_frames(store.metadata(asked.label or None, asked.tenants))


def _exemplars(store: SeriesStore, asked: ReadRequest) -> Frames:
    return answers.exemplar_frames(store.exemplars(asked.matcher_sets, asked.min_time_ms, asked.max_time_ms))


def _extent(store: SeriesStore, asked: ReadRequest) -> Frames:
    return answers.extent_frames(store.extent(asked.matcher_sets))


def _births(store: SeriesStore, asked: ReadRequest) -> Frames:
    return answers.births_frames(store.births(asked.matcher_sets, asked.min_time_ms, asked.max_time_ms))


def _usage(store: SeriesStore, asked: ReadRequest) -> Frames:
    return answers.usage_frames(store.usage(with_samples=asked.label == "samples"))


def _short(work: Callable[[SeriesStore, ReadRequest], Frames]) -> Work:
    """Reads that are not worth to be ended early."""
    return lambda store, asked, ends: work(store, asked)


_WORK: dict[str, Work] = {
    "select": _short(_select),
    "series": _short(_series),
    "label_names": _short(_label_names),
    "label_values": _short(_label_values),
    "metadata": _short(_metadata),
    "exemplars": _short(_exemplars),
    "extent": _short(_extent),
    "usage": _short(_usage),
    "births": _short(_births),
}


def _part(frames: Frames) -> bytes:
    """The next frames, small ones together; nothing at the end."""
    part = bytearray()
    for one in frames:
        part += one
        if len(part) >= PART_BYTES:
            break
    return bytes(part)
