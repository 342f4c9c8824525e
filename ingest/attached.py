"""What a group commit carries besides float samples: rows of the kinds of `common.attachments`, as records."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import xxhash
from numpy.typing import NDArray

from common.attachments import NO_REF, Attachments, Kind
from common.hashing import partitions_of
from common.kernels.series_table import split_by_partition
from common.labels import METRIC_NAME, canonical_labels
from common.log.base import MAX_RECORD_BYTES
from ingest.series import SeriesTable

PIECE_BYTES = MAX_RECORD_BYTES // 4
"""About how many bytes of rows go into one record, which may have half a record of declarations besides."""
MAX_KNOWN = 100_000
"""Rows of metadata that are remembered as sent."""


class AttachedRows:
    """Rows of one group: those of series, by slot, and those that belong to a partition only."""

    def __init__(self, redeclare_ms: int) -> None:
        self._redeclare_ms = redeclare_ms
        self._known: dict[bytes, int] = {}
        self.now_ms = 0
        """When the group began."""
        self._slots: list[NDArray[np.int32]] = []
        self._rows: list[Attachments] = []
        self._of_partition: list[tuple[int, Kind, bytes]] = []
        self.n_rows = 0

    def add(self, slots: NDArray[np.int32], rows: Attachments) -> None:
        """Add rows of series; their refs are those of the slots, whatever they say."""
        if len(rows):
            self._slots.append(slots)
            self._rows.append(rows)
            self.n_rows += len(rows)

    def add_to_partition(self, partition: int, kind: Kind, data: bytes) -> None:
        """Add a row that belongs to no series."""
        self._of_partition.append((partition, kind, data))
        self.n_rows += 1

    def add_metadata(self, family: str, data: bytes, n_partitions: int) -> None:
        """Add a row of metadata, unless the log is known to have it, and had it a short while ago."""
        known_ms = self._known.get(data)
        if known_ms is None or abs(self.now_ms - known_ms) >= self._redeclare_ms:
            self.add_to_partition(partition_of_family(family, n_partitions), Kind.METADATA, data)

    def metadata(self) -> list[bytes]:
        """The rows of metadata that the group has."""
        return [data for _, kind, data in self._of_partition if kind == Kind.METADATA]

    def acknowledged(self, metadata: list[bytes], created_ms: int) -> None:
        """The log has this metadata."""
        if len(self._known) + len(metadata) > MAX_KNOWN:
            self._known.clear()
        self._known.update((data, created_ms) for data in metadata)

    def forget_metadata(self) -> None:
        """The log's readers may have lost some of what they knew: all of it is sent again."""
        self._known.clear()

    def mark(self) -> tuple[int, int, int]:
        """Where the rows end now, for `cut`."""
        return len(self._rows), len(self._of_partition), self.n_rows

    def cut(self, mark: tuple[int, int, int]) -> None:
        """Forget the rows that were added after the mark."""
        n_blocks, n_of_partition, self.n_rows = mark
        del self._slots[n_blocks:], self._rows[n_blocks:], self._of_partition[n_of_partition:]

    def clear(self) -> None:
        self.cut((0, 0, 0))

    def by_partition(self, table: SeriesTable, now: NDArray[np.int64]) -> _Split:
        """Rows and the series to declare for them, sorted by partition; `now` as in `split_by_partition`."""
        n_partitions = table.n_partitions
        slots = np.concatenate([np.zeros(0, dtype=np.int32), *self._slots])
        n = len(slots)
        refs = np.empty(n, dtype=np.uint32)
        times, order = np.empty(n, dtype=np.int64), np.empty(n, dtype=np.uint64)
        declared = np.empty(n, dtype=np.int32)
        offsets, declared_offsets = (np.empty(n_partitions + 1, dtype=np.int64) for _ in range(2))
        rows = Attachments.joined(self._rows) if n else Attachments.of(())
        n_declared = split_by_partition(
            slots, rows.timestamps, np.arange(n, dtype=np.uint64), table.partitions, table.refs, table.due_ms,
            table.seen, now, refs, times, order, offsets, declared, declared_offsets,
        )  # fmt: skip
        rows = replace(rows.take(order.astype(np.int64)), refs=refs)
        loose: dict[int, list[tuple[Kind, int, int, bytes]]] = {}
        for partition, kind, data in self._of_partition:
            loose.setdefault(partition, []).append((kind, NO_REF, 0, data))
        return _Split(rows, offsets, declared[:n_declared], declared_offsets, loose)


class _Split:
    """Rows by partition, and where the declarations that they need are among `declared`."""

    def __init__(
        self,
        rows: Attachments,
        offsets: NDArray[np.int64],
        declared: NDArray[np.int32],
        declared_offsets: NDArray[np.int64],
        loose: dict[int, list[tuple[Kind, int, int, bytes]]],
    ) -> None:
        self._rows = rows
        self._offsets = offsets
        self._loose = loose
        self.declared = declared
        self.declared_offsets = declared_offsets

    def pieces(self, partition: int) -> list[Attachments]:
        """The rows of a partition, in order, cut so that each piece fits a record."""
        start, end = self._offsets[partition : partition + 2].tolist()
        pieces = _cut(self._rows, np.arange(start, end))
        loose = self._loose.get(partition)
        return pieces if loose is None else pieces + _cut(Attachments.of(loose), np.arange(len(loose)))


def _cut(rows: Attachments, places: NDArray[np.int64]) -> list[Attachments]:
    if not len(places):
        return []
    # A row is at most 64 KiB, so that one which crosses the line still fits.
    sizes = np.diff(rows.offsets)[places] + 17
    numbers = np.cumsum(sizes) // PIECE_BYTES
    cuts = np.flatnonzero(np.diff(numbers)) + 1
    return [rows.take(part) for part in np.split(places, cuts)]


def partition_of_family(family: str, n_partitions: int) -> int:
    """Where the metadata of a metric family lie."""
    identity = xxhash.xxh3_128_digest(canonical_labels({METRIC_NAME: family}))
    ids = np.frombuffer(bytearray(identity), dtype=np.uint8).reshape(1, 16)
    return int(partitions_of(ids, n_partitions)[0])
