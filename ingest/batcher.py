"""Samples of many requests to records: the core of ingest. No clock, thread or I/O in it."""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from common.attachments import Attachments
from common.kernels.series_table import split_by_partition
from common.log.base import MAX_RECORD_BYTES, Append
from common.record import RecordBatch, encode_records, max_encoded_bytes
from ingest.attached import AttachedRows
from ingest.series import NEVER_MS, SeriesTable

_FIRST_ROOM = 1 << 16
_KEPT_ROOM = 1 << 21
"""Columns that one huge request has made larger than this are given back after its group."""

_MAX_SAMPLES_PER_RECORD = (
    bisect_right(range(MAX_RECORD_BYTES), MAX_RECORD_BYTES, key=lambda n: max_encoded_bytes(n, 0, 0)) - 1
)

_MARK_EVERY_MS = 60_000
"""How exactly it is known when a series was last seen, and how often a full table is looked through."""


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """Samples of some requests on their way to the log.

    records: what to append, in order. table: whose slots and refs they speak of.
    declared: int32, slots that these records declare. created_ms: the clock when they were made.
    metadata: rows of metadata that they have.
    """

    records: list[Append]
    table: SeriesTable
    declared: NDArray[np.int32]
    created_ms: int
    n_samples: int
    metadata: list[bytes]


class Batcher:
    """Collects samples and makes records of them; knows which series are declared in the log.

    Used by one thread. Writers put samples at the end of the columns and move `n_samples`:

      slots: int32 (room,), of `table`. timestamps: int64 (room,), Unix ms.
      values: uint64 (room,), bits of float64.

    Other rows they put into `attached`.

    idle_ms: series without samples for that long are not active: they are forgotten when the table is full, and
      looked for when a tenant has as many as it may; None if all are.
    """

    def __init__(self, n_partitions: int, max_series: int, redeclare_ms: int, idle_ms: int | None) -> None:
        self.table = SeriesTable(n_partitions, max_series)
        self.n_samples = 0
        self.attached = AttachedRows(redeclare_ms)
        self._redeclare_ms = redeclare_ms
        self._idle_ms = idle_ms
        self._group_number = 0
        self._looked_ms = 0
        self._counted_ms = 0
        self._tenant_is_full = False
        # (ms, group): from this time on, groups had larger numbers.
        self._marks: deque[tuple[int, int]] = deque()
        self._offsets = np.empty(n_partitions + 1, dtype=np.int64)
        self._declared_offsets = np.empty(n_partitions + 1, dtype=np.int64)
        self._set_room(_FIRST_ROOM)

    def room_of(self, tenant: int, max_active: int | None) -> int | None:
        """How many series a tenant may have besides those it has; None if as many as there is room for."""
        if max_active is None:
            return None
        return max(0, max_active - self.table.active.get(tenant, 0))

    def note_full(self) -> None:
        """A tenant had no room: those of its series that have become idle are to be found before long."""
        self._tenant_is_full = True

    def mark(self) -> tuple[int, tuple[int, int, int]]:
        """How much has been collected, for `cut`; changes with everything that a writer puts in."""
        return self.n_samples, self.attached.mark()

    def cut(self, mark: tuple[int, tuple[int, int, int]]) -> None:
        """Forget what was put in after the mark."""
        self.n_samples, attached = mark
        self.attached.cut(attached)

    def reserve(self, n_more: int) -> None:
        """See to it that `n_more` samples have room behind `n_samples`."""
        if self.n_samples + n_more > len(self.slots):
            old = self.slots, self.timestamps, self.values
            self._set_room(max(2 * len(self.slots), self.n_samples + n_more))
            n = self.n_samples
            self.slots[:n], self.timestamps[:n], self.values[:n] = (column[:n] for column in old)

    def _set_room(self, room: int) -> None:
        self.slots = np.empty(room, dtype=np.int32)
        self.timestamps = np.empty(room, dtype=np.int64)
        self.values = np.empty(room, dtype=np.uint64)
        self._refs = np.empty(room, dtype=np.uint32)
        self._timestamps = np.empty(room, dtype=np.int64)
        self._values = np.empty(room, dtype=np.uint64)
        self._declared = np.empty(room, dtype=np.int32)

    def seal(self, now_ms: int) -> Group:
        """Make records of the samples collected, and begin anew.

        Series that are not known to be declared in the log, or are due to be again, are declared in them.
        """
        table = self.table
        n = self.n_samples
        self._group_number += 1
        now = np.array([self._group_number, now_ms, now_ms + self._redeclare_ms], dtype=np.int64)
        n_declared = split_by_partition(
            self.slots[:n],
            self.timestamps[:n],
            self.values[:n],
            table.partitions,
            table.refs,
            table.due_ms,
            table.seen,
            now,
            self._refs,
            self._timestamps,
            self._values,
            self._offsets,
            self._declared,
            self._declared_offsets,
        )
        declared = self._declared[:n_declared].copy()
        records = self._records(declared, now_ms) if n else []
        metadata: list[bytes] = []
        if self.attached.n_rows:
            metadata = self.attached.metadata()
            more, also_declared = self._attached_records(now)
            records += more
            declared = np.concatenate((declared, also_declared))
            self.attached.clear()
        self._mark(now_ms)
        self.n_samples = 0
        if len(self.slots) > _KEPT_ROOM:
            self._set_room(_FIRST_ROOM)
        return Group(records, table, declared, now_ms, n, metadata)

    def _records(self, declared: NDArray[np.int32], now_ms: int) -> list[Append]:
        """The columns, sorted by partition, as records; as a rule one for each partition."""
        sizes = self.table.label_sizes(declared)
        label_offsets = np.zeros(len(declared) + 1, dtype=np.int64)
        np.cumsum(sizes, out=label_offsets[1:])
        cuts = np.column_stack(
            (self._declared_offsets[:-1], self._declared_offsets[1:], self._offsets[:-1], self._offsets[1:])
        )
        partitions = np.flatnonzero(cuts[:, 3] > cuts[:, 2])
        cuts = cuts[partitions]
        # Small groups fit in one record altogether, which is quicker to see.
        if max_encoded_bytes(self.n_samples, len(declared), int(label_offsets[-1])) > MAX_RECORD_BYTES:
            n_label_bytes = label_offsets[cuts[:, 1]] - label_offsets[cuts[:, 0]]
            counts = cuts[:, 3] - cuts[:, 2], cuts[:, 1] - cuts[:, 0], n_label_bytes
            too_large = max_encoded_bytes(*counts) > MAX_RECORD_BYTES
            pieces = [
                _pieces(cut, sizes) if large else [cut]
                for cut, large in zip(cuts.tolist(), too_large, strict=True)
            ]
            partitions = np.repeat(partitions, [len(parts) for parts in pieces])
            cuts = np.array([cut for parts in pieces for cut in parts], dtype=np.int64)
        columns = self._columns(declared, label_offsets, now_ms, self.n_samples)
        return list(map(Append, partitions.tolist(), encode_records(columns, cuts)))

    def _attached_records(self, now: NDArray[np.int64]) -> tuple[list[Append], NDArray[np.int32]]:
        """Records of the rows besides samples, and the slots that they declare."""
        split = self.attached.by_partition(self.table, now)
        sizes = self.table.label_sizes(split.declared)
        cuts: list[tuple[int, int, int, int]] = []
        partitions: list[int] = []
        attached: dict[int, Attachments] = {}
        for partition, (first, last) in enumerate(pairwise(split.declared_offsets.tolist())):
            cuts += _pieces((first, last, 0, 0), sizes)
            for i, piece in enumerate(split.pieces(partition)):
                if i or last == first:
                    cuts.append((last, last, 0, 0))
                attached[len(cuts) - 1] = piece
            partitions += [partition] * (len(cuts) - len(partitions))
        label_offsets = np.zeros(len(sizes) + 1, dtype=np.int64)
        np.cumsum(sizes, out=label_offsets[1:])
        columns = self._columns(split.declared, label_offsets, int(now[1]), 0)
        records = encode_records(columns, np.array(cuts, dtype=np.int64), attached)
        return list(map(Append, partitions, records)), split.declared

    def _columns(
        self, declared: NDArray[np.int32], label_offsets: NDArray[np.int64], now_ms: int, n_samples: int
    ) -> RecordBatch:
        """These declarations and the first samples of the sorted columns."""
        labels = bytearray().join(self.table.label_sets(declared)) if len(declared) else bytearray()
        return RecordBatch(
            producer_id=self.table.producer_id,
            created_ms=now_ms,
            declared_refs=self.table.refs[declared],
            declared_ids=self.table.ids[declared],
            label_offsets=label_offsets,
            label_bytes=np.frombuffer(labels, dtype=np.uint8),
            refs=self._refs[:n_samples],
            timestamps=self._timestamps[:n_samples],
            values=self._values[:n_samples].view(np.float64),
        )

    def acknowledged(self, group: Group) -> None:
        """The records of a group are in the log: what they declare is declared."""
        group.table.declared(group.declared, group.created_ms, self._redeclare_ms)
        self.attached.acknowledged(group.metadata, group.created_ms)

    def forget_declared(self, tenant: int) -> None:
        """The log's readers know nothing of a tenant any more: what comes of it is declared again."""
        slots = np.flatnonzero(self.table.tenants[: self.table.n_slots] == tenant)
        self.table.due_ms[slots] = NEVER_MS
        self.attached.forget_metadata()

    @property
    def n_rows(self) -> int:
        """Samples and other rows that have been collected."""
        return self.n_samples + self.attached.n_rows

    def begin(self, now_ms: int) -> None:
        """Begin a group; forgets idle series if the table is full.

        What remains has a new producer_id and new refs, and is declared again as its samples come. A tenth of the
        table must be idle, so that a table full of live series is not copied over and over.
        """
        assert self.n_rows == 0
        self.attached.now_ms = now_ms
        if self._tenant_is_full and abs(now_ms - self._counted_ms) >= _MARK_EVERY_MS:
            self._tenant_is_full, self._counted_ms = False, now_ms
            self.table.count_active(self._live(now_ms))
        full = self.table.n_slots >= self.table.max_series
        if self._idle_ms is None or not full or abs(now_ms - self._looked_ms) < _MARK_EVERY_MS:
            return
        self._looked_ms = now_ms
        live = self._live(now_ms)
        if 10 * len(live) < 9 * self.table.n_slots:
            self.table = self.table.keep(live)

    def _live(self, now_ms: int) -> NDArray[np.int32]:
        """Slots of the series that are not idle."""
        horizon = 0
        for ms, group in self._marks:
            if self._idle_ms is None or ms > now_ms - self._idle_ms:
                break
            horizon = group
        return np.flatnonzero(self.table.seen[: self.table.n_slots] > horizon).astype(np.int32)

    def _mark(self, now_ms: int) -> None:
        if self._idle_ms is None:
            return
        if not self._marks or now_ms - self._marks[-1][0] >= _MARK_EVERY_MS:
            self._marks.append((now_ms, self._group_number))
            while len(self._marks) > 1 and self._marks[1][0] <= now_ms - self._idle_ms:
                self._marks.popleft()


def _pieces(cut: tuple[int, int, int, int], label_sizes: NDArray[np.int32]) -> list[tuple[int, int, int, int]]:
    """One partition's cut in as many as it takes: declarations first, then samples."""
    first, last, start, end = cut
    each = label_sizes[first:last] + (max_encoded_bytes(0, 1, 0) - max_encoded_bytes(0, 0, 0))
    # Half a record a piece: a label set that crosses the line still fits.
    halves = np.cumsum(each, dtype=np.int64) // (MAX_RECORD_BYTES // 2)
    bounds = [first, *(first + 1 + np.flatnonzero(np.diff(halves))).tolist(), last]
    pieces = [(low, high, start, start) for low, high in pairwise(bounds) if high > low]
    return pieces + [
        (last, last, at, min(at + _MAX_SAMPLES_PER_RECORD, end))
        for at in range(start, end, _MAX_SAMPLES_PER_RECORD)
    ]
