"""The views of a node: a folder with one RocksDB and the state machines of all partitions over it."""

from __future__ import annotations

import fcntl
import json
import shutil
import threading
from collections.abc import Callable, Collection, Iterable, Sequence
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple

from common.errors import CorruptError, StartupError
from common.events import EventLog
from common.labels import StringPool
from common.log.base import LogRecord
from common.record import DecodedRecords, decode_records
from common.version import VERSION, check_format
from storage_node import keys
from storage_node.checkpoint import checkpoint, load
from storage_node.config import NodeConfig
from storage_node.disk import Batch, Disk, RocksDisk, end_of
from storage_node.errors import DiskError, ViewsDamaged
from storage_node.partition import PartitionState
from storage_node.segments import Segments
from storage_node.timings import SECONDS

FORMAT_VERSION = 1

_log = EventLog("storage_node")


class Shard:
    """A partition's state with the lock that guards it, and when its head was last empty."""

    __slots__ = ("changed_at_s", "lock", "records", "samples", "state")

    def __init__(self, state: PartitionState) -> None:
        self.state = state
        self.lock = threading.Lock()
        self.changed_at_s: float | None = None
        self.records = 0
        self.samples = 0

    def apply(self, record: LogRecord) -> None:
        """Apply a record; one that cannot be read is quarantined: counted, logged, passed over."""
        self.apply_decoded([record], next(decode_records([record.value])), 0)

    def apply_decoded(self, records: Sequence[LogRecord], decoded: DecodedRecords, first: int) -> None:
        """Apply records, which are those of `decoded` from position `first` on."""
        last = first + len(records)
        with self.lock:
            at = first
            while at < last:
                end = self._run_end(decoded, at, last)
                self._apply_run(records[at - first : end - first], decoded, at)
                at = end

    def _run_end(self, decoded: DecodedRecords, first: int, last: int) -> int:
        """Where records from `first` on can no longer be applied as if they were one."""
        if first in decoded.faults or first in decoded.attached or first in decoded.marks:
            return first + 1
        producer_id = decoded.producer_ids[first]
        until_ms = self.state.calm_until_ms(decoded.created_ms[first])
        end = first + 1
        while (
            end < last
            and end not in decoded.faults
            and end not in decoded.attached
            and not decoded.n_declared[end]
            and end not in decoded.marks
            and decoded.producer_ids[end] == producer_id
            and decoded.created_ms[end] <= until_ms
        ):
            end += 1
        return end

    def _apply_run(self, records: Sequence[LogRecord], decoded: DecodedRecords, first: int) -> None:
        offset, n = records[-1].offset, len(records)
        reason = decoded.faults.get(first)
        if reason is None:
            batch = decoded.batch(first, first + n)
            try:
                self.state.apply(offset, batch)
            except CorruptError as error:
                reason = str(error)
            else:
                self.samples += len(batch.refs)
                self.records += n
                return
        if n > 1:
            # One of them is at fault, and the others have to be applied.
            for i, record in enumerate(records):
                self._apply_run([record], decoded, first + i)
            return
        self.state.skip(offset)
        self.records += 1
        _log.error("record_quarantined", partition=self.state.partition, offset=offset, reason=reason)


class Views:
    """The partitions that a node holds, open.

    n_partitions: of the log. held: partitions to open besides those that the folder has; None: all of the log.
    shards: by partition, ascending; changed by replacing it, so that whoever has it may walk through it.
    Raises:
        StartupError: the folder is in use, or belongs to another log, format or number of partitions.
    """

    def __init__(
        self,
        folder: Path,
        n_partitions: int,
        config: NodeConfig,
        *,
        held: Collection[int] | None = None,
        disk: Disk | None = None,
        on_loaded: Callable[[int], None] = lambda partition: None,
    ) -> None:
        self.config = config
        self.pool = StringPool()
        self.disk: Disk = RocksDisk(folder) if disk is None else disk
        try:
            self._check_meta(folder, n_partitions, shared=held is not None)
            self.segments = Segments(self.disk)
            self.shards: dict[int, Shard] = {}
            for partition in sorted(
                {*stored_partitions(self.disk), *(range(n_partitions) if held is None else held)}
            ):
                self.shards[partition] = self._load(partition)
                on_loaded(partition)
        except (CorruptError, DiskError, ViewsDamaged) as error:
            self.disk.close()
            message = f"the views in {folder} cannot be read ({error}); rebuild them with `tabor replay`"
            raise StartupError(message) from error
        except BaseException:
            self.disk.close()
            raise
        self.durable_offsets = self.saved_offsets()
        self.unflushed_since_s: float | None = None

    def _load(self, partition: int) -> Shard:
        state = PartitionState(
            partition, self.pool, self.disk, self.segments, retention_ms=self.config.retention_ms
        )
        load(state)
        return Shard(state)

    def open(self, partition: int) -> Shard:
        """Hold one more partition, from what the folder has of it, else from the start of the log.

        Raises:
            CorruptError, DiskError, ViewsDamaged: it cannot be read.
        """
        assert partition not in self.shards
        if self.disk.get(keys.partition_meta(partition)) is None:
            # Something may be left of a copy that was not finished.
            self._wipe(partition)
        shard = self._load(partition)
        self.shards = dict(sorted({**self.shards, partition: shard}.items()))
        return shard

    def drop(self, partition: int) -> None:
        """Hold a partition no more, and delete what the folder has of it; reads under way fail.

        Raises DiskError.
        """
        shard = self.shards[partition]
        with shard.lock:
            self.shards = {p: one for p, one in self.shards.items() if p != partition}
            self._wipe(partition)
        self.segments.forget(partition)
        self.durable_offsets.pop(partition, None)

    def _wipe(self, partition: int) -> None:
        batch = Batch()
        for first, end in keys.ranges_of_partition(partition):
            batch.delete_range(first, end)
        self.disk.write(batch)
        self.disk.flush()

    def _check_meta(self, folder: Path, n_partitions: int, *, shared: bool) -> None:
        stored = self.disk.get(keys.NODE_META)
        wanted = {
            "format": FORMAT_VERSION,
            "tabor": VERSION,
            "partitions": n_partitions,
            "log": self.config.log_identity,
            "retention_ms": self.config.retention_ms,
            # Whether the log's partitions are shared among nodes, so that those that are not here are elsewhere.
            "shared": shared,
        }
        found = wanted if stored is None else json.loads(stored)
        remedy = "run that version, or rebuild the views from the log with `tabor replay`"
        check_format(f"the views in {folder} have", found, FORMAT_VERSION, remedy)
        for what in ("partitions", "log"):
            if found.get(what) != wanted[what] and not (what == "log" and "" in (wanted[what], found.get(what))):
                raise StartupError(
                    f"the views in {folder} are of {what} {found.get(what)!r}, not {wanted[what]!r}; "
                    "choose another --data-dir, or rebuild them with `tabor replay`"
                )
        if stored is None or any(found.get(what) != wanted[what] for what in ("retention_ms", "shared", "tabor")):
            batch = Batch()
            batch.put(keys.NODE_META, json.dumps(wanted).encode())
            self.disk.write(batch)
            self.disk.flush()

    def positions(self) -> dict[int, int]:
        """Next offset of each partition."""
        return {partition: shard.state.next_offset for partition, shard in self.shards.items()}

    def saved_offsets(self) -> dict[int, int]:
        """Next offset of each partition as of its last checkpoint."""
        return {partition: self.saved_offset(partition) for partition in self.shards}

    def saved_offset(self, partition: int) -> int:
        return self.shards[partition].state.saved_offset

    def apply(self, records: Iterable[LogRecord], now_s: float) -> None:
        """Apply records as they come from the log. Raises DiskError; the same records may then come again."""
        shards = self.shards
        fresh = [record for record in records if record.offset >= shards[record.partition].state.next_offset]
        first = 0
        for decoded in decode_records([record.value for record in fresh]):
            done = 0
            for partition, group in groupby(fresh[first : first + len(decoded)], itemgetter(0)):
                ours = list(group)
                shard = shards[partition]
                shard.apply_decoded(ours, decoded, done)
                done += len(ours)
                if shard.changed_at_s is None:
                    shard.changed_at_s = now_s
            first += len(decoded)

    def checkpoint_due(self, now_s: float) -> None:
        """Write the largest heads until all fit their budget, and those that are too old. Raises DiskError."""
        config = self.config
        total = sum(shard.state.n_head for shard in self.shards.values())
        while total > config.head_samples:
            largest = max(self.shards.values(), key=lambda shard: shard.state.n_head)
            total -= largest.state.n_head
            self.checkpoint(largest, now_s)
        for shard in self.shards.values():
            is_old = shard.changed_at_s is not None and now_s - shard.changed_at_s >= config.checkpoint_age_s
            if is_old or shard.state.is_urgent:
                self.checkpoint(shard, now_s)

    def checkpoint(self, shard: Shard, now_s: float) -> None:
        """Write what a partition has not yet written. Raises DiskError."""
        with shard.lock:
            dropped = shard.state.dropped_before
            forgot = shard.state.index.is_rewritten
            if shard.state.next_offset > shard.state.saved_offset:
                with SECONDS["checkpoint"].time():
                    checkpoint(shard.state)
        shard.changed_at_s = None
        if self.unflushed_since_s is None:
            self.unflushed_since_s = now_s
        if dropped is not None:
            first, _ = keys.of_partition(keys.SEGMENT_BLOCK, shard.state.partition)
            self.disk.reclaim(first, keys.window(keys.SEGMENT_BLOCK, shard.state.partition, dropped))
        if forgot:
            for kind in (keys.INDEX, keys.METADATA):
                self.disk.reclaim(*keys.of_partition(kind, shard.state.partition))

    def flush(self) -> None:
        """Make all that was written durable. Raises DiskError."""
        offsets = self.saved_offsets()
        self.unflushed_since_s = None
        with SECONDS["flush"].time():
            self.disk.flush()
        self.durable_offsets = offsets

    def save(self, now_s: float) -> None:
        """Checkpoint everything and make it durable. Raises DiskError."""
        for shard in self.shards.values():
            self.checkpoint(shard, now_s)
        self.flush()

    def close(self) -> None:
        """Release the folder; what was not saved is read from the log again."""
        self.disk.close()


class FolderLock:
    """Keeps other processes from the views of a data folder, until it is closed or the process ends.

    Raises:
        StartupError: another process has the lock, or the folder cannot be written.
    """

    def __init__(self, data_dir: Path) -> None:
        try:
            data_dir.mkdir(parents=True, exist_ok=True)
            self._file = (data_dir / "views.lock").open("a")
        except OSError as error:
            raise StartupError(f"the data folder {data_dir} cannot be written: {error.strerror}") from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._file.close()
            raise StartupError(
                f"the data folder {data_dir} is in use by another process; stop it, or choose another --data-dir"
            ) from error

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> FolderLock:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def views_folder(data_dir: Path) -> Path:
    """Where the views of a data folder are; finishes or undoes an exchange that `replay` was killed in."""
    folder, ready, old, rebuild = (
        data_dir / name for name in ("views", "views.ready", "views.old", "views.rebuild")
    )
    if ready.exists():
        exchange(data_dir)
    for leftover in (old, rebuild):
        if leftover.exists():
            shutil.rmtree(leftover)
    return folder


class Kept(NamedTuple):
    """How the views in a folder were last opened.

    retention_ms: None if there is none. partitions: those of a node that shares the log with others; None: all.
    """

    retention_ms: int | None = None
    partitions: list[int] | None = None


def kept(folder: Path) -> Kept:
    """How the views in a folder were last opened; if there are none that can be read, as if all were kept."""
    if not folder.exists():
        return Kept()
    try:
        disk = RocksDisk(folder)
    except (DiskError, StartupError):
        return Kept()
    try:
        meta = json.loads(disk.get(keys.NODE_META) or b"{}")
        return Kept(meta.get("retention_ms"), stored_partitions(disk) if meta.get("shared") else None)
    finally:
        disk.close()


def stored_partitions(disk: Disk) -> list[int]:
    """Partitions of which there is a checkpoint, ascending."""
    found = disk.scan(keys.PARTITION_META, end_of(keys.PARTITION_META))
    return [keys.parse_partition_meta(key) for key, _ in found]


def exchange(data_dir: Path) -> None:
    """Put finished views, in `views.ready`, in place of the old ones. Can be killed at any step and done again."""
    folder, ready, old = (data_dir / name for name in ("views", "views.ready", "views.old"))
    if folder.exists():
        if old.exists():
            shutil.rmtree(old)
        folder.rename(old)
    ready.rename(folder)
    if old.exists():
        shutil.rmtree(old)
