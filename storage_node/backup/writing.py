"""Writing backups: the pieces that the target lacks, then the manifest."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from storage_node.backup import turns
from storage_node.backup.errors import TargetError
from storage_node.backup.manifest import (
    OBJECTS,
    Manifest,
    Stored,
    encode,
    manifest_name,
    object_name,
)
from storage_node.backup.pieces import MAX_CONTENT_BYTES, Piece, pack, pieces
from storage_node.backup.source import Frozen
from storage_node.backup.target import Target
from storage_node.copies import Rate

AT_ONCE = 4
"""Objects that are compressed and sent at the same time, of some MiB each."""


@dataclass(frozen=True, slots=True)
class Progress:
    """What has been done of a backup. kept_bytes: of content that the target had already."""

    partitions: int
    read_bytes: int
    sent_bytes: int
    kept_bytes: int


class Stop(Exception):
    """The process is to end; what has been sent is found again by the next backup."""


class Writer:
    """Writes one backup to a target; use it as a context.

    rate_bytes_per_s: at which objects are sent, before compression; None as fast as it goes.
    stop: set when the backup is to be given up.
    """

    def __init__(
        self,
        target: Target,
        run: str,
        partitions: int,
        *,
        rate_bytes_per_s: float | None = None,
        stop: threading.Event | None = None,
        progress: Callable[[Progress], object] = lambda done: None,
    ) -> None:
        self._target = target
        self._run = run
        self._partitions = partitions
        self._rate = None if rate_bytes_per_s is None else Rate(rate_bytes_per_s)
        self._stop = stop or threading.Event()
        self._progress = progress
        self._turn = turns.writing(target, self._stop)
        self._there: dict[str, int] = {}
        self._lock = threading.Lock()
        self.done = Progress(0, 0, 0, 0)

    def __enter__(self) -> Writer:
        self._held = self._turn.__enter__()
        try:
            for entry in self._target.entries(OBJECTS):
                self._there[entry.name.rpartition("/")[2]] = entry.size_bytes
        except BaseException:
            self._turn.__exit__(None, None, None)
            raise
        self._threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="backup")
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        # Who is told to stop does not wait for a target that may not answer; nothing names what still comes there.
        self._threads.shutdown(wait=kind is None or issubclass(kind, Exception), cancel_futures=True)
        self._turn.__exit__(None, None, None)

    def write(self, frozen: Frozen) -> Manifest:
        """Write a partition; when this returns it is in the backup.

        Raises:
            TargetError: and whatever reading the partition raises. Stop: it was given up.
        """
        begun_ms = time.time_ns() // 1_000_000
        objects = self._objects(pieces(frozen.pairs))
        manifest = Manifest(
            self._run,
            frozen.partition,
            self._partitions,
            frozen.format,
            frozen.log,
            frozen.retention_ms,
            frozen.next_offset,
            frozen.digest,
            begun_ms,
            frozen.node,
            tuple(objects),
        )
        self._held.check()
        self._target.put(manifest_name(self._run, frozen.partition), encode(manifest))
        self._count(partitions=1)
        return manifest

    def _objects(self, found: Iterable[Piece]) -> list[Stored]:
        objects: list[Stored] = []
        under_way: deque[Future[Stored]] = deque()
        try:
            for piece in found:
                if len(piece.content) > MAX_CONTENT_BYTES:
                    raise TargetError(f"a value of {len(piece.content)} bytes is too large for a backup")
                if self._rate is not None:
                    self._rate.spend(len(piece.content))
                under_way.append(self._threads.submit(self._send, piece))
                if len(under_way) > AT_ONCE:
                    objects.append(under_way.popleft().result())
                # Before the next piece is read: whoever stops may have closed what it is read from.
                if self._stop.is_set():
                    raise Stop
            objects.extend(future.result() for future in under_way)
            # What is small is under way to its last piece before anybody could have asked for an end.
            if self._stop.is_set():
                raise Stop
        finally:
            for future in under_way:
                future.cancel()
        return objects

    def _send(self, piece: Piece) -> Stored:
        size = len(piece.content)
        stored_bytes = self._there.get(piece.name, 0)
        if stored_bytes:
            self._count(read_bytes=size, kept_bytes=size)
            return Stored(piece.name, stored_bytes, size)
        data = pack(piece.content)
        self._target.put(object_name(piece.name), data)
        self._there[piece.name] = len(data)
        self._count(read_bytes=size, sent_bytes=len(data))
        return Stored(piece.name, len(data), size)

    def _count(
        self, *, partitions: int = 0, read_bytes: int = 0, sent_bytes: int = 0, kept_bytes: int = 0
    ) -> None:
        with self._lock:
            done = self.done
            self.done = Progress(
                done.partitions + partitions,
                done.read_bytes + read_bytes,
                done.sent_bytes + sent_bytes,
                done.kept_bytes + kept_bytes,
            )
        self._progress(self.done)
