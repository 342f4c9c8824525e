"""A disk in memory: the contract of `storage_node.disk`, with crashes and a full device, for tests."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from storage_node.disk import Batch
from storage_node.errors import DiskError


class MemoryDisk:
    """Remembers each batch until the next flush; `crash` goes back to what the first of them left.

    full: while true, writes and flushes raise DiskError and change nothing.
    """

    def __init__(self) -> None:
        self._values: dict[bytes, bytes] = {}
        self._durable: dict[bytes, bytes] = {}
        self._unflushed: list[Batch] = []
        self.full = False
        self.n_batches = 0

    def get(self, key: bytes) -> bytes | None:
        return self._values.get(key)

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        return [self._values.get(key) for key in keys]

    def scan(self, start: bytes, end: bytes) -> Iterator[tuple[bytes, bytes]]:
        return iter([(key, self._values[key]) for key in sorted(self._values) if start <= key < end])

    def write(self, batch: Batch) -> None:
        self._refuse_if_full()
        _apply(self._values, batch)
        self._unflushed.append(batch)
        self.n_batches += 1

    def flush(self) -> None:
        self._refuse_if_full()
        self._durable = dict(self._values)
        self._unflushed.clear()

    def freeze(self) -> MemoryDisk:
        frozen = MemoryDisk()
        frozen._values = dict(self._values)
        return frozen

    def reclaim(self, start: bytes, end: bytes) -> None:
        self.flush()

    def close(self) -> None:
        pass

    @property
    def n_unflushed(self) -> int:
        """Batches that a crash may lose."""
        return len(self._unflushed)

    def crash(self, kept: int = 0) -> None:
        """Lose all unflushed batches but the first `kept`."""
        self._values = dict(self._durable)
        for batch in self._unflushed[:kept]:
            _apply(self._values, batch)
        self.flush()

    def _refuse_if_full(self) -> None:
        if self.full:
            raise DiskError("no space left on device")


def _apply(values: dict[bytes, bytes], batch: Batch) -> None:
    for start, end in batch.ranges:
        for key in [key for key in values if start <= key < end]:
            del values[key]
    for key in batch.deletes:
        values.pop(key, None)
    values.update(batch.puts)
