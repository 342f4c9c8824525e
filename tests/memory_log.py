"""A log in memory: the contract of `common.log.base` without durability, for tests and simulation."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future

from common.errors import LogUnavailable
from common.log.base import MAX_RECORD_BYTES, Append, Bounds, LogRecord


class MemoryLog:
    """Keeps every record in a list per partition; a record is "durable" at once unless the log is held.

    max_queued: appends that may be held at the same time; one more raises LogUnavailable, like a full queue.
    """

    def __init__(self, partitions: int, *, max_queued: int = 1024) -> None:
        self._records: list[list[bytes]] = [[] for _ in range(partitions)]
        self._starts = [0] * partitions
        self._changed = threading.Condition()
        self._held: list[tuple[list[Append], Future[list[int]]]] = []
        self._holding = False
        self._failure: str | None = None
        self._max_queued = max_queued
        self._closed = False

    @property
    def partitions(self) -> int:
        return len(self._records)

    def append(self, records: Sequence[Append]) -> Future[list[int]]:
        for record in records:
            if not 0 <= record.partition < len(self._records):
                raise ValueError(f"partition {record.partition} does not exist; there are {len(self._records)}")
            if len(record.value) > MAX_RECORD_BYTES:
                raise ValueError(f"record of {len(record.value)} bytes; at most {MAX_RECORD_BYTES} are allowed")
        future: Future[list[int]] = Future()
        future.set_running_or_notify_cancel()
        with self._changed:
            if self._closed:
                raise LogUnavailable("the log is closed")
            if len(self._held) >= self._max_queued:
                raise LogUnavailable("the log's queue is full")
            self._held.append((list(records), future))
        if not self._holding:
            self._settle()
        return future

    def hold(self) -> None:
        """Leave appends unacknowledged and invisible until `release` or `fail`."""
        self._holding = True

    def release(self) -> None:
        """Store what is held, in order, and go on as usual."""
        self._holding = False
        self._settle()

    def fail(self, cause: str) -> None:
        """Fail what is held, storing nothing of it, and go on as usual."""
        self._holding = False
        self._failure = cause
        self._settle()
        self._failure = None

    def cut(self, partition: int, start: int) -> None:
        """Forget the records below `start`, as retention does."""
        with self._changed:
            self._starts[partition] = max(self._starts[partition], min(start, len(self._records[partition])))

    def _settle(self) -> None:
        with self._changed:
            held, self._held = self._held, []
            results: list[list[int]] = []
            for records, _ in held:
                offsets: list[int] = []
                for partition, value in records if self._failure is None else ():
                    offsets.append(len(self._records[partition]))
                    self._records[partition].append(bytes(value))
                results.append(offsets)
            self._changed.notify_all()
        for (_, future), offsets in zip(held, results, strict=True):
            if self._failure is None:
                future.set_result(offsets)
            else:
                future.set_exception(LogUnavailable(self._failure))

    def reader(self, positions: Mapping[int, int]) -> MemoryLogReader:
        for partition in positions:
            if not 0 <= partition < len(self._records):
                raise ValueError(f"partition {partition} does not exist; there are {len(self._records)}")
        return MemoryLogReader(self, dict(positions))

    def bounds(self, partition: int) -> Bounds:
        with self._changed:
            if self._closed:
                raise LogUnavailable("the log is closed")
            return Bounds(self._starts[partition], len(self._records[partition]))

    def close(self) -> None:
        self.release()
        with self._changed:
            self._closed = True
            self._changed.notify_all()


class MemoryLogReader:
    """A cursor over a MemoryLog."""

    def __init__(self, log: MemoryLog, positions: dict[int, int]) -> None:
        self._log = log
        self._positions = positions

    def poll(self, timeout_s: float, max_bytes: int = 32 << 20) -> list[LogRecord]:
        log = self._log
        with log._changed:
            log._changed.wait_for(lambda: log._closed or self._behind(), timeout_s)
            if log._closed:
                raise LogUnavailable("the log is closed")
            return self._take(max_bytes)

    def _behind(self) -> bool:
        records = self._log._records
        return any(position < len(records[partition]) for partition, position in self._positions.items())

    def _take(self, max_bytes: int) -> list[LogRecord]:
        out: list[LogRecord] = []
        size = 0
        for partition, position in list(self._positions.items()):
            records = self._log._records[partition]
            at = max(position, self._log._starts[partition])
            while at < len(records) and (not out or size + len(records[at]) <= max_bytes):
                out.append(LogRecord(partition, at, records[at]))
                size += len(records[at])
                at += 1
            self._positions[partition] = at
        return out

    def close(self) -> None:
        self._positions.clear()
