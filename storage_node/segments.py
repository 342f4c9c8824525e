"""Segments on the disk: blocks of rows in the order of their keys, and a directory that tells where a row is."""

from __future__ import annotations

import struct
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from common.store import MAX_TIME_MS, MIN_TIME_MS
from storage_node import keys
from storage_node.blocks import EncodedBlocks
from storage_node.caches import ByteLru
from storage_node.disk import Batch, Disk
from storage_node.errors import SegmentGone, ViewsDamaged
from storage_node.windows import Segment

MAX_DIRECTORIES = 16384
"""Directories that a node keeps in memory; one is some 100 B and 28 B a block."""

BLOCKS_BYTES = 64 << 20
"""Blocks that a node keeps in memory: those that queries read last."""

_NO_KEY = (1 << 64) - 1
"""Above every order key, for a series' number is below 2^32 - 1."""
_N_BLOCKS = struct.Struct("<I")


@dataclass(frozen=True, slots=True, eq=False)
class Directory:
    """Where the rows of a segment are, one element a block.

    first_keys: uint64, order key of a block's first row, ascending. min_times, max_times: int64, ms, closed.
    """

    first_keys: NDArray[np.uint64]
    min_times: NDArray[np.int64]
    max_times: NDArray[np.int64]
    _edges: NDArray[np.uint64] = field(init=False)
    _span: tuple[int, int] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_edges", np.append(self.first_keys, np.uint64(_NO_KEY)))
        span = int(self.min_times.min(initial=MAX_TIME_MS)), int(self.max_times.max(initial=MIN_TIME_MS))
        object.__setattr__(self, "_span", span)

    def encode(self) -> bytes:
        """`docs/format/rocksdb-keys.md`, 'Segment directory'."""
        columns = (self.first_keys, self.min_times, self.max_times)
        return _N_BLOCKS.pack(len(self.first_keys)) + b"".join(column.tobytes() for column in columns)

    @classmethod
    def decode(cls, data: bytes, partition: int) -> Directory:
        """Raises ViewsDamaged."""
        n_blocks = _N_BLOCKS.unpack_from(data)[0] if len(data) >= 4 else -1
        if len(data) != 4 + 24 * n_blocks:
            raise ViewsDamaged(f"a segment's directory of partition {partition} has the wrong length")
        parts = [data[4 + 8 * n_blocks * i : 4 + 8 * n_blocks * (i + 1)] for i in range(3)]
        first_keys = np.frombuffer(parts[0], dtype="<u8")
        return cls(first_keys, np.frombuffer(parts[1], dtype="<i8"), np.frombuffer(parts[2], dtype="<i8"))

    def blocks_of(self, order_keys: NDArray[np.uint64] | None, min_time: int, max_time: int) -> NDArray[np.int64]:
        """Numbers of the blocks that may have samples of these rows (ascending keys; None: all) in the range."""
        whole = min_time <= self._span[0] and self._span[1] <= max_time
        if order_keys is None and whole:
            return np.arange(len(self.first_keys))
        wanted: NDArray[np.bool_] = np.ones(1, dtype=np.bool_)
        if order_keys is not None:
            # Block i has the keys from its first one up to the next block's; is any wanted key among them?
            bounds = order_keys.searchsorted(self._edges)
            wanted = bounds[1:] > bounds[:-1]
        if not whole:
            wanted = wanted & (self.min_times <= max_time) & (self.max_times >= min_time)
        found: NDArray[np.int64] = wanted.nonzero()[0]
        return found


class Segments:
    """Reads and writes segments; keeps directories in memory. Any thread may use it."""

    def __init__(self, disk: Disk) -> None:
        self.disk = disk
        self._directories: dict[tuple[int, int], Directory] = {}
        self._blocks: ByteLru[bytes, bytes] = ByteLru(BLOCKS_BYTES)
        self._lock = threading.Lock()
        # Grows when a partition is forgotten: what was read before is not kept after.
        self._epoch = 0

    def put(
        self,
        batch: Batch,
        partition: int,
        window: int,
        number: int,
        order_keys: NDArray[np.uint64],
        encoded: Sequence[EncodedBlocks],
        n_samples: int,
    ) -> Segment:
        """Add a segment to a batch; `order_keys` are those of all its rows, over all of `encoded`."""
        n_blocks = n_bytes = n_rows = 0
        first_keys = []
        for part in encoded:
            bounds = part.starts.tolist()
            for start, end in pairwise(bounds):
                batch.put(keys.segment_block(partition, window, number, n_blocks), part.data[start:end])
                n_blocks += 1
            n_bytes += bounds[-1]
            first_keys.append(order_keys[n_rows + part.first_rows[:-1]])
            n_rows += int(part.first_rows[-1])
        directory = Directory(
            np.concatenate(first_keys),
            np.concatenate([part.min_times for part in encoded]),
            np.concatenate([part.max_times for part in encoded]),
        )
        batch.put(keys.segment_directory(partition, window, number), directory.encode())
        return Segment(number, n_samples, n_bytes, n_blocks, n_rows)

    def delete(self, batch: Batch, partition: int, window: int, segment: Segment) -> None:
        """Delete a segment with a batch."""
        batch.delete(keys.segment_directory(partition, window, segment.number))
        for block in range(segment.n_blocks):
            batch.delete(keys.segment_block(partition, window, segment.number, block))

    def directory(self, partition: int, window: int, number: int) -> Directory:
        """Raises SegmentGone, ViewsDamaged, DiskError."""
        directory = self._directories.get((partition, number))
        if directory is None:
            epoch = self._epoch
            data = self.disk.get(keys.segment_directory(partition, window, number))
            if data is None:
                raise SegmentGone
            directory = Directory.decode(data, partition)
            with self._lock:
                while len(self._directories) >= MAX_DIRECTORIES:
                    del self._directories[next(iter(self._directories))]
                if epoch == self._epoch:
                    self._directories[partition, number] = directory
        return directory

    def forget(self, partition: int) -> None:
        """Keep nothing of a partition in memory; should it come back, its segments are others."""
        with self._lock:
            self._epoch += 1
            self._directories = {name: one for name, one in self._directories.items() if name[0] != partition}
            first, end = keys.of_partition(keys.SEGMENT_BLOCK, partition)
            self._blocks.drop_if(lambda name: first <= name < end)

    def read(
        self,
        partition: int,
        segments: Sequence[tuple[int, Segment]],
        order_keys: NDArray[np.uint64] | None,
        min_time: int,
        max_time: int,
    ) -> list[bytes]:
        """The blocks of (window, segment) pairs that may have samples of these rows in the range.

        Raises:
            SegmentGone: a segment has been merged or has expired since it was looked up.
        """
        names = []
        for window, segment in segments:
            directory = self.directory(partition, window, segment.number)
            for block in directory.blocks_of(order_keys, min_time, max_time).tolist():
                names.append(keys.segment_block(partition, window, segment.number, block))
        if not names:
            return []
        with self._lock:
            epoch = self._epoch
            found = [self._blocks.get(name) for name in names]
        missing = [i for i, block in enumerate(found) if block is None]
        if missing:
            # The number of a segment is never used again, so a block never changes.
            for i, block in zip(missing, self.disk.get_many([names[i] for i in missing]), strict=True):
                found[i] = block
            with self._lock:
                for i in missing:
                    block = found[i]
                    if block is not None and epoch == self._epoch:
                        self._blocks.put(names[i], block, len(block))
        blocks = [block for block in found if block is not None]
        if len(blocks) < len(found):
            raise SegmentGone
        return blocks
