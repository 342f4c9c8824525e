"""Rows beside the samples of a partition: the bytes of histograms, and exemplars.

    apply ─► head (blocks of rows) ── checkpoint ──► runs of blocks, one run a window ── merge ──► one run

A histogram is a sample whose value bits are its fingerprint; its bytes are here, under its series, time and
fingerprint. A row without such a sample is garbage: a duplicate that lost, or something deleted. Reads look for
the sample of each row, so garbage is never seen.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import xxhash
import zstandard
from numpy.typing import NDArray

from common.attachments import Attachments, Kind
from common.errors import CorruptError
from common.kernels.attached import locate
from common.kernels.jit import for_kernels
from common.store import MAX_TIME_MS, MIN_TIME_MS
from storage_node import keys
from storage_node.disk import Batch, Disk
from storage_node.errors import SegmentGone, ViewsDamaged
from storage_node.windows import Deletion, window_of, window_start

if TYPE_CHECKING:
    from storage_node.deletions import Deletions

BLOCK_BYTES = 64 << 10
"""About how many bytes of rows are in one block, before compression."""
MAX_RUNS = 8
"""Runs of a window from which on they are merged; two, once the window has passed."""
ROW_OVERHEAD_BYTES = 29
_MAX_HEAD_BLOCKS = 32
_COUNT = struct.Struct("<I")
_MAX_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Rows, n of them.

    kinds: uint8 (n,), of `common.attachments.Kind`. snos: uint32 (n,). times: int64 (n,), ms.
    fingerprints: uint64 (n,), xxh3-64 of the bytes. offsets: int64 (n + 1,) into data, uint8.
    """

    kinds: NDArray[np.uint8]
    snos: NDArray[np.uint32]
    times: NDArray[np.int64]
    fingerprints: NDArray[np.uint64]
    offsets: NDArray[np.int64]
    data: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.kinds)

    @property
    def size_bytes(self) -> int:
        return len(self.data) + ROW_OVERHEAD_BYTES * len(self)

    @classmethod
    def of(cls, attached: Attachments, snos: NDArray[np.uint32]) -> Rows:
        """Rows of a record, whose series are known by now."""
        bounds = attached.offsets.tolist()
        data = attached.data.tobytes()
        hashes = [xxhash.xxh3_64_intdigest(data[bounds[i] : bounds[i + 1]]) for i in range(len(attached))]
        fingerprints = np.array(hashes, dtype=np.uint64)
        return cls(attached.kinds, snos, attached.timestamps, fingerprints, attached.offsets, attached.data)

    def _attachments(self) -> Attachments:
        return Attachments(self.kinds, self.snos, self.times, self.offsets, self.data)

    def take(self, places: NDArray[np.int64]) -> Rows:
        taken = self._attachments().take(places)
        return Rows(
            taken.kinds, taken.refs, taken.timestamps, self.fingerprints[places], taken.offsets, taken.data
        )

    @classmethod
    def joined(cls, parts: list[Rows]) -> Rows:
        if len(parts) == 1:
            return parts[0]
        one = Attachments.joined([part._attachments() for part in parts])
        fingerprints = np.concatenate([part.fingerprints for part in parts])
        return cls(one.kinds, one.refs, one.timestamps, fingerprints, one.offsets, one.data)

    def in_order(self) -> Rows:
        """By series and time, each row once."""
        order = np.lexsort((self.fingerprints, self.kinds, self.times, self.snos))
        columns = (self.snos[order], self.times[order], self.kinds[order], self.fingerprints[order])
        new = np.ones(len(order), dtype=np.bool_)
        if len(order):
            new[1:] = np.logical_or.reduce([column[1:] != column[:-1] for column in columns])
        return self.take(order[new])

    def encode(self) -> bytes:
        """A block (`docs/format/rocksdb-keys.md`, 'Attachments')."""
        sizes = np.diff(self.offsets).astype("<u4")
        columns = (
            self.kinds,
            self.snos,
            np.diff(self.times, prepend=np.int64(0)),
            self.fingerprints,
            sizes,
            self.data,
        )
        plain = _COUNT.pack(len(self)) + b"".join(column.tobytes() for column in columns)
        return zstandard.ZstdCompressor(level=1).compress(plain)

    @classmethod
    def decode(cls, block: bytes, partition: int) -> Rows:
        """Raises ViewsDamaged."""
        try:
            plain = zstandard.ZstdDecompressor().decompress(block, max_output_size=_MAX_BLOCK_BYTES)
            n = _COUNT.unpack_from(plain)[0]
            at, columns = _COUNT.size, []
            for dtype in ("u1", "<u4", "<i8", "<u8", "<u4"):
                columns.append(np.frombuffer(plain, dtype=dtype, count=n, offset=at))
                at += n * np.dtype(dtype).itemsize
            kinds, snos, times, fingerprints, sizes = columns
            offsets = np.zeros(n + 1, dtype=np.int64)
            np.cumsum(sizes, out=offsets[1:])
            if at + int(offsets[-1]) != len(plain):
                raise ValueError("lengths do not add up")
        except (zstandard.ZstdError, ValueError, struct.error) as error:
            raise ViewsDamaged(
                f"the views of partition {partition} are damaged (a block of attachments: {error}); stop the node "
                "and run `tabor replay`"
            ) from error
        return cls(
            kinds, snos, np.cumsum(times), fingerprints, offsets, np.frombuffer(plain, dtype="u1", offset=at)
        )


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """A run of blocks of one window, rows in order; written once. Arrays have one element a block."""

    number: int
    first_snos: NDArray[np.uint32]
    last_snos: NDArray[np.uint32]
    min_times: NDArray[np.int64]
    max_times: NDArray[np.int64]

    def encode(self) -> bytes:
        columns = (self.first_snos, self.last_snos, self.min_times, self.max_times)
        return _COUNT.pack(len(self.first_snos)) + b"".join(column.tobytes() for column in columns)

    @classmethod
    def decode(cls, number: int, data: bytes, partition: int) -> Run:
        n = _COUNT.unpack_from(data)[0] if len(data) >= 4 else -1
        if len(data) != 4 + 24 * n:
            raise CorruptError("a directory of attachments has the wrong length", partition=partition)
        columns = [np.frombuffer(data, dtype="<u4", count=n, offset=4 + 4 * n * i) for i in range(2)]
        times = [np.frombuffer(data, dtype="<i8", count=n, offset=4 + 8 * n * (i + 1)) for i in range(2)]
        return cls(number, columns[0], columns[1], times[0], times[1])


@dataclass(frozen=True, slots=True, eq=False)
class RowsPlan:
    """What to read, as of some moment."""

    partition: int
    names: list[bytes]
    deletions: list[tuple[Deletion, ...]]
    """What is deleted in each of the blocks."""
    head: tuple[Rows, ...]
    min_time: int
    max_time: int

    def read(self, disk: Disk, is_wanted: NDArray[np.bool_], kind: Kind | None = None) -> Rows | None:
        """Rows of wanted series (bool, one element a sno) in the range, of one kind or all.

        Raises:
            SegmentGone: a run was merged or expired after the plan was made. ViewsDamaged, DiskError.
        """
        parts = list(self.head)
        blocks = disk.get_many(self.names) if self.names else []
        for block, deletions in zip(blocks, self.deletions, strict=True):
            if block is None:
                raise SegmentGone
            parts.append(without(Rows.decode(block, self.partition), deletions))
        found = []
        for part in parts:
            inside = is_wanted[part.snos] & (part.times >= self.min_time) & (part.times <= self.max_time)
            if kind is not None:
                inside &= part.kinds == kind
            if inside.all():
                found.append(part)
            elif inside.any():
                found.append(part.take(np.flatnonzero(inside)))
        return Rows.joined(found) if found else None


class AttachedRows:
    """The rows of one partition. Whoever shares it between threads guards it, as the partition's state."""

    def __init__(self, partition: int, disk: Disk, deletions: Deletions) -> None:
        self._partition = partition
        self._disk = disk
        self._deletions = deletions
        self._head: list[Rows] = []
        self.head_bytes = 0
        self.runs: dict[int, list[Run]] = {}

    def add(self, rows: Rows, horizon_ms: int) -> None:
        """Keep rows until the next checkpoint; those before the horizon are not wanted."""
        inside = rows.times >= horizon_ms
        if not inside.all():
            rows = rows.take(np.flatnonzero(inside))
        if len(rows):
            self._head.append(rows)
            self.head_bytes += rows.size_bytes

    def drop_before(self, window: int) -> bool:
        """Forget windows below this one; returns whether the checkpoint has to delete some from the disk."""
        dropped = [number for number in self.runs if number < window]
        for number in dropped:
            del self.runs[number]
        if self._head:
            rows = Rows.joined(self._head)
            self._head, self.head_bytes = [], 0
            self.add(rows, window_start(window))
        return bool(dropped)

    def delete(self, snos: NDArray[np.uint32], n_series: int, min_time: int, max_time: int) -> set[int]:
        """Take the rows of some series in the closed range out of the head; returns windows that may have more."""
        if self._head:
            is_kept = np.ones(n_series, dtype=np.bool_)
            is_kept[snos] = False
            rows = Rows.joined(self._head)
            kept = is_kept[rows.snos] | (rows.times < min_time) | (rows.times > max_time)
            self._head, self.head_bytes = [], 0
            self.add(rows.take(np.flatnonzero(kept)), MIN_TIME_MS)
        return {window for window, run, _ in self._blocks(min_time, max_time, snos)}

    def _blocks(self, min_time: int, max_time: int, snos: NDArray[np.uint32]) -> Iterator[tuple[int, Run, int]]:
        """(window, run, block) of the blocks that may have rows of these series in the range."""
        low, high = (int(snos.min()), int(snos.max())) if len(snos) else (0, -1)
        for window in sorted(w for w in self.runs if window_of(min_time) <= w <= window_of(max_time)):
            for run in self.runs[window]:
                wanted = (run.first_snos <= high) & (run.last_snos >= low)
                wanted &= (run.min_times <= max_time) & (run.max_times >= min_time)
                for block in np.flatnonzero(wanted).tolist():
                    yield window, run, block

    def plan(self, min_time: int, max_time: int, snos: NDArray[np.uint32]) -> RowsPlan | None:
        """Plan a read of these series in the closed range, ms; None if there is nothing to read."""
        if not self._head and not self.runs:
            return None
        if len(self._head) > _MAX_HEAD_BLOCKS:
            self._head = [Rows.joined(self._head)]
        names, deletions = [], []
        for window, run, block in self._blocks(min_time, max_time, snos):
            names.append(keys.attached_block(self._partition, window, run.number, block))
            deletions.append(tuple(one for one in self._deletions.of(window) if run.number < one.below))
        if not names and not self._head:
            return None
        return RowsPlan(self._partition, names, deletions, tuple(self._head), min_time, max_time)

    def of_series(self, snos: NDArray[np.uint32], n_series: int) -> Rows | None:
        """All rows of some series."""
        plan = self.plan(MIN_TIME_MS, MAX_TIME_MS, snos)
        is_wanted = np.zeros(n_series, dtype=np.bool_)
        is_wanted[snos] = True
        return None if plan is None else plan.read(self._disk, is_wanted)

    # -- the disk -----------------------------------------------------------------------------------------------

    def seal(self, batch: Batch, number: int) -> dict[int, Run]:
        """Put the head into a batch, as a run of this number for each of its windows."""
        if not self._head:
            return {}
        rows = Rows.joined(self._head).in_order()
        windows = rows.times // (window_start(1) - window_start(0))
        return {
            window: _put_run(batch, self._partition, window, number, rows.take(np.flatnonzero(windows == window)))
            for window in np.unique(windows).tolist()
        }

    def sealed(self, runs: dict[int, Run]) -> None:
        """The batch was written."""
        for window, run in runs.items():
            self.runs.setdefault(window, []).append(run)
        self._head, self.head_bytes = [], 0

    def load(self) -> None:
        """Read back where the runs are. Raises CorruptError, DiskError."""
        for key, value in self._disk.scan(*keys.of_partition(keys.ATTACHED_DIRECTORY, self._partition)):
            window, number = keys.parse_segment(key)
            self.runs.setdefault(window, []).append(Run.decode(number, value, self._partition))

    def plan_merge(self) -> tuple[int, list[Run]] | None:
        """A window, and those of its runs that should become one."""
        newest = max(self.runs, default=0)
        for window, runs in self.runs.items():
            if len(runs) >= (MAX_RUNS if window == newest else 2) and window not in self._deletions:
                return window, list(runs)
        return None

    def merge(
        self, window: int, runs: list[Run], batch: Batch, deletions: tuple[Deletion, ...] = ()
    ) -> Run | None:
        """Put one run for these into a batch, without what is deleted, or nothing if all is; needs no lock.

        Raises SegmentGone, ViewsDamaged, DiskError.
        """
        names = [
            keys.attached_block(self._partition, window, run.number, block)
            for run in runs
            for block in range(len(run.first_snos))
        ]
        parts = []
        for block in self._disk.get_many(names):
            if block is None:
                raise SegmentGone
            parts.append(without(Rows.decode(block, self._partition), deletions))
        rows = Rows.joined(parts).in_order()
        number = max(run.number for run in runs) + 1
        return _put_run(batch, self._partition, window, number, rows) if len(rows) else None

    def commit_merge(self, window: int, old: list[Run], merged: Run | None, batch: Batch) -> None:
        """Replace runs by one with the same rows, unless one of them has gone. Raises DiskError."""
        if self.put_replaced(window, old, batch):
            self._disk.write(batch)
            self.replaced(window, old, merged)

    def put_replaced(self, window: int, old: list[Run], batch: Batch) -> bool:
        """Put into a batch that runs are gone; returns False, and does nothing, if one of them is already."""
        runs = self.runs.get(window, [])
        if not all(run in runs for run in old):
            return False
        for run in old:
            batch.delete(keys.segment(keys.ATTACHED_DIRECTORY, self._partition, window, run.number))
            for block in range(len(run.first_snos)):
                batch.delete(keys.attached_block(self._partition, window, run.number, block))
        return True

    def replaced(self, window: int, old: list[Run], merged: Run | None) -> None:
        """The batch was written."""
        left = [run for run in self.runs.get(window, []) if run not in old]
        if merged is not None:
            left.insert(0, merged)
        if left:
            self.runs[window] = left
        else:
            self.runs.pop(window, None)


def _put_run(batch: Batch, partition: int, window: int, number: int, rows: Rows) -> Run:
    places = list(_blocks(rows))
    for block, part in enumerate(places):
        batch.put(keys.attached_block(partition, window, number, block), rows.take(part).encode())
    run = Run(
        number,
        np.array([rows.snos[part[0]] for part in places], dtype="<u4"),
        np.array([rows.snos[part[-1]] for part in places], dtype="<u4"),
        np.array([rows.times[part].min() for part in places], dtype="<i8"),
        np.array([rows.times[part].max() for part in places], dtype="<i8"),
    )
    batch.put(keys.segment(keys.ATTACHED_DIRECTORY, partition, window, number), run.encode())
    return run


def _blocks(rows: Rows) -> Iterator[NDArray[np.int64]]:
    sizes = np.diff(rows.offsets) + ROW_OVERHEAD_BYTES
    cuts = np.flatnonzero(np.diff(np.cumsum(sizes) // BLOCK_BYTES)) + 1
    yield from np.split(np.arange(len(rows)), cuts)


def without(rows: Rows, deletions: tuple[Deletion, ...]) -> Rows:
    """The rows that are not deleted."""
    for one in deletions:
        inside = (rows.times >= one.min_time) & (rows.times <= one.max_time)
        if inside.any():
            inside &= np.isin(rows.snos, one.snos)
            rows = rows.take(np.flatnonzero(~inside))
    return rows


def positions_of(
    rows: Rows,
    row_of_sno: NDArray[np.int32],
    offsets: NDArray[np.int64],
    timestamps: NDArray[np.int64],
    value_bits: NDArray[np.uint64],
) -> tuple[NDArray[np.int64], Rows]:
    """Places of histograms among samples by row, ascending, and their rows, without those that have no sample."""
    positions = np.empty(len(rows), dtype=np.int64)
    where = row_of_sno[rows.snos].astype(np.int64)
    times, bits = for_kernels(rows.times), for_kernels(rows.fingerprints)
    locate(where, times, bits, offsets, timestamps, value_bits, positions)
    found, places = np.unique(positions, return_index=True)
    first = int(np.searchsorted(found, 0))
    return found[first:], rows.take(places[first:])


def with_series(rows: Rows, snos: NDArray[np.uint32]) -> Rows:
    """The same rows of other series."""
    return replace(rows, snos=snos)
