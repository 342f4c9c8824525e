"""Copies of partitions: all that a node has stored of one, as a stream of keys and values for another node.

    giving:  checkpoint ─► RocksDB snapshot ─► Copies.frames() ─► HTTP
    taking:  HTTP ─► CopyWriter ─► batches on the disk; the partition's meta comes last

A copy is what one checkpoint left, however long it takes, for a snapshot of RocksDB does not change. Whoever was
cut off goes on with the same snapshot behind the last key that it has. Until its meta is there a partition does
not exist on the taking side, so a copy that is never finished is no more than garbage.

The format is `docs/format/copy-api.md`.
"""

from __future__ import annotations

import secrets
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from common.errors import RetryableError
from common.wire.frames import CHUNK_BYTES, Kind, WireError, frame, json_frame
from storage_node import keys
from storage_node.checkpoint import saved_digest_of, saved_offset_of
from storage_node.disk import Batch, Disk, FrozenDisk
from storage_node.errors import NotHeld
from storage_node.views import FORMAT_VERSION, Views

VERSION = 1
MAX_COPIES = 4
"""Snapshots that a node keeps for others at a time; each keeps deleted files from being freed."""
IDLE_S = 60.0
"""After so long without a request a snapshot is given back."""
_LENGTHS = struct.Struct("<II")


class CopyGone(RetryableError):
    """The snapshot that a copy was being made of is no more; the copy begins anew."""


@dataclass(slots=True)
class _Open:
    """A snapshot given to somebody. header: what its stream begins with.

    is_sent: to the end; that the taker has all of it is not known.
    """

    disk: FrozenDisk
    partition: int
    header: dict[str, Any]
    used_s: float
    is_sent: bool = False


class Copies:
    """Gives copies of a node's partitions to others. Any thread may ask.

    views: gives the views as they are now. rate_bytes_per_s: of all copies together.
    """

    def __init__(
        self,
        views: Callable[[], Views],
        rate_bytes_per_s: float,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._views = views
        self._clock = clock
        self._rate = Rate(rate_bytes_per_s, clock)
        self._open: dict[str, _Open] = {}
        self._lock = threading.Lock()

    def begin(self, partition: int) -> str:
        """Freeze a partition as it is now; returns the name of the snapshot.

        Raises:
            NotHeld: the node does not have it. RetryableError: too many copies are being made. DiskError.
        """
        self.expire()
        with self._lock:
            now_s = self._clock()
            if len(self._open) >= MAX_COPIES and not self._drop_sent():
                raise RetryableError(f"{MAX_COPIES} copies are being made already", retry_after_s=5.0)
            views = self._views()
            shard = views.shards.get(partition)
            if shard is None:
                raise NotHeld(partition)
            # What is in RAM only would have to be read from the log again, which may have lost it.
            views.checkpoint(shard, now_s)
            disk = views.disk.freeze()
            is_stored = disk.get(keys.partition_meta(partition)) is not None
            # Of a partition that has never had a record nothing is stored, and that is all of it.
            if views.shards.get(partition) is not shard or (not is_stored and views.saved_offset(partition)):
                raise NotHeld(partition)
            name = secrets.token_hex(8)
            header = {
                "v": VERSION,
                "snapshot": name,
                "partition": partition,
                "format": FORMAT_VERSION,
                "log": views.config.log_identity,
                "retention_ms": views.config.retention_ms,
                # Of the snapshot: the partition may have gone on since.
                "next_offset": saved_offset_of(disk, partition),
                "digest": saved_digest_of(disk, partition),
                # Of the samples, which are most of it: for who wants to know how long it will take.
                "about_bytes": shard.state.size_bytes,
            }
            self._open[name] = _Open(disk, partition, header, now_s)
            return name

    def expire(self) -> None:
        """Give back snapshots that nobody has asked for lately; to be called now and then."""
        with self._lock:
            now_s = self._clock()
            self._open = {name: one for name, one in self._open.items() if now_s - one.used_s < IDLE_S}

    def _drop_sent(self) -> bool:
        """Give up the snapshot that was sent first, if any was. Under the lock."""
        sent = [name for name, one in self._open.items() if one.is_sent]
        if sent:
            del self._open[sent[0]]
        return bool(sent)

    def header(self, name: str) -> dict[str, Any]:
        """What the stream of a snapshot begins with. Raises CopyGone."""
        return self._found(name).header

    def frames(self, name: str, after: bytes) -> Iterator[bytes]:
        """The stream of a snapshot behind a key, b'' for all of it. Raises CopyGone at once, DiskError later."""
        return self._frames(self._found(name), after)

    def pairs(self, name: str) -> Iterator[tuple[bytes, bytes]]:
        """All keys of a snapshot, ascending, and their values; then it is given back. Raises CopyGone at once."""
        return self._paced(name, self._found(name))

    def _found(self, name: str) -> _Open:
        with self._lock:
            found = self._open.get(name)
        if found is None:
            raise CopyGone("this copy has been given up; begin it anew")
        return found

    def _paced(self, name: str, found: _Open) -> Iterator[tuple[bytes, bytes]]:
        size = 0
        try:
            for key, value in _pairs(found.disk, found.partition, b""):
                size += len(key) + len(value)
                if size >= CHUNK_BYTES:
                    found.used_s = self._clock()
                    self._rate.spend(size)
                    size = 0
                yield key, value
        finally:
            with self._lock:
                self._open.pop(name, None)

    def _frames(self, found: _Open, after: bytes) -> Iterator[bytes]:
        yield json_frame(Kind.HEADER, found.header)
        part = bytearray()
        for key, value in _pairs(found.disk, found.partition, after):
            part += _LENGTHS.pack(len(key), len(value))
            part += key
            part += value
            if len(part) >= CHUNK_BYTES:
                found.used_s = self._clock()
                self._rate.spend(len(part))
                yield frame(Kind.PAIRS, bytes(part))
                part.clear()
        if part:
            yield frame(Kind.PAIRS, bytes(part))
        yield frame(Kind.END)
        # The last of it may still get lost on its way.
        found.used_s, found.is_sent = self._clock(), True


class Rate:
    """A token bucket of one second: `spend` sleeps for as long as it was overdrawn."""

    def __init__(self, per_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_s = per_s
        self._clock = clock
        self._left = per_s
        self._at_s = clock()
        self._lock = threading.Lock()

    def spend(self, amount: float) -> None:
        with self._lock:
            now_s = self._clock()
            self._left = min(self._per_s, self._left + (now_s - self._at_s) * self._per_s) - amount
            self._at_s = now_s
            wait_s = max(0.0, -self._left / self._per_s)
        if wait_s:
            time.sleep(wait_s)


def _pairs(disk: FrozenDisk, partition: int, after: bytes) -> Iterator[tuple[bytes, bytes]]:
    for first, end in keys.ranges_of_partition(partition):
        # The key after another one is that one and a zero.
        start = max(first, after + b"\x00") if after else first
        if start < end:
            yield from disk.scan(start, end)


def split_pairs(payload: memoryview) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values of one payload. Raises WireError."""
    at = 0
    while at < len(payload):
        if len(payload) - at < _LENGTHS.size:
            raise WireError("a pair of a copy is cut off")
        key_size, value_size = _LENGTHS.unpack_from(payload, at)
        at += _LENGTHS.size
        if key_size + value_size > len(payload) - at:
            raise WireError("a pair of a copy is cut off")
        yield bytes(payload[at : at + key_size]), bytes(payload[at + key_size : at + key_size + value_size])
        at += key_size + value_size


class CopyWriter:
    """Writes a copy of a partition to the disk. It is to be the only one who writes this partition's keys."""

    def __init__(self, disk: Disk, partition: int) -> None:
        self._disk = disk
        self._partition = partition
        self._meta_key = keys.partition_meta(partition)
        self._meta: bytes | None = None
        self._ranges = keys.ranges_of_partition(partition)
        self.last_key = b""
        self.size_bytes = 0

    def begin(self) -> None:
        """Delete whatever there is of the partition. Raises DiskError."""
        batch = Batch()
        for first, end in self._ranges:
            batch.delete_range(first, end)
        self._disk.write(batch)
        self.last_key, self._meta, self.size_bytes = b"", None, 0

    def add(self, payload: memoryview) -> None:
        """Write a frame's pairs. Raises WireError, DiskError."""
        batch = Batch()
        for key, value in split_pairs(payload):
            if key <= self.last_key or not any(first <= key < end for first, end in self._ranges):
                raise WireError("a key of a copy is of another partition, or out of order")
            self.last_key = key
            self.size_bytes += len(key) + len(value)
            if key == self._meta_key:
                self._meta = value
            else:
                batch.put(key, value)
        self._disk.write(batch)

    def finish(self, *, is_empty: bool = False) -> None:
        """Let the partition exist. Raises WireError, DiskError.

        is_empty: it has never had a record, so that nothing of it is stored.
        """
        if self._meta is None and (self.size_bytes or not is_empty):
            raise WireError("a copy lacks the partition's meta")
        batch = Batch()
        if self._meta is not None:
            batch.put(self._meta_key, self._meta)
        self._disk.write(batch)
        self._disk.flush()
