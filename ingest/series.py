"""The series an ingestor knows, as columns: no Python object for each."""

from __future__ import annotations

import secrets
from collections.abc import Sequence

import numpy as np
import xxhash
from numpy.typing import NDArray

from common.hashing import partitions_of
from common.kernels import series_table as kernels
from common.lasting import lasting_zeros
from ingest.label_store import LabelStore

NEVER_MS = -(1 << 63)
_FIRST_SLOTS = 4096


class SeriesTable:
    """Series by slot, a dense number in order of arrival, and by a 128-bit key.

    For each slot:
      keys: uint64 (n, 2), what the series is recognised by: the hash of its label bytes, or its id.
      ids: uint8 (n, 16), `common.labels.series_id`.
      partitions: int32; refs: uint32, the number within the partition, dense from 0.
      due_ms: int64, when the series has to be declared (again); NEVER_MS until its first acknowledged declaration.
      seen: int64, number of the last group with a sample of it.
      tenants: int32, number of the tenant whose it is.
    The canonical labels, which are read when a series is declared again, lie compressed in a `LabelStore`.

    Together 16 + 16 + 4 + 4 + 8 + 8 + 4 + 12 (place of the labels) and 4 to 16 (index) bytes a series, without
    labels.

    One thread uses a table. `producer_id` goes with the refs: a new table has a new one.
    """

    def __init__(self, n_partitions: int, max_series: int) -> None:
        self.producer_id = secrets.randbits(64)
        self.max_series = max_series
        self.n_partitions = n_partitions
        self.n_slots = 0
        self.active: dict[int, int] = {}
        """How many series of each tenant count as active; see `Batcher`."""
        self._next_refs = np.zeros(n_partitions, dtype=np.int64)
        # Keys are zeroed since `walk` may look at a row that is not in use yet.
        self.keys = np.zeros((_FIRST_SLOTS, 2), dtype=np.uint64)
        self.ids = np.empty((_FIRST_SLOTS, 16), dtype=np.uint8)
        self.partitions = np.empty(_FIRST_SLOTS, dtype=np.int32)
        self.refs = np.empty(_FIRST_SLOTS, dtype=np.uint32)
        self.due_ms = np.empty(_FIRST_SLOTS, dtype=np.int64)
        self.seen = np.empty(_FIRST_SLOTS, dtype=np.int64)
        self.tenants = np.empty(_FIRST_SLOTS, dtype=np.int32)
        self._label_at = np.empty(_FIRST_SLOTS, dtype=np.int64)
        self._label_size = np.empty(_FIRST_SLOTS, dtype=np.int32)
        self.index = np.full(2 * _FIRST_SLOTS, -1, dtype=np.int32)
        self._labels = LabelStore()

    def add(
        self, keys: NDArray[np.uint64], label_sets: Sequence[bytes], tenant: int = 0, max_new: int | None = None
    ) -> tuple[NDArray[np.int32], int]:
        """Slots of series, which are added if they are not there.

        keys: uint64 (n, 2), may repeat. label_sets: canonical labels of each. tenant: number of the one whose they
        are. max_new: how many may be added; without it, as many as there is room for.
        Returns int32 (n,), -1 for a series that was not added, and the number that was.
        """
        self._make_room(min(self.n_slots + len(keys), self.max_series))
        slots = np.empty(len(keys), dtype=np.int32)
        before = self.n_slots
        most = self.max_series if max_new is None else min(self.max_series, before + max_new)
        after = kernels.find_or_add(self.index, self.keys, before, most, keys, slots)
        if after == before:
            return slots, 0
        new, rows = np.unique(slots, return_index=True)
        rows = rows[new >= before]
        self.tenants[before:after] = tenant
        self.active[tenant] = self.active.get(tenant, 0) + after - before
        self._describe([label_sets[row] for row in rows.tolist()])
        return slots, after - before

    def _describe(self, label_sets: list[bytes]) -> None:
        """Fill in the columns of the next slots."""
        n = len(label_sets)
        here = slice(self.n_slots, self.n_slots + n)
        # A bytearray, since kernels take writable arrays only.
        joined = bytearray().join(map(xxhash.xxh3_128_digest, label_sets))
        ids = np.frombuffer(joined, dtype=np.uint8).reshape(n, 16)
        partitions = partitions_of(ids, self.n_partitions)
        self.ids[here] = ids
        self.partitions[here] = partitions
        order = np.argsort(partitions, kind="stable")
        counts = np.bincount(partitions, minlength=self.n_partitions)
        starts = np.cumsum(counts) - counts
        ranks = np.empty(n, dtype=np.int64)
        ranks[order] = np.arange(n) - np.repeat(starts, counts)
        self.refs[here] = self._next_refs[partitions] + ranks
        self._next_refs += counts
        self.due_ms[here] = NEVER_MS
        self.seen[here] = 0
        self._label_size[here] = [len(labels) for labels in label_sets]
        self._label_at[here] = self._labels.add(label_sets)
        self.n_slots += n

    def count_active(self, slots: NDArray[np.integer]) -> None:
        """Let these series alone count as active."""
        counts = np.bincount(self.tenants[slots])
        self.active = {tenant: count for tenant, count in enumerate(counts.tolist()) if count}

    def label_sets(self, slots: NDArray[np.int32]) -> list[bytes]:
        """Canonical labels of series."""
        return self._labels.get(self._label_at[slots], self._label_size[slots])

    def label_sizes(self, slots: NDArray[np.int32]) -> NDArray[np.int32]:
        """Bytes of the canonical labels of each series."""
        sizes: NDArray[np.int32] = self._label_size[slots]
        return sizes

    def declared(self, slots: NDArray[np.int32], now_ms: int, interval_ms: int) -> None:
        """Note that declarations made at `now_ms` are in the log.

        Series are due again after three quarters of the interval to the whole of it, by their key, so that what
        was declared at one instant does not fall due at one.
        """
        spread = (self.keys[slots, 1] >> np.uint64(54)).astype(np.int64)
        self.due_ms[slots] = now_ms + interval_ms - interval_ms * spread // 4096

    def keep(self, slots: NDArray[np.int32]) -> SeriesTable:
        """A new table, with a producer_id and refs of its own, that has only these series."""
        table = SeriesTable(self.n_partitions, self.max_series)
        table.add(np.ascontiguousarray(self.keys[slots]), self.label_sets(slots))
        table.seen[: table.n_slots] = self.seen[slots]
        table.tenants[: table.n_slots] = self.tenants[slots]
        table.count_active(np.arange(table.n_slots))
        return table

    def _make_room(self, n_slots: int) -> None:
        room = len(self.keys)
        if n_slots <= room:
            return
        room = min(max(2 * room, n_slots), max(self.max_series, n_slots))
        keys = lasting_zeros((room, 2), np.uint64)
        keys[: self.n_slots] = self.keys[: self.n_slots]
        self.keys = keys
        for name in ("ids", "partitions", "refs", "due_ms", "seen", "tenants", "_label_at", "_label_size"):
            old = getattr(self, name)
            new = lasting_zeros((room, *old.shape[1:]), old.dtype)
            new[: self.n_slots] = old[: self.n_slots]
            setattr(self, name, new)
        places = len(self.index)
        while places < 2 * room:
            places *= 2
        if places > len(self.index):
            self.index = lasting_zeros(places, np.int32)
            self.index.fill(-1)
            used = self.keys[: self.n_slots]
            slots = np.empty(self.n_slots, dtype=np.int32)
            n_slots = kernels.find_or_add(self.index, self.keys, 0, self.n_slots, used, slots)
            assert n_slots == self.n_slots
