"""What a partition's state machine keeps for each series besides its labels: columns, one row a sno."""

from __future__ import annotations

import numpy as np
import xxhash
import zstandard
from numpy.typing import NDArray

from common.errors import CorruptError
from storage_node import keys
from storage_node.columns import Column
from storage_node.disk import Batch, Disk

NONE = 0xFFFFFFFF
BLOCK_SERIES = 4096
_MIN = np.iinfo(np.int64).min
_MAX = np.iinfo(np.int64).max
_ORPHAN = np.dtype([("producer_id", "<u8"), ("ref", "<u4"), ("sno", "<u4"), ("adopted", "<u4")])


class SeriesState:
    """Times, identity and order of each series.

    min_times, max_times: int64, ms; max < min while a series has never had a sample. After retention min_times may
    be too low, never too high. is_orphan: bool. tails: uint32, position of the last sample in the head, or NONE.
    ids: uint64 (n, 2), the series id's halves, little-endian; of an orphan a pseudo id.
    order_keys: uint64, hash of the metric above the sno: the order of rows in segments. It never changes, hence an
    orphan keeps its own (no metric) when it is adopted.
    """

    def __init__(self, partition: int) -> None:
        self._partition = partition
        self.min_times = Column(np.int64)
        self.max_times = Column(np.int64)
        self.tails = Column(np.uint32)
        self.ids = Column(np.uint64, 2)
        self.order_keys = Column(np.uint64)
        self.is_orphan = Column(np.bool_)
        self.orphans: dict[tuple[int, int], int] = {}
        """(producer_id, ref) → sno of the orphans that nobody has adopted."""
        self._adopted: list[tuple[int, int, int]] = []
        self._orphans_changed = False
        self._cut: list[NDArray[np.uint32]] = []

    def __len__(self) -> int:
        return self.ids.size

    def add(self, ids: NDArray[np.uint8]) -> None:
        """Append series with these ids, uint8 (n, 16)."""
        first = len(self)
        last = first + len(ids)
        for column in (self.min_times, self.max_times, self.tails, self.ids, self.is_orphan):
            column.resize(last)
        self.min_times.data[first:last] = _MAX
        self.max_times.data[first:last] = _MIN
        self.tails.data[first:last] = NONE
        self.is_orphan.data[first:last] = False
        self.ids.data[first:last] = np.ascontiguousarray(ids).view("<u8")

    def add_order_keys(self, metric_hashes: NDArray[np.uint32]) -> None:
        """Set the order keys of the series that have none yet, the last ones, from the hashes of their metrics."""
        first = self.order_keys.size
        last = first + len(metric_hashes)
        snos = np.arange(first, last, dtype=np.uint64)
        self.order_keys.extend(metric_hashes.astype(np.uint64) << np.uint64(32) | snos)
        for sno in [*self.orphans.values(), *(sno for _, _, sno in self._adopted)]:
            if sno >= first:
                self.order_keys.data[sno] = sno

    def add_orphan(self, producer_id: int, ref: int) -> int:
        """Append a series of which only (producer_id, ref) is known."""
        sno = len(self)
        self.add(orphan_id(producer_id, ref))
        self.orphans[producer_id, ref] = sno
        self.is_orphan.data[sno] = True
        self._orphans_changed = True
        return sno

    def forget_orphan(self, producer_id: int, ref: int, adopted_id: NDArray[np.uint8] | None) -> None:
        """An orphan has become the series `adopted_id` (uint8 (16,)), or, if None, has given up its samples."""
        sno = self.orphans.pop((producer_id, ref))
        if adopted_id is not None:
            self.ids.data[sno] = np.ascontiguousarray(adopted_id).view("<u8")
        self.is_orphan.data[sno] = False
        self._adopted.append((producer_id, ref, sno))
        self._orphans_changed = True

    def cut(self, snos: NDArray[np.uint32], min_times: NDArray[np.int64], max_times: NDArray[np.int64]) -> None:
        """Samples of these series were deleted: set their first and last times."""
        self.min_times.data[snos], self.max_times.data[snos] = min_times, max_times
        self._cut.append(snos)

    def write_changes(self, batch: Batch, changed_snos: NDArray[np.uint32]) -> None:
        """Put the times of these series and of those cut, and the orphans if they have changed, into a batch."""
        for block in np.unique(np.concatenate([changed_snos, *self._cut]) // BLOCK_SERIES).tolist():
            part = slice(block * BLOCK_SERIES, min((block + 1) * BLOCK_SERIES, len(self)))
            data = self.min_times.data[part].tobytes() + self.max_times.data[part].tobytes()
            key = keys.numbered(keys.SERIES_TIMES, self._partition, block)
            batch.put(key, zstandard.ZstdCompressor(level=1).compress(data))
        if self._orphans_changed:
            rows = [(*key, sno, 0) for key, sno in sorted(self.orphans.items())]
            rows += [(*key_sno, 1) for key_sno in sorted(self._adopted)]
            key = keys.numbered(keys.ORPHANS, self._partition, 0)
            batch.put(key, np.array(rows, dtype=_ORPHAN).tobytes())

    def changes_written(self) -> None:
        self._orphans_changed = False
        self._cut.clear()

    def load(self, disk: Disk, ids: NDArray[np.uint8]) -> None:
        """Read everything back but the order keys; ids are those of all series in the index.

        Raises:
            CorruptError: a stored block is not one.
        """
        self.add(ids)
        start, end = keys.of_partition(keys.SERIES_TIMES, self._partition)
        for key, value in disk.scan(start, end):
            block = int.from_bytes(key[-4:], "big")
            times = np.frombuffer(zstandard.ZstdDecompressor().decompress(value), dtype="<i8")
            first = block * BLOCK_SERIES
            n = len(times) // 2
            if first + n > len(self):
                raise CorruptError("times of series that are not in the index", partition=self._partition)
            self.min_times.data[first : first + n] = times[:n]
            self.max_times.data[first : first + n] = times[n:]
        stored = disk.get(keys.numbered(keys.ORPHANS, self._partition, 0)) or b""
        for producer_id, ref, sno, adopted in np.frombuffer(stored, dtype=_ORPHAN).tolist():
            if adopted:
                self._adopted.append((producer_id, ref, sno))
            else:
                self.orphans[producer_id, ref] = sno
                self.is_orphan.data[sno] = True
                self.ids.data[sno] = orphan_id(producer_id, ref).view("<u8")


def orphan_id(producer_id: int, ref: int) -> NDArray[np.uint8]:
    """Pseudo id of an undeclared series, uint8 (1, 16): xxh3-128 of its ingestor and ref."""
    digest = xxhash.xxh3_128_digest(b"orphan" + producer_id.to_bytes(8, "little") + ref.to_bytes(4, "little"))
    return np.frombuffer(digest, dtype=np.uint8).reshape(1, 16)
