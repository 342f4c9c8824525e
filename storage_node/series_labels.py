"""Labels of the series of a partition: pairs numbered once, and for each series a run of pairs."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from common.errors import CorruptError
from common.interning import placed
from common.kernels import index as kernels
from common.kernels.index import hash_pair
from common.labels import METRIC_NAME, LabelTable, StringPool
from storage_node.columns import Column

_REASONS = {
    kernels.BAD_LENGTH: "a length is wrong",
    kernels.BAD_ORDER: "names do not ascend",
    kernels.BAD_UTF8: "not UTF-8",
}


def count_labels(
    rows: NDArray[np.int64], offsets: NDArray[np.int64], data: NDArray[np.uint8], partition: int
) -> NDArray[np.int64]:
    """Number of labels of each of the given canonical label sets, int64 (n_rows,). `rows` ascend.

    Raises:
        CorruptError: a label set is not canonical (`docs/format/log-record.md`, 'Label set').
    """
    too_few = len(rows) and rows[-1] + 1 >= len(offsets)
    if too_few or offsets[0] < 0 or offsets[-1] > len(data) or (np.diff(offsets) < 0).any():
        raise CorruptError("label offsets are out of bounds", partition=partition)
    counts = np.zeros(len(rows), dtype=np.int64)
    outcome = kernels.check_labels(rows, offsets, data, counts)
    if outcome:
        row = int(rows[outcome // 4])
        raise CorruptError(f"label set {row} is not canonical: {_REASONS[outcome % 4]}", partition=partition)
    return counts


class SeriesLabels:
    """Pairs (label name, value) of one partition, and which series have them.

    A pair is an int32, numbered in order of arrival; an entry is one label of one series. Of each pair it is known
    how many series have it and which was the first. Entries after `committed` are those that the disk does not
    have yet; for these alone the series of an entry is kept.
    """

    def __init__(self, pool: StringPool) -> None:
        self.pool = pool
        self.names = Column(np.int32)
        self.values = Column(np.int32)
        self.sizes = Column(np.int32)
        self.firsts = Column(np.uint32)
        self._slots: NDArray[np.int32] = np.zeros(512, dtype=np.int32)
        self._entries = Column(np.int32)
        self._starts = Column(np.int64)
        self._counts = Column(np.uint16)
        self.metrics = Column(np.int32)
        self.committed = 0
        self._owners = Column(np.uint32)
        self._metric_name = pool.intern(METRIC_NAME)
        self._name_codes: set[int] = set()
        self._n_named = 0
        self._metric_order: tuple[int, NDArray[np.int32]] = (0, np.zeros(0, dtype=np.int32))

    @property
    def n_entries(self) -> int:
        return self._entries.size

    def resize(self, n_series: int) -> None:
        """Make room for series; those that are new have no labels."""
        for column in (self._starts, self._counts, self.metrics):
            column.resize(n_series)

    def add(
        self,
        snos: NDArray[np.uint32],
        rows: NDArray[np.int64],
        offsets: NDArray[np.int64],
        data: NDArray[np.uint8],
        counts: NDArray[np.int64],
    ) -> None:
        """Give series without labels the label sets `rows`, which `count_labels` has checked."""
        n_labels = int(counts.sum())
        codes = self.pool.intern_labels(rows, offsets, data, counts).reshape(-1)
        owners = np.repeat(snos, counts)
        base = self._entries.size
        self._entries.resize(base + n_labels)
        self._starts.data[snos] = base + np.cumsum(counts) - counts
        self._counts.data[snos] = counts
        n_pairs = np.array([self.names.size], dtype=np.int64)
        out = self._entries.data[base : base + n_labels]
        done = 0
        while True:
            done = kernels.add_labels(
                codes, owners, done, n_labels, self._metric_name, self._slots, self.names.data, self.values.data,
                self.sizes.data, self.firsts.data, n_pairs, out, self.metrics.data,
            )  # fmt: skip
            self._resize_pairs(int(n_pairs[0]))
            if done == n_labels:
                break
            self._grow_pairs()
        self._owners.extend(owners)

    def _resize_pairs(self, n_pairs: int) -> None:
        for column in (self.names, self.values, self.sizes, self.firsts):
            column.size = n_pairs

    def _grow_pairs(self) -> None:
        n_pairs = self.names.size
        for column in (self.names, self.values, self.sizes, self.firsts):
            column.reserve(n_pairs + 1)
        if 2 * (n_pairs + 1) >= len(self._slots):
            hashes = hash_pair(self.names.view(), self.values.view())
            self._slots = placed(hashes, np.arange(1, n_pairs + 1, dtype=np.int32), 2 * len(self._slots))

    def commit(self, n_entries: int) -> None:
        """Everything before this entry is on the disk."""
        left = self._owners.view()[n_entries - self.committed :].copy()
        self._owners = Column(np.uint32)
        self._owners.extend(left)
        self.committed = n_entries

    def new_entries(self) -> tuple[NDArray[np.int32], NDArray[np.uint32]]:
        """Pair and series of each entry that the disk does not have."""
        return self._entries.view()[self.committed :], self._owners.view()

    def pair(self, name: str, value: str) -> int | None:
        """Number of a pair that some series has, else None."""
        codes = self.pool.find(name), self.pool.find(value)
        if codes[0] is None or codes[1] is None:
            return None
        mask = len(self._slots) - 1
        at = int(hash_pair(np.array([codes[0]]), np.array([codes[1]]))[0]) & mask
        while pair := int(self._slots[at]):
            if self.names.data[pair - 1] == codes[0] and self.values.data[pair - 1] == codes[1]:
                return pair - 1
            at = (at + 1) & mask
        return None

    def pair_text(self, pair: int) -> tuple[str, str]:
        return self.pool[int(self.names.data[pair])], self.pool[int(self.values.data[pair])]

    def pairs_of(self, name: str, first: int = 0) -> NDArray[np.int64]:
        """Pairs with this name, from number `first` on."""
        code = self.pool.find(name)
        if code is None:
            return np.zeros(0, dtype=np.int64)
        return np.flatnonzero(self.names.view()[first:] == code) + first

    def column(self, name: str, snos: NDArray[np.uint32]) -> NDArray[np.int32]:
        """Value codes of one label of the series, int32 (n,); 0 where it is absent."""
        code = self.pool.find(name)
        codes = np.zeros((1, len(snos)), dtype=np.int32)
        if code is not None:
            self._fill(snos, code, np.zeros(1, dtype=np.int32), codes)
        column: NDArray[np.int32] = codes[0]
        return column

    def all_names(self) -> set[str]:
        # Pairs only come on top: only the new ones are looked at.
        self._name_codes.update(np.unique(self.names.view()[self._n_named :]).tolist())
        self._n_named = self.names.size
        return {self.pool[code] for code in self._name_codes}

    def names_of(self, snos: NDArray[np.uint32]) -> set[str]:
        names = np.zeros(64, dtype=np.int32)
        nothing = np.zeros((0, 0), dtype=np.int32)
        n_names = self._fill(snos, -1, names, nothing)
        if n_names > len(names):
            names = np.zeros(n_names, dtype=np.int32)
            self._fill(snos, -1, names, nothing)
        return {self.pool[code] for code in names[:n_names].tolist()}

    def table(self, snos: NDArray[np.uint32]) -> LabelTable:
        n_names = 32
        while True:
            names = np.zeros(n_names, dtype=np.int32)
            codes = np.zeros((n_names, len(snos)), dtype=np.int32)
            n_names = self._fill(snos, -1, names, codes)
            if n_names <= len(names):
                break
        texts = [self.pool[code] for code in names[:n_names].tolist()]
        order = sorted(range(n_names), key=texts.__getitem__)
        return LabelTable(self.pool, tuple(texts[i] for i in order), codes[order])

    def _fill(
        self, snos: NDArray[np.uint32], only: int, names: NDArray[np.int32], codes: NDArray[np.int32]
    ) -> int:
        row_of = np.zeros(len(self.pool), dtype=np.int32)
        n_names: int = kernels.fill_table(
            snos, self._starts.data, self._counts.data, self._entries.data, self.names.data, self.values.data,
            only, row_of, names, codes,
        )  # fmt: skip
        return n_names

    def encode(self, first: int, last: int) -> tuple[NDArray[np.uint32], NDArray[np.uint8]]:
        """Lengths and bytes of the canonical label sets of the series [first, last)."""
        ends, arena = self.pool.utf8()
        lengths = np.zeros(last - first, dtype=np.uint32)
        out = np.empty(256 * (last - first), dtype=np.uint8)
        while True:
            n_bytes = kernels.encode_labels(
                self._starts.data[first:last], self._counts.data[first:last], self._entries.data,
                self.names.data, self.values.data, ends, arena, lengths, out,
            )  # fmt: skip
            if n_bytes <= len(out):
                return lengths, out[:n_bytes]
            out = np.empty(n_bytes, dtype=np.uint8)

    def metric_order(self, snos: NDArray[np.uint32]) -> NDArray[np.int64]:
        """Permutation that sorts the series by the text of their metric, then by number."""
        pairs = self.pairs_of(METRIC_NAME)
        if self._metric_order[0] != len(pairs):
            codes = self.values.view()[pairs].tolist()
            codes.sort(key=self.pool.__getitem__)
            self._metric_order = len(pairs), np.array(codes, dtype=np.int32)
        rank = np.zeros(len(self.pool), dtype=np.int32)
        rank[self._metric_order[1]] = np.arange(1, len(pairs) + 1)
        ranks = rank[self.metrics.data[snos]]
        if len(pairs) < 1 << 16:
            # numpy sorts 16-bit integers by radix.
            ranks = ranks.astype(np.uint16)
        if len(snos) < 2 or (snos[1:] > snos[:-1]).all():
            return np.argsort(ranks, kind="stable")
        by_sno = np.argsort(snos, kind="stable")
        return by_sno[np.argsort(ranks[by_sno], kind="stable")]

    @property
    def nbytes(self) -> int:
        """Room taken by the arrays in use."""
        columns = (
            self.names, self.values, self.sizes, self.firsts, self._entries, self._starts, self._counts,
            self.metrics, self._owners,
        )  # fmt: skip
        return self._slots.nbytes + sum(column.view().nbytes for column in columns)
