"""The series of one partition: numbers, ids, labels, and which series match.

SeriesIndex ── ids: hash table over 16-byte ids
    ├── SeriesLabels   pairs, and for each series a run of pairs; all in RAM
    ├── Postings       bitmaps of pairs, on disk behind a bounded cache, and what is newer than the disk
    └── Selector       matchers → series
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyroaring import BitMap

from common.errors import CorruptError
from common.interning import placed
from common.kernels import index as kernels
from common.labels import LabelTable, StringPool
from common.store import Matcher
from storage_node import series_blocks
from storage_node.caches import ByteLru
from storage_node.columns import Column
from storage_node.matching import Selector
from storage_node.postings import IndexDisk, Postings, Put, snos_of
from storage_node.series_blocks import BLOCK_SERIES, SeriesBlock
from storage_node.series_labels import SeriesLabels, count_labels

LOAD_BLOCKS = 64
"""Blocks that `load` takes at a time."""
SELECTIONS_BYTES = 1 << 20
"""What a partition may keep of the series that earlier queries selected, and as much of their labels."""
TABLE_SERIES = 4096
"""Series up to which a table of labels is kept."""
_SELECTION_BYTES = 600


class SeriesIndex:
    """Series of one partition, numbered from 0 in order of arrival (sno, uint32).

    Every method may be called from any thread; a lock makes them one after another. One thread adds series and
    writes changes; all partitions of a node share the pool.
    """

    def __init__(self, partition: int, pool: StringPool, disk: IndexDisk) -> None:
        self._partition = partition
        self._pool = pool
        self._disk = disk
        self._lock = threading.RLock()
        self._clear()

    def _clear(self) -> None:
        self._ids = Column(np.uint8, 16)
        self._slots: NDArray[np.int32] = np.zeros(512, dtype=np.int32)
        self._n_ids = 0
        self._orphans = BitMap()
        self._use(SeriesLabels(self._pool))
        self._n_stored = 0
        self.is_rewritten = False
        """Whether the next `write_changes` puts everything, in place of all that the disk has."""
        # Complete blocks on the disk in which an orphan was adopted.
        self._changed_blocks: set[int] = set()
        self._writing: tuple[int, int, set[int]] | None = None

    def _use(self, labels: SeriesLabels) -> None:
        """Look into these labels from now on."""
        self._labels = labels
        self._postings = Postings(self._partition, self._labels, self._disk)
        self._selector = Selector(self._labels, self._postings)
        self._selections: ByteLru[tuple[Matcher, ...], tuple[tuple[int, int], NDArray[np.uint32]]] = ByteLru(
            SELECTIONS_BYTES
        )
        self._tables: ByteLru[bytes, LabelTable] = ByteLru(SELECTIONS_BYTES)

    def __len__(self) -> int:
        return self._ids.size

    # -- series -------------------------------------------------------------------------------------------------

    def register(
        self, ids: NDArray[np.uint8], label_offsets: NDArray[np.int64], label_bytes: NDArray[np.uint8]
    ) -> NDArray[np.uint32]:
        """Numbers of series; those that are new get the next numbers, in the order given.

        ids: uint8 (n, 16), may repeat. label_offsets: int64 (n + 1,) into label_bytes (uint8), which are canonical
        label sets. Those of known ids are not looked at. Returns uint32 (n,).

        Raises:
            CorruptError: a new label set is not canonical or not UTF-8; the index is as before.
        """
        with self._lock:
            first = len(self)
            snos = np.full(len(ids), kernels.NO_SNO, dtype=np.uint32)
            self._enter(ids, snos)
            if len(self) > first:
                _, rows = np.unique(snos, return_index=True)
                rows = np.sort(rows[snos[rows] >= first]).astype(np.int64)
                label_offsets = np.ascontiguousarray(label_offsets, dtype=np.int64)
                try:
                    counts = count_labels(rows, label_offsets, label_bytes, self._partition)
                except CorruptError:
                    self._forget(first)
                    raise
                self._labels.resize(len(self))
                self._labels.add(snos[rows], rows, label_offsets, label_bytes, counts)
            return snos

    def add_orphan(self) -> int:
        """Number for a series whose declaration has not been seen; it has no id, no labels, and never matches."""
        with self._lock:
            sno = len(self)
            self._ids.resize(sno + 1)
            self._ids.data[sno] = 0
            self._labels.resize(sno + 1)
            self._orphans.add(sno)
            return sno

    def adopt(self, sno: int, series_id: bytes, labels: bytes) -> None:
        """Give an orphan its identity; the id must be unknown so far. It is selected from now on.

        Raises:
            CorruptError: the label set is not canonical or not UTF-8; the index is as before.
        """
        ids = np.frombuffer(series_id, dtype=np.uint8).reshape(1, 16)
        offsets = np.array([0, len(labels)], dtype=np.int64)
        self.adopt_many(np.array([sno], dtype=np.uint32), ids, offsets, np.frombuffer(labels, dtype=np.uint8))

    def adopt_many(
        self,
        snos: NDArray[np.uint32],
        ids: NDArray[np.uint8],
        label_offsets: NDArray[np.int64],
        label_bytes: NDArray[np.uint8],
    ) -> None:
        """`adopt` for many orphans: snos uint32 (n,) and ids uint8 (n, 16), each without repetition."""
        with self._lock:
            assert all(sno in self._orphans for sno in snos.tolist())
            rows = np.arange(len(snos), dtype=np.int64)
            counts = count_labels(rows, label_offsets, label_bytes, self._partition)
            entered = snos.astype(np.uint32)
            self._enter(ids, entered)
            assert (entered == snos).all(), "an adopted id was known before"
            self._labels.add(entered, rows, label_offsets, label_bytes, counts)
            self._orphans -= BitMap(entered)
            # A series' labels change in no other way than from none to those.
            self._tables = ByteLru(SELECTIONS_BYTES)
            self._changed_blocks.update(np.unique(snos[snos < self._n_stored] // BLOCK_SERIES).tolist())

    def forget(self, snos: NDArray[np.uint32]) -> None:
        """Take id and labels from series; their numbers stay, match nothing, and never stand for others.

        The rest is looked up anew, and written anew: pairs and postings have no trace of what is gone.
        """
        with self._lock:
            n_series = len(self)
            lengths, data = self._labels.encode(0, n_series)
            offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
            self._orphans |= BitMap(_snos(snos))
            is_known = np.ones(n_series, dtype=np.bool_)
            is_known[snos_of(self._orphans)] = False
            rows = np.flatnonzero(is_known)
            self._ids.data[snos] = 0
            homes = np.ascontiguousarray(self._ids.data[rows, 8:12]).view(">u4")[:, 0].astype(np.int64)
            self._slots = placed(homes, (rows + 1).astype(np.int32), len(self._slots))
            self._n_ids = len(rows)
            self._use(SeriesLabels(self._pool))
            self._labels.resize(n_series)
            counts = count_labels(rows, offsets, data, self._partition)
            self._labels.add(rows.astype(np.uint32), rows, offsets, data, counts)
            self._n_stored = 0
            self._changed_blocks.clear()
            self.is_rewritten = True

    def find(self, series_id: bytes) -> int | None:
        """Number of the series with this id (16 bytes), else None."""
        with self._lock:
            mask = len(self._slots) - 1
            at = int.from_bytes(series_id[8:12], "big") & mask
            while sno := int(self._slots[at]):
                if self._ids.data[sno - 1].tobytes() == series_id:
                    return sno - 1
                at = (at + 1) & mask
            return None

    def ids(self, snos: NDArray[np.uint32]) -> NDArray[np.uint8]:
        """Ids of series, uint8 (n, 16); zeros for orphans."""
        with self._lock:
            found: NDArray[np.uint8] = self._ids.data[snos]
            return found

    def _enter(self, ids: NDArray[np.uint8], snos: NDArray[np.uint32]) -> None:
        """Find or add ids; `snos` holds the numbers that new ones take, or NO_SNO for the next, and is filled."""
        ids = np.ascontiguousarray(ids, dtype=np.uint8).reshape(-1, 16)
        state = np.array([self._ids.size, self._n_ids], dtype=np.int64)
        done = 0
        while True:
            done = kernels.enter_ids(ids, snos, done, state, self._ids.data, self._slots)
            self._ids.size, self._n_ids = int(state[0]), int(state[1])
            if done == len(ids):
                return
            self._ids.reserve(self._ids.size + 1)
            if 2 * (self._n_ids + 1) >= len(self._slots):
                self._rehash(2 * len(self._slots))

    def _rehash(self, n_slots: int) -> None:
        taken = self._slots[self._slots != 0]
        homes = np.ascontiguousarray(self._ids.data[taken - 1, 8:12]).view(">u4")[:, 0].astype(np.int64)
        self._slots = placed(homes, taken, n_slots)

    def _forget(self, first: int) -> None:
        """Take back the series from `first` on, which have an id but no labels yet."""
        self._n_ids -= len(self) - first
        self._slots[self._slots > first] = 0
        self._ids.size = first
        # Runs of full slots may have been torn.
        self._rehash(len(self._slots))

    # -- reading ------------------------------------------------------------------------------------------------

    def select(self, matchers: Sequence[Matcher]) -> NDArray[np.uint32]:
        """Numbers of the series that match all matchers, ascending; not to be written to.

        Raises:
            CallerError: a regular expression is not valid RE2.
        """
        with self._lock:
            # Series only come on top and orphans are only adopted: where the numbers of both are the same, all is.
            version = len(self), len(self._orphans)
            key = tuple(matchers)
            known = self._selections.get(key)
            if known is not None and known[0] == version:
                return known[1]
            every = BitMap(range(len(self)))
            snos = self._selector.select(matchers, every - self._orphans if self._orphans else every)
            snos.flags.writeable = False
            self._selections.put(key, (version, snos), _SELECTION_BYTES + snos.nbytes)
            return snos

    def table(self, snos: NDArray[np.uint32]) -> LabelTable:
        """Labels of series, with codes of the shared pool; not to be written to."""
        with self._lock:
            if len(snos) > TABLE_SERIES:
                return self._labels.table(_snos(snos))
            key = snos.tobytes()
            table = self._tables.get(key)
            if table is None:
                table = self._labels.table(_snos(snos))
                self._tables.put(key, table, _SELECTION_BYTES + len(key) + table.codes.nbytes)
            return table

    def label_names(self, snos: NDArray[np.uint32] | None = None) -> set[str]:
        """Names of the labels of these series, or of all."""
        with self._lock:
            return self._labels.all_names() if snos is None else self._labels.names_of(_snos(snos))

    def column(self, name: str, snos: NDArray[np.uint32]) -> NDArray[np.int32]:
        """Codes of one label of these series, 0 where it is absent."""
        with self._lock:
            return self._labels.column(name, _snos(snos))

    def label_values(self, name: str, snos: NDArray[np.uint32] | None = None) -> set[str]:
        """Values of a label among these series, or among all; absent labels have none."""
        with self._lock:
            if snos is None:
                codes = self._labels.values.data[self._labels.pairs_of(name)]
            else:
                codes = np.unique(self._labels.column(name, _snos(snos)))
            return {self._pool[code] for code in codes.tolist() if code}

    def metric_order(self, snos: NDArray[np.uint32]) -> NDArray[np.int64]:
        """Permutation, int64 (n,), that sorts the series by metric name (code points), then number."""
        with self._lock:
            return self._labels.metric_order(snos)

    @property
    def nbytes(self) -> int:
        """RAM of the arrays, without the strings of the pool and the cache of postings."""
        return self._ids.view().nbytes + self._slots.nbytes + self._labels.nbytes

    # -- disk ---------------------------------------------------------------------------------------------------

    def write_changes(self, put: Put) -> None:
        """Put everything that the disk does not have, as keys and values for one atomic batch."""
        with self._lock:
            blocks = set(range(self._n_stored // BLOCK_SERIES, -(-len(self) // BLOCK_SERIES)))
            if self._n_stored == len(self):
                blocks.clear()
            if self._writing is not None:
                # The batch before was not written.
                self._changed_blocks |= self._writing[2]
            changed, self._changed_blocks = self._changed_blocks, set()
            self._writing = len(self), self._labels.n_entries, changed
            for block in sorted(blocks | changed):
                put(series_blocks.block_key(block), self._encode_block(block))
            self._postings.write(put)

    def changes_written(self) -> None:
        """The batch of the last `write_changes` is on the disk."""
        with self._lock:
            assert self._writing is not None
            self._n_stored, n_entries, _ = self._writing
            self._writing = None
            self.is_rewritten = False
            self._labels.commit(n_entries)
            self._postings.written()

    def _encode_block(self, block: int) -> bytes:
        first, last = block * BLOCK_SERIES, min((block + 1) * BLOCK_SERIES, len(self))
        known = np.ones(last - first, dtype=np.bool_)
        orphans = self._orphans & BitMap(range(first, last)) if self._orphans else ()
        known[[sno - first for sno in orphans]] = False
        lengths, labels = self._labels.encode(first, last)
        return series_blocks.encode_block(SeriesBlock(known, self._ids.data[first:last], lengths, labels))

    def load(self) -> None:
        """Read what was persisted, in place of what the index holds.

        Raises:
            CorruptError: blocks are damaged or missing.
        """
        with self._lock:
            self._clear()
            batch: list[SeriesBlock] = []
            for block in self._blocks():
                batch.append(block)
                if len(batch) == LOAD_BLOCKS:
                    self._load(batch)
                    batch.clear()
            if batch:
                self._load(batch)
            self._n_stored = len(self)
            self._labels.commit(self._labels.n_entries)

    def _blocks(self) -> Iterator[SeriesBlock]:
        size = BLOCK_SERIES
        for number, (key, value) in enumerate(self._disk.scan(series_blocks.KEY_PREFIX)):
            if series_blocks.block_number(key) != number or size != BLOCK_SERIES:
                raise CorruptError(f"series block {number} is missing", partition=self._partition)
            block = series_blocks.decode_block(value, self._partition)
            size = len(block.known)
            yield block

    def _load(self, blocks: list[SeriesBlock]) -> None:
        known, ids, lengths, data = (_joined([getattr(b, part) for b in blocks]) for part in SeriesBlock.__slots__)
        first = len(self)
        self._ids.resize(first + len(known))
        self._ids.data[first : len(self)] = 0
        self._labels.resize(len(self))
        rows = np.flatnonzero(known)
        snos = (rows + first).astype(np.uint32)
        self._enter(ids[rows], snos)
        if not (snos == rows + first).all():
            raise CorruptError("two persisted series have one id", partition=self._partition)
        offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
        self._labels.add(snos, rows, offsets, data, count_labels(rows, offsets, data, self._partition))
        # Entries that were read are on the disk.
        self._labels.commit(self._labels.n_entries)
        self._orphans |= BitMap((np.flatnonzero(~known) + first).astype(np.uint32))


def _joined(parts: list[NDArray[Any]]) -> NDArray[Any]:
    return np.concatenate(parts)


def _snos(snos: NDArray[np.uint32]) -> NDArray[np.uint32]:
    return np.ascontiguousarray(snos, dtype=np.uint32)
