"""The storage node: reads the log, applies it to its views, and keeps these in order.

log ─► apply thread: poll ─► Views.apply ─► checkpoints, flushes
assign() ──► apply thread: partitions opened and dropped
       merge thread: plan (lock) ─► merge ─► commit (lock)
query ─► NodeStore (threads of the caller)
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

from common.errors import LogUnavailable, RetryableError, StartupError
from common.events import EventLog
from common.log.base import Bounds, Log, LogReader
from storage_node.checkpoint import commit_merge
from storage_node.config import NodeConfig
from storage_node.disk import RocksDisk
from storage_node.errors import DiskError, NotHeld, SegmentGone, ViewsDamaged
from storage_node.marks import Mark
from storage_node.merging import merge, merge_attached, plan_merge
from storage_node.purging import purge
from storage_node.store import NodeStore
from storage_node.timings import SECONDS
from storage_node.views import FolderLock, Shard, Views, views_folder

POLL_S = 0.2
POLL_BYTES = 8 << 20
"""A few million samples at most, so that the progress of a long replay is seen."""
GATHER_S = 0.02
"""How long records may gather in the log before they are applied; a read that waits for them cuts that short."""
GATHERED_BYTES = 256 << 10
"""After a poll of that much, the next one follows at once."""
MERGE_PAUSE_S = 1.0
BOUNDS_EVERY_S = 5.0
"""While nothing comes from the log, its bounds are asked for this often."""
REOPEN_AFTER = 5
"""Failed attempts to write after which RocksDB is opened anew, and what it lacks is read from the log."""

_log = EventLog("storage_node")


@dataclass(frozen=True, slots=True)
class PartitionProgress:
    """Where a partition is: offsets of the log's start, of the next record to apply, and of the log's end."""

    partition: int
    start: int
    next_offset: int
    high_watermark: int


@dataclass(frozen=True, slots=True)
class Progress:
    """ready: everything that was in the log at the start is applied, of all that the node was to hold first.

    seconds_left: None while unknown.
    """

    ready: bool
    partitions: list[PartitionProgress]
    samples_per_s: float
    seconds_left: float | None


class StorageNode:
    """One node, which holds partitions of a log. `start` it, read through `store`, `close` it.

    Which ones is said with `start`, and later with `assign`.
    """

    def __init__(self, log: Log, config: NodeConfig, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        self._config = config
        self._clock = clock
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self._views: Views | None = None
        self._disk_error: str | None = None
        self._failure: str | None = None
        self._targets: dict[int, int] = {}
        self._ready_partitions: frozenset[int] = frozenset()
        self._ready = False
        self._shares_log = False
        self._assigned: frozenset[int] | None = None
        self._assigned_changed = threading.Event()
        self._merge_lock = threading.Lock()
        self._bounds_due_s = clock() + BOUNDS_EVERY_S
        self._rate = _Rate()
        self.merges = 0
        self.cut_off_records = 0
        """Records that the log's retention deleted before this node had applied them."""
        self._awaited = threading.Event()
        self.store = NodeStore(lambda: self.views, self._high_watermarks, self._awaited.set)

    @property
    def views(self) -> Views:
        """The open views."""
        assert self._views is not None, "the node has not been started"
        return self._views

    def start(self, partitions: Collection[int] | None = None) -> None:
        """Open the views and begin to apply the log.

        partitions: None to hold all of the log; else to hold what the folder has, and these, until `assign` says
          what to hold.
        Raises:
            StartupError: the folder cannot be used, or its views are ahead of the log.
            LogUnavailable: the log cannot be asked for its bounds.
        """
        self._folder_lock = FolderLock(self._config.data_dir)
        try:
            self._shares_log = partitions is not None
            if partitions is None:
                self._assigned = frozenset(range(self._log.partitions))
            self._views = self._open(partitions)
            self._note_ready(self._views)
        except BaseException:
            self._folder_lock.close()
            raise
        self._threads = [
            threading.Thread(target=self._guarded, args=(run,), name=f"{self._config.name}-{name}", daemon=True)
            for name, run in (("apply", self._apply), ("merge", self._merge))
        ]
        for thread in self._threads:
            thread.start()

    def _open(self, partitions: Collection[int] | None) -> Views:
        config = self._config
        views = Views(views_folder(config.data_dir), self._log.partitions, config, held=partitions)
        try:
            for shard in views.shards.values():
                self._check_bounds(shard, self._log.bounds(shard.state.partition))
        except BaseException:
            views.close()
            raise
        return views

    def _check_bounds(self, shard: Shard, bounds: Bounds) -> None:
        partition, next_offset = shard.state.partition, shard.state.next_offset
        start, high_watermark = bounds
        # A partition is ready when it has all that was in the log when it was opened first.
        self._targets.setdefault(partition, high_watermark)
        if next_offset > high_watermark:
            raise StartupError(
                f"the views are at offset {next_offset} of partition {partition}, but the log ends at "
                f"{high_watermark}; it is another log, or has lost records: check it, then `tabor replay`"
            )
        self._follow_start(shard, start)

    def _follow_start(self, shard: Shard, start: int) -> None:
        """Go past records that the log's retention deleted before they were applied."""
        with shard.lock:
            state = shard.state
            if start <= state.next_offset:
                return
            self.cut_off_records += start - state.next_offset
            _log.warning("log_cut_off", partition=state.partition, next_offset=state.next_offset, start=start)
            state.start_at(start)

    def close(self) -> None:
        """Stop, write everything, and release the folder; an error of the disk is logged. Can be called again."""
        self._stop.set()
        self._awaited.set()
        for thread in self._threads:
            thread.join()
        if self._views is not None:
            try:
                self._views.save(self._clock())
            except (DiskError, ViewsDamaged) as error:
                # Nothing is lost: the next start reads it from the log.
                _log.error("final_checkpoint_failed", reason=str(error))
            self._views.close()
            self._views = None
            self._folder_lock.close()

    # -- state --------------------------------------------------------------------------------------------------

    def healthy(self) -> str | None:
        """Why writes should be refused just now, or None."""
        return self._failure or self._disk_error

    def progress(self) -> Progress:
        """How far the node has come with the partitions that it holds. Raises LogUnavailable."""
        partitions = []
        for partition, next_offset in self.views.positions().items():
            bounds = self._log.bounds(partition)
            partitions.append(PartitionProgress(partition, bounds.start, next_offset, bounds.high_watermark))
        left = sum(max(0, p.high_watermark - p.next_offset) for p in partitions)
        samples_per_s, records_per_s = self._rate.per_second()
        seconds_left = left / records_per_s if records_per_s else (0.0 if not left else None)
        return Progress(self._ready, partitions, samples_per_s, seconds_left)

    def lag_records(self) -> int:
        """Records that the partition which is furthest behind has not applied. Raises LogUnavailable."""
        return max((p.high_watermark - p.next_offset for p in self.progress().partitions), default=0)

    def rocksdb(self) -> dict[str, int]:
        """What the views' RocksDB tells of itself; see `common.rocksdb`."""
        disk = None if self._views is None else self._views.disk
        return disk.properties() if isinstance(disk, RocksDisk) else {}

    def partitions_status(self, digest: bool = False) -> list[dict[str, int | str]]:
        """What `GET /api/v1/status/partitions` shows of each partition. Raises LogUnavailable, DiskError."""
        found = []
        for partition, shard in self.views.shards.items():
            with shard.lock:
                state = shard.state
                next_offset = state.next_offset
                status: dict[str, int | str] = {
                    "partition": partition,
                    "start": 0,
                    "next_offset": next_offset,
                    "high_watermark": 0,
                    "lag": 0,
                    "series": len(state.series),
                    "samples": state.n_samples,
                    "bytes": state.size_bytes,
                }
                if digest:
                    status["digest"] = state.digest()
            bounds = self._log.bounds(partition)
            status["start"], status["high_watermark"] = bounds
            status["lag"] = max(0, bounds.high_watermark - next_offset)
            found.append(status)
        return found

    def _high_watermarks(self) -> dict[int, int]:
        return {partition: self._log.bounds(partition).high_watermark for partition in self.views.shards}

    # -- assignment ---------------------------------------------------------------------------------------------

    def assign(self, partitions: Iterable[int]) -> None:
        """Hold these partitions and no others from now on; the apply thread opens and drops what is needed.

        Reads of a dropped partition fail from then on, and what the folder has of it is deleted.
        """
        wanted = frozenset(partitions)
        if wanted != self._assigned:
            self._assigned = wanted
            self._assigned_changed.set()
            self._awaited.set()

    def is_ready(self) -> bool:
        """As in `Progress`, without asking the log."""
        return self._ready

    def mark(self, partition: int, offset: int, *, wait_s: float = 0.0) -> Mark:
        """The digests of a partition at the mark at an offset of the log.

        Raises:
            NotHeld: the node does not have it. NotCaughtUp: it has not come so far within `wait_s`.
            RetryableError: it came past the mark before it was started, or too many marks ago.
        """
        self.store.wait_applied({partition: offset + 1}, wait_s)
        shard = self.views.shards.get(partition)
        if shard is None:
            raise NotHeld(partition)
        with shard.lock:
            found = shard.state.marks.at(offset)
        if found is None:
            raise RetryableError(f"the mark at offset {offset} of partition {partition} is not remembered")
        return found

    def ready_partitions(self) -> frozenset[int]:
        """Partitions that are held and have all that was in the log when they were opened first."""
        return self._ready_partitions & self.views.shards.keys()

    def _follow_assignment(self) -> bool:
        """Open and drop partitions; False if there was nothing to do. Raises DiskError, LogUnavailable."""
        if not self._assigned_changed.is_set():
            return False
        self._assigned_changed.clear()
        wanted, views = self._assigned, self.views
        if wanted is None or wanted == views.shards.keys():
            return False
        try:
            # Merges look for work in the partitions that they find.
            with self._merge_lock:
                for partition in sorted(views.shards.keys() - wanted):
                    views.drop(partition)
                    self._targets.pop(partition, None)
                    self._ready_partitions -= {partition}
                    _log.info("partition_dropped", partition=partition)
                for partition in sorted(wanted - views.shards.keys()):
                    # Asked first, so that a log that does not answer leaves nothing half-opened.
                    bounds = self._log.bounds(partition)
                    self._check_bounds(views.open(partition), bounds)
                    _log.info("partition_opened", partition=partition, saved_offset=views.saved_offset(partition))
        except BaseException:
            self._assigned_changed.set()
            raise
        finally:
            self.store.notify_applied()
        return True

    # -- threads ------------------------------------------------------------------------------------------------

    def _guarded(self, run: Callable[[], None]) -> None:
        """Run a thread; should it fail in a way that nobody foresaw, say so and refuse writes."""
        try:
            run()
        except ViewsDamaged as error:
            self._failure = str(error)
            _log.error("views_damaged", reason=str(error))
        except Exception as error:
            self._failure = f"the storage node has failed: {error!r}"
            _log.exception("storage_node_failed")

    def _apply(self) -> None:
        reader = self._log.reader(self.views.positions())
        failures = 0
        try:
            while not self._stop.is_set():
                try:
                    if self._follow_assignment():
                        reader.close()
                        reader = self._log.reader(self.views.positions())
                    self._apply_next(reader)
                    failures = 0
                    self._disk_error = None
                except LogUnavailable as error:
                    _log.warning("log_unavailable", reason=str(error))
                    self._stop.wait(self._config.retry_s)
                except DiskError as error:
                    self._disk_error = f"the storage node cannot write: {error}"
                    _log.error("disk_failed", reason=str(error))
                    self._stop.wait(self._config.retry_s)
                    failures += 1
                    if failures % REOPEN_AFTER == 0:
                        self._reopen()
                    # What was polled and not applied comes again.
                    reader.close()
                    reader = self._log.reader(self.views.positions())
        finally:
            reader.close()

    def _apply_next(self, reader: LogReader) -> None:
        views = self.views
        if self._disk_error is not None:
            # Writing is what failed; without it the head would grow beyond its budget.
            try:
                views.save(self._clock())
            except DiskError:
                self._apply_unsaved(reader, views)
                raise
        records = reader.poll(POLL_S, POLL_BYTES)
        now_s = self._clock()
        started_s = time.perf_counter()
        try:
            views.apply(records, now_s)
            if records:
                SECONDS["apply"].observe(time.perf_counter() - started_s)
            if not records and now_s >= self._bounds_due_s:
                # A partition whose records were all deleted has none left that would show it.
                self._bounds_due_s = now_s + BOUNDS_EVERY_S
                for shard in views.shards.values():
                    self._follow_start(shard, self._log.bounds(shard.state.partition).start)
        finally:
            self.store.notify_applied()
        self._note_ready(views)
        self._rate.note(now_s, views)
        views.checkpoint_due(now_s)
        since = views.unflushed_since_s
        if since is not None and now_s - since >= self._config.flush_age_s:
            views.flush()
        if records and sum(len(record.value) for record in records) < GATHERED_BYTES:
            self._awaited.wait(GATHER_S)
        self._awaited.clear()

    def _apply_unsaved(self, reader: LogReader, views: Views) -> None:
        """Let reads see what was acknowledged before writes stopped, as far as twice the heads' budget goes."""
        if sum(shard.state.n_head for shard in views.shards.values()) < 2 * self._config.head_samples:
            try:
                views.apply(reader.poll(0.0), self._clock())
            finally:
                self.store.notify_applied()

    def _note_ready(self, views: Views) -> None:
        if len(self._ready_partitions) < len(views.shards) or not self._ready:
            positions, targets = views.positions(), self._targets
            self._ready_partitions = frozenset(p for p, offset in positions.items() if offset >= targets[p])
            if self._assigned is not None:
                self._ready = self._ready or self._assigned <= self._ready_partitions

    def _reopen(self) -> None:
        """Open RocksDB anew, which clears an error that it does not recover from by itself."""
        with self._merge_lock:
            self.views.close()
            try:
                self._views = self._open(self.views.shards.keys() if self._shares_log else None)
                _log.info("views_reopened")
            except (StartupError, LogUnavailable) as error:
                self._disk_error = str(error)
                _log.error("views_not_reopened", reason=str(error))

    def _merge(self) -> None:
        while not self._stop.wait(MERGE_PAUSE_S):
            try:
                for partition in self.views.shards:
                    while not self._stop.is_set() and self._merge_one(partition):
                        pass
            except DiskError as error:
                _log.error("merge_failed", reason=str(error))
                self._stop.wait(self._config.retry_s)

    def _merge_one(self, partition: int) -> bool:
        """Do one merge of a partition, if one is worth its while."""
        if self._disk_error is not None:
            return False
        with self._merge_lock:
            views = self.views
            shard = views.shards.get(partition)
            if shard is None:
                return False
            started_s = time.perf_counter()
            if purge(shard.state, shard.lock):
                SECONDS["purge"].observe(time.perf_counter() - started_s)
                return True
            with shard.lock:
                plan = plan_merge(shard.state)
            if plan is None:
                return merge_attached(shard.state, shard.lock)
            try:
                batch, merged = merge(plan, views.segments, views.disk)
            except SegmentGone:
                return True
            with shard.lock:
                commit_merge(shard.state, plan.window, plan.old, merged, batch)
            SECONDS["merge"].observe(time.perf_counter() - started_s)
            self.merges += 1
            return True


class _Rate:
    """Samples and records applied per second, over the last few seconds."""

    def __init__(self) -> None:
        self._points: list[tuple[float, int, int]] = []

    def note(self, now_s: float, views: Views) -> None:
        samples = sum(shard.samples for shard in views.shards.values())
        records = sum(shard.records for shard in views.shards.values())
        points = [point for point in self._points if now_s - point[0] < 5.0][-100:]
        self._points = [*points, (now_s, samples, records)]

    def per_second(self) -> tuple[float, float]:
        if len(self._points) < 2:
            return 0.0, 0.0
        (first_s, first_samples, first_records), (last_s, samples, records) = self._points[0], self._points[-1]
        elapsed_s = max(last_s - first_s, 1e-3)
        return max(0, samples - first_samples) / elapsed_s, max(0, records - first_records) / elapsed_s
