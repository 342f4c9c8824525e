"""Which series an ingestor's numbers (refs) stand for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from common.errors import CorruptError
from storage_node import keys
from storage_node.columns import Column
from storage_node.disk import Batch, Disk

NONE = 0xFFFFFFFF
BLOCK_REFS = 4096
MAX_REFS = 1 << 24
"""Refs of one ingestor in one partition; a record that uses higher ones is taken to be corrupt."""
FORGET_AFTER_MS = 24 * 3600 * 1000
"""An ingestor that has written nothing for this long, by the log's clock, has to declare its series again."""


class Producer:
    """One ingestor's refs.

    snos: uint32, the series of each ref, NONE where none is declared. last_ms: the log's clock at its last record.
    """

    __slots__ = ("_changed", "id", "last_ms", "snos")

    def __init__(self, producer_id: int, last_ms: int) -> None:
        self.id = producer_id
        self.last_ms = last_ms
        self.snos = Column(np.uint32)
        self._changed: set[int] = set()

    def reserve(self, n_refs: int) -> None:
        """Have an entry for each ref below `n_refs`."""
        old = self.snos.size
        if n_refs > old:
            self.snos.resize(n_refs)
            self.snos.data[old:n_refs] = NONE
            self._changed.update(range(old // BLOCK_REFS, (n_refs - 1) // BLOCK_REFS + 1))

    def bind(self, refs: NDArray[np.uint32], snos: NDArray[np.uint32]) -> None:
        """Let refs stand for series; of equal refs the last counts."""
        if len(refs):
            self.reserve(int(refs.max()) + 1)
            self.snos.data[refs] = snos
            self._changed.update(np.unique(refs // BLOCK_REFS).tolist())

    def lookup(self, refs: NDArray[np.uint32]) -> NDArray[np.uint32]:
        """Series of each ref, NONE where none is declared."""
        out = np.full(len(refs), NONE, dtype=np.uint32)
        known = refs < self.snos.size
        out[known] = self.snos.view()[refs[known]]
        return out

    def unbind(self, is_gone: NDArray[np.bool_]) -> None:
        """Let no ref stand for these series any more (bool, by sno)."""
        snos = self.snos.view()
        bound = np.flatnonzero(snos != NONE)
        refs = bound[is_gone[snos[bound]]]
        self.snos.data[refs] = NONE
        self._changed.update(np.unique(refs // BLOCK_REFS).tolist())

    def changed_blocks(self) -> Iterator[tuple[int, bytes]]:
        for block in sorted(self._changed):
            yield block, self.snos.view()[block * BLOCK_REFS : (block + 1) * BLOCK_REFS].tobytes()

    def changes_written(self) -> None:
        self._changed.clear()


class Producers:
    """The ingestors that a partition has heard of lately."""

    def __init__(self, partition: int) -> None:
        self._partition = partition
        self._producers: dict[int, Producer] = {}
        self._forgotten: set[int] = set()
        self._next_expiry_ms: int | None = None

    def __len__(self) -> int:
        return len(self._producers)

    def heard_of(self, producer_id: int, now_ms: int) -> Producer:
        """The ingestor that wrote a record now, by the log's clock, which never goes back."""
        self._forget_silent(now_ms)
        producer = self._producers.get(producer_id)
        if producer is None:
            producer = self._producers[producer_id] = Producer(producer_id, now_ms)
        producer.last_ms = now_ms
        if self._next_expiry_ms is None:
            self._next_expiry_ms = now_ms + FORGET_AFTER_MS
        return producer

    def calm_until_ms(self, now_ms: int) -> int:
        """Up to when, at least, hearing of ingestors after `now_ms` forgets none."""
        expiry_ms = self._next_expiry_ms
        return now_ms + FORGET_AFTER_MS if expiry_ms is None else max(now_ms, expiry_ms)

    def _forget_silent(self, now_ms: int) -> None:
        # The time noted is a lower bound: when it passes, the exact one is looked up.
        if self._next_expiry_ms is None or now_ms <= self._next_expiry_ms:
            return
        for producer_id in [p.id for p in self._producers.values() if now_ms - p.last_ms > FORGET_AFTER_MS]:
            del self._producers[producer_id]
            self._forgotten.add(producer_id)
        oldest = min((p.last_ms for p in self._producers.values()), default=None)
        self._next_expiry_ms = None if oldest is None else oldest + FORGET_AFTER_MS

    def unbind(self, is_gone: NDArray[np.bool_]) -> None:
        """Let no ref stand for these series any more (bool, by sno); they have to be declared again."""
        for producer in self._producers.values():
            producer.unbind(is_gone)

    def summary(self) -> list[tuple[int, int, int]]:
        """(id, number of refs, last_ms) of each, by id; for the partition's meta record."""
        return sorted((p.id, p.snos.size, p.last_ms) for p in self._producers.values())

    def write_changes(self, batch: Batch) -> None:
        """Put what has changed since `changes_written` into the batch."""
        for producer_id in self._forgotten:
            first = keys.producer_refs(self._partition, producer_id, 0)
            batch.delete_range(first, keys.producer_refs(self._partition, producer_id, NONE))
        for producer in self._producers.values():
            for block, data in producer.changed_blocks():
                batch.put(keys.producer_refs(self._partition, producer.id, block), data)

    def changes_written(self) -> None:
        self._forgotten.clear()
        for producer in self._producers.values():
            producer.changes_written()

    def load(self, disk: Disk, summary: Iterable[tuple[int, int, int]]) -> None:
        """Raises CorruptError if the maps on the disk are not those of the summary."""
        for producer_id, n_refs, last_ms in summary:
            producer = Producer(producer_id, last_ms)
            producer.snos.resize(n_refs)
            n_blocks = -(-n_refs // BLOCK_REFS)
            names = [keys.producer_refs(self._partition, producer_id, block) for block in range(n_blocks)]
            data = b"".join(value or b"" for value in disk.get_many(names))
            if len(data) != 4 * n_refs:
                raise CorruptError("refs of an ingestor are missing", partition=self._partition)
            producer.snos.data[:n_refs] = np.frombuffer(data, dtype="<u4")
            self._producers[producer_id] = producer
        oldest = min((p.last_ms for p in self._producers.values()), default=None)
        self._next_expiry_ms = None if oldest is None else oldest + FORGET_AFTER_MS
