"""Which series have a label pair: bitmaps on disk, plus what is newer than the disk."""

from __future__ import annotations

import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from pyroaring import BitMap

from common.errors import CorruptError
from storage_node.caches import ByteLru
from storage_node.series_labels import SeriesLabels

KEY_PREFIX = b"p"
CACHE_BYTES = 8 << 20
SMALL_POSTING = 16
READ_BATCH = 1024
_LIST, _ROARING = b"\x00", b"\x01"
_OVERHEAD_BYTES = 200

Put = Callable[[bytes, bytes], None]


class IndexDisk(Protocol):
    """The keys of one partition's index; they are given without the prefix that leads to the partition."""

    def get(self, key: bytes) -> bytes | None: ...

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]: ...

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Keys that start with the prefix, ascending, with their values."""


def posting_key(name: str, value: str) -> bytes:
    """Key of a posting (`docs/format/index-keys.md`): one scan finds the values of a name, in order."""
    raw = name.encode()
    return KEY_PREFIX + len(raw).to_bytes(4, "big") + raw + value.encode()


def bitmap_of(snos: NDArray[np.uint32]) -> BitMap:
    return BitMap(array.array("I", np.ascontiguousarray(snos, dtype=np.uint32).tobytes()))


def snos_of(bitmap: BitMap) -> NDArray[np.uint32]:
    return np.frombuffer(bitmap.to_array(), dtype=np.uint32)


class Postings:
    """The series of each pair of `labels`, as bitmaps.

    A pair of a single series has no posting on disk: `SeriesLabels` knows that series. Bitmaps that are handed out
    must not be changed.
    """

    def __init__(self, partition: int, labels: SeriesLabels, disk: IndexDisk) -> None:
        self._partition = partition
        self._labels = labels
        self._disk = disk
        self._cache: ByteLru[int, BitMap] = ByteLru(CACHE_BYTES)
        self._touched: NDArray[np.int64] = np.zeros(0, dtype=np.int64)

    def get(self, pair: int) -> BitMap:
        """Series that have the pair."""
        size = int(self._labels.sizes.data[pair])
        first = int(self._labels.firsts.data[pair])
        if size == 1:
            return BitMap([first])
        entries, owners = self._labels.new_entries()
        new = owners[entries == pair]
        n_stored = size - len(new)
        if n_stored == 0:
            return bitmap_of(new)
        stored = BitMap([first]) if n_stored == 1 else self._stored(pair)
        return stored | bitmap_of(new) if len(new) else stored

    def union(self, pairs: Iterable[int]) -> BitMap:
        """Series that have any of the pairs."""
        pairs = list(pairs)
        labels = self._labels
        single = [pair for pair in pairs if labels.sizes.data[pair] == 1]
        found = bitmap_of(labels.firsts.data[np.array(single, dtype=np.int64)])
        many = [self.get(pair) for pair in pairs if labels.sizes.data[pair] > 1]
        return BitMap.union(found, *many) if many else found

    def _stored(self, pair: int) -> BitMap:
        bitmap = self._cache.get(pair)
        if bitmap is None:
            key = posting_key(*self._labels.pair_text(pair))
            raw = self._disk.get(key)
            bitmap = self._decode(key, raw)
            self._cache.put(pair, bitmap, _OVERHEAD_BYTES + len(raw or b""))
        return bitmap

    def _decode(self, key: bytes, raw: bytes | None) -> BitMap:
        if raw is None:
            raise CorruptError(f"posting {key!r} is missing", partition=self._partition)
        if raw[:1] == _LIST and len(raw) % 4 == 1:
            return bitmap_of(np.frombuffer(raw, dtype="<u4", offset=1))
        if raw[:1] == _ROARING:
            try:
                return BitMap.deserialize(raw[1:])
            except ValueError as error:
                raise CorruptError(f"posting {key!r}: {error}", partition=self._partition) from None
        raise CorruptError(f"posting {key!r} has an unknown form", partition=self._partition)

    def write(self, put: Put) -> None:
        """Put the postings of all pairs that have entries which the disk does not have."""
        entries, owners = self._labels.new_entries()
        keys = np.sort(entries.astype(np.int64) << 32 | owners.astype(np.int64))
        snos = (keys & 0xFFFFFFFF).astype(np.uint32)
        starts = np.flatnonzero(np.diff(keys >> 32, prepend=-1))
        ends = np.append(starts[1:], len(keys))
        pairs = keys[starts] >> 32
        self._touched = pairs
        sizes = self._labels.sizes.data[pairs]
        n_stored = sizes - (ends - starts)
        for i in np.flatnonzero((n_stored < 2) & (sizes > 1)).tolist():
            new = snos[starts[i] : ends[i]]
            if n_stored[i]:
                new = np.union1d(new, self._labels.firsts.data[pairs[i] : pairs[i] + 1])
            put(posting_key(*self._labels.pair_text(int(pairs[i]))), _encode(new))
        merged = np.flatnonzero(n_stored >= 2)
        for at in range(0, len(merged), READ_BATCH):
            batch = merged[at : at + READ_BATCH].tolist()
            texts = [posting_key(*self._labels.pair_text(int(pairs[i]))) for i in batch]
            for i, key, raw in zip(batch, texts, self._disk.get_many(texts), strict=True):
                put(key, self._merged(key, raw, snos[starts[i] : ends[i]]))

    def _merged(self, key: bytes, raw: bytes | None, new: NDArray[np.uint32]) -> bytes:
        if raw is not None and raw[:1] == _LIST and len(raw) // 4 + len(new) <= SMALL_POSTING:
            return _encode(np.union1d(new, np.frombuffer(raw, dtype="<u4", offset=1)))
        bitmap = self._decode(key, raw)
        bitmap |= bitmap_of(new)
        return _encode_bitmap(bitmap)

    def written(self) -> None:
        """What `write` put is on the disk."""
        for pair in self._touched.tolist():
            self._cache.drop(pair)
        self._touched = np.zeros(0, dtype=np.int64)


def _encode(snos: NDArray[np.uint32]) -> bytes:
    if len(snos) <= SMALL_POSTING:
        return _LIST + snos.astype("<u4").tobytes()
    return _encode_bitmap(bitmap_of(snos))


def _encode_bitmap(bitmap: BitMap) -> bytes:
    bitmap.run_optimize()
    return _ROARING + bytes(bitmap.serialize())
