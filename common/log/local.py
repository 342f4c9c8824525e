"""LocalLog: the log in a folder of this machine, for one process.

    append ──► bounded queue ──► commit thread: everything waiting becomes one synced write (group commit)
                                    │    ├─► tail in memory: readers that follow closely never touch the disk
                                    │    └─► futures
                                    └─► every few seconds: marks of arrival times, retention

A disk error fails what was under way. Before the next commit the disk is probed and the database reopened: bytes
after a failed write must not be built upon, and RocksDB's recovery decides what of it is stored.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import NamedTuple

from prometheus_client.core import GaugeMetricFamily, Metric

from common.errors import LogUnavailable
from common.events import EventLog
from common.log.base import Append, Bounds, LogRecord
from common.log.checks import check_positions, check_records
from common.log.local_disk import DiskError, LogDisk, Mark
from common.log.metrics import FAILED_APPENDS, SYNC_SECONDS

DEFAULT_QUEUED_BYTES = 64 << 20
DEFAULT_TAIL_BYTES = 16 << 20
MAX_QUEUED_APPENDS = 8192
_COMMIT_BYTES = 8 << 20
_MARK_BYTES = 32 << 20
_MARK_MS = 10 * 60 * 1000
_MARKS_PER_RETENTION = 16
_RETRY_S = 0.5

_log = EventLog("log")


class _Waiting(NamedTuple):
    records: list[Append]
    size_bytes: int
    future: Future[list[int]]


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


class LocalLog:
    """A log in `path`, made if it is missing and `create` is set.

    partitions: fixed when the log is made; None takes those of an existing log, LOCAL_PARTITIONS for a new one.
    retention_ms, retention_bytes: how long after its arrival a record is kept, and how many bytes of records are
      kept in all; None keeps them. Both are enforced in steps of about a sixteenth, oldest first.
    Raises:
        StartupError: the folder is in use, cannot be opened, or has another number of partitions.
    """

    def __init__(
        self,
        path: Path,
        partitions: int | None,
        *,
        create: bool = True,
        retention_ms: int | None = None,
        retention_bytes: int | None = None,
        max_queued_bytes: int = DEFAULT_QUEUED_BYTES,
        tail_bytes: int = DEFAULT_TAIL_BYTES,
        maintenance_interval_s: float = 5.0,
        now_ms: Callable[[], int] = _now_ms,
    ) -> None:
        self._disk = LogDisk(path, partitions, create=create)
        self._retention_ms = retention_ms
        self._retention_bytes = retention_bytes
        self._mark_ms = min(_MARK_MS, (retention_ms or _MARK_MS) // _MARKS_PER_RETENTION + 1)
        self._mark_bytes = min(_MARK_BYTES, (retention_bytes or 1 << 62) // _MARKS_PER_RETENTION + 1)
        self._max_queued_bytes = max_queued_bytes
        self._tail_bytes = tail_bytes
        self._maintenance_interval_s = maintenance_interval_s
        self._now_ms = now_ms

        self._queue: deque[_Waiting] = deque()
        self._queued_bytes = 0  # of appends that are not settled yet, in the queue or being committed
        self._queued_appends = 0
        self._queue_changed = threading.Condition()
        self._closing = False

        # What readers see. Guarded by `_arrived`.
        self._arrived = threading.Condition()
        self._closed = False
        self._starts = list(self._disk.start.offsets)
        self._ends = list(self._disk.next_offsets)
        self._tail: list[dict[int, bytes]] = [{} for _ in self._ends]
        self._tail_order: deque[tuple[int, int, int]] = deque()
        self._tail_size = 0
        # Held while the database is read, and while it is closed or opened.
        self._handle = threading.Lock()

        self._failure: str | None = None
        self._retry_at_s = 0.0
        self._unmarked_since_ms: int | None = None
        if self._disk.total_bytes > self._disk.last_mark.total_bytes:
            self._unmarked_since_ms = now_ms()
        self._committer = threading.Thread(target=self._run, name="tabor-log-commit", daemon=True)
        self._committer.start()

    @property
    def partitions(self) -> int:
        return self._disk.partitions

    def append(self, records: Sequence[Append]) -> Future[list[int]]:
        size = check_records(records, self.partitions)
        future: Future[list[int]] = Future()
        future.set_running_or_notify_cancel()
        with self._queue_changed:
            if self._closing:
                raise LogUnavailable("the log is closed")
            full = self._queued_bytes + size > self._max_queued_bytes and self._queued_appends > 0
            if full or self._queued_appends >= MAX_QUEUED_APPENDS:
                raise LogUnavailable(
                    f"the log's queue is full: {self._queued_appends} appends, {self._queued_bytes} bytes wait"
                )
            self._queue.append(_Waiting(list(records), size, future))
            self._queued_bytes += size
            self._queued_appends += 1
            self._queue_changed.notify()
        return future

    def reader(self, positions: Mapping[int, int]) -> LocalLogReader:
        check_positions(positions, self.partitions)
        return LocalLogReader(self, positions)

    def bounds(self, partition: int) -> Bounds:
        with self._arrived:
            if self._closed:
                raise LogUnavailable("the log is closed")
            return Bounds(self._starts[partition], self._ends[partition])

    def properties(self) -> dict[str, int]:
        """What RocksDB tells of itself; see `common.rocksdb`."""
        with self._handle:
            return self._disk.properties()

    def kept_bytes(self) -> int:
        """Bytes of the records that retention has not removed."""
        return self._disk.total_bytes - self._disk.start.total_bytes

    def failure(self) -> str | None:
        """Why records are not taken just now, or None; goes by itself once the disk takes data again."""
        failure = self._failure
        return None if failure is None else f"the log cannot be written: {failure}"

    def close(self) -> None:
        with self._queue_changed:
            self._closing = True
            self._queue_changed.notify()
        self._committer.join()
        with self._arrived:
            already, self._closed = self._closed, True
            self._arrived.notify_all()
        if not already:
            with self._handle:
                try:
                    self._disk.close()
                except DiskError as error:
                    # What was acknowledged had been synced before; only what closing tidies up is left undone.
                    _log.error("log_close_failed", error=str(error))

    # The commit thread.

    def _run(self) -> None:
        next_maintenance_s = time.monotonic() + self._maintenance_interval_s
        while True:
            group = self._next_group(next_maintenance_s)
            if group is None:
                return
            if group:
                self._commit(group)
            if time.monotonic() >= next_maintenance_s:
                if self._failure is None:
                    self._maintain()
                else:
                    # Those who would write may be waiting for the log to say that it is well again.
                    self._recover()
                next_maintenance_s = time.monotonic() + self._maintenance_interval_s

    def _next_group(self, until_s: float) -> list[_Waiting] | None:
        """What is waiting, up to the size of one commit; empty if nothing came in time, None if the log closes."""
        with self._queue_changed:
            self._queue_changed.wait_for(
                lambda: bool(self._queue) or self._closing, max(0.0, until_s - time.monotonic())
            )
            if not self._queue:
                return None if self._closing else []
            group = [self._queue.popleft()]
            size = group[0].size_bytes
            while self._queue and size + self._queue[0].size_bytes <= _COMMIT_BYTES:
                group.append(self._queue.popleft())
                size += group[-1].size_bytes
            return group

    def _commit(self, group: list[_Waiting]) -> None:
        records: list[LogRecord] = []
        try:
            failure = self._write(group, records)
        except Exception as error:
            # This thread must not end: whoever appends would wait forever.
            failure = self._failure = repr(error)
        with self._queue_changed:
            self._queued_bytes -= sum(waiting.size_bytes for waiting in group)
            self._queued_appends -= len(group)
        at = 0
        for waiting in group:
            if failure is not None:
                FAILED_APPENDS.inc()
                waiting.future.set_exception(LogUnavailable(f"the log cannot be written: {failure}"))
                continue
            end = at + len(waiting.records)
            waiting.future.set_result([record.offset for record in records[at:end]])
            at = end

    def _write(self, group: list[_Waiting], records: list[LogRecord]) -> str | None:
        """Give offsets to the group's records, which go to `records`, and make them durable and visible.

        Returns why that was not possible, else None.
        """
        if self._failure is not None and not self._recover():
            return self._failure
        ends = list(self._disk.next_offsets)
        for waiting in group:
            for partition, value in waiting.records:
                records.append(LogRecord(partition, ends[partition], value))
                ends[partition] += 1
        started = time.perf_counter()
        try:
            self._disk.write(records)
        except DiskError as error:
            self._fail(error)
            return self._failure
        SYNC_SECONDS.observe(time.perf_counter() - started)
        if self._unmarked_since_ms is None:
            self._unmarked_since_ms = self._now_ms()
        self._publish(records, ends)
        self._mark(self._now_ms())
        return None

    def _mark(self, now_ms: int) -> None:
        """Put a mark into the log if enough bytes or time have gone by since the last one."""
        if self._unmarked_since_ms is None:
            return
        unmarked = self._disk.total_bytes - self._disk.last_mark.total_bytes
        if unmarked >= self._mark_bytes or now_ms - self._unmarked_since_ms >= self._mark_ms:
            try:
                self._disk.add_mark(now_ms)
            except DiskError as error:
                self._fail(error)
                return
            self._unmarked_since_ms = None

    def _publish(self, records: list[LogRecord], ends: list[int]) -> None:
        """Let readers see durable records, and keep them in memory as far as there is room."""
        with self._arrived:
            for partition, offset, value in records:
                self._tail[partition][offset] = value
                self._tail_order.append((partition, offset, len(value)))
                self._tail_size += len(value)
            while self._tail_size > self._tail_bytes:
                partition, offset, size = self._tail_order.popleft()
                del self._tail[partition][offset]
                self._tail_size -= size
            self._ends = ends
            self._arrived.notify_all()

    def _fail(self, error: DiskError) -> None:
        self._failure = str(error)
        self._retry_at_s = 0.0
        _log.error("log_write_failed", error=self._failure)

    def _recover(self) -> bool:
        """Try to make the log writable again; say whether it is."""
        if time.monotonic() < self._retry_at_s:
            return False
        try:
            self._disk.probe()
            with self._handle:
                self._disk.reopen()
        except DiskError as error:
            self._failure = str(error)
            self._retry_at_s = time.monotonic() + _RETRY_S
            return False
        after, self._failure = self._failure, None
        # Records of failed appends may be there after all; from here on they are part of the log.
        with self._arrived:
            self._ends = list(self._disk.next_offsets)
            self._arrived.notify_all()
        _log.info("log_write_recovered", after=after)
        return True

    def _maintain(self) -> None:
        now_ms = self._now_ms()
        self._mark(now_ms)
        try:
            self._retain(now_ms)
        except DiskError as error:
            self._fail(error)

    def _retain(self, now_ms: int) -> None:
        chosen: tuple[int, Mark] | None = None
        kept = self._disk.total_bytes - self._disk.start.total_bytes
        for number, mark in self._disk.marks():
            too_old = self._retention_ms is not None and mark.time_ms <= now_ms - self._retention_ms
            too_much = self._retention_bytes is not None and kept > self._retention_bytes
            if not too_old and not too_much:
                break
            chosen = (number, mark)
            kept = self._disk.total_bytes - mark.total_bytes
        if chosen is None:
            return
        number, mark = chosen
        with self._arrived:
            self._starts = list(mark.offsets)
        self._disk.remove_below(number, mark)
        _log.info("log_retention_removed", kept_bytes=kept, up_to_ms=mark.time_ms)


class LocalLogCollector:
    """What a local log tells of itself, for prometheus-client."""

    def __init__(self, log: LocalLog) -> None:
        self._log = log

    def collect(self) -> Iterator[Metric]:
        log = self._log
        for name, text, value in (
            ("kept_bytes", "Bytes of the records that retention has not removed", log.kept_bytes()),
            ("failing", "Whether the log takes no records", int(log.failure() is not None)),
        ):
            yield GaugeMetricFamily(f"tabor_log_{name}", text, value=value)


class LocalLogReader:
    """A cursor over some partitions of a LocalLog."""

    def __init__(self, log: LocalLog, positions: Mapping[int, int]) -> None:
        self._log = log
        self._positions = dict(positions)

    def poll(self, timeout_s: float, max_bytes: int = 32 << 20) -> list[LogRecord]:
        log = self._log
        with log._arrived:
            log._arrived.wait_for(lambda: log._closed or self._is_behind(), timeout_s)
            if log._closed:
                raise LogUnavailable("the log is closed")
            starts, ends = log._starts, log._ends
        out: list[LogRecord] = []
        # A partition that was read goes to the end of the order, so that none starves when `max_bytes` is small.
        for partition, position in list(self._positions.items()):
            left = max_bytes - sum(len(record.value) for record in out)
            if left <= 0 and out:
                break
            position = max(position, starts[partition])
            if position < ends[partition]:
                records = self._read(partition, position, ends[partition], left)
                position = records[-1].offset + 1 if records else position
                out += records
                del self._positions[partition]
            self._positions[partition] = position
        return out

    def _is_behind(self) -> bool:
        ends = self._log._ends
        return any(position < ends[partition] for partition, position in self._positions.items())

    def _read(self, partition: int, position: int, end: int, max_bytes: int) -> list[LogRecord]:
        tail = self._log._tail[partition]
        out: list[LogRecord] = []
        size = 0
        while position < end and (not out or size < max_bytes):
            value = tail.get(position)
            if value is None:
                break
            out.append(LogRecord(partition, position, value))
            size += len(value)
            position += 1
        if out:
            return out
        log = self._log
        with log._handle:
            if log._closed:
                raise LogUnavailable("the log is closed")
            try:
                out = log._disk.read(partition, position, end, max_bytes)
            except DiskError as error:
                raise LogUnavailable(f"the log cannot be read: {error}") from None
        # Retention may have removed them in the meantime; the next poll then goes on at the new start.
        if not out and log._starts[partition] <= position:
            raise LogUnavailable(f"records [{position}, {end}) of partition {partition} are missing on the disk")
        return out

    def close(self) -> None:
        self._positions.clear()
