"""The disk as the state machines see it: ordered keys, atomic batches, and a flush.

A batch that was written is visible at once; it survives a crash once a later flush has returned. What survives is
always the result of the first n batches, for some n: never half a batch, never a later one without an earlier.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from common.errors import StartupError
from common.events import EventLog
from common.rocksdb import properties_of
from storage_node.errors import DiskError

_log = EventLog("storage_node")


class Batch:
    """Changes that become visible, and durable, together. Later changes win over earlier ones."""

    __slots__ = ("deletes", "puts", "ranges", "size_bytes")

    def __init__(self) -> None:
        self.ranges: list[tuple[bytes, bytes]] = []
        self.deletes: list[bytes] = []
        self.puts: list[tuple[bytes, bytes]] = []
        self.size_bytes = 0

    def put(self, key: bytes, value: bytes) -> None:
        """Set a key. Within a batch puts come after all deletions."""
        self.puts.append((key, value))
        self.size_bytes += len(key) + len(value)

    def delete(self, key: bytes) -> None:
        self.deletes.append(key)

    def delete_range(self, start: bytes, end: bytes) -> None:
        """Delete all keys in [start, end)."""
        self.ranges.append((start, end))


class FrozenDisk(Protocol):
    """A disk as it was at one moment."""

    def get(self, key: bytes) -> bytes | None:
        """Value of one key."""

    def scan(self, start: bytes, end: bytes) -> Iterator[tuple[bytes, bytes]]:
        """As that of `Disk`."""


class Disk(Protocol):
    """Ordered keys and values. Methods may be called from any thread; all raise DiskError."""

    def get(self, key: bytes) -> bytes | None:
        """Value of one key."""

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Values of many keys, in their order."""

    def scan(self, start: bytes, end: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Keys in [start, end) with their values, ascending. To be run to its end or dropped at once."""

    def write(self, batch: Batch) -> None:
        """Apply a batch atomically; it is visible when this returns, and durable after the next flush."""

    def flush(self) -> None:
        """Return when everything written before the call survives a crash."""

    def freeze(self) -> FrozenDisk:
        """The disk as it is now, whatever is written later; what it keeps is freed when it is let go."""

    def reclaim(self, start: bytes, end: bytes) -> None:
        """Give the space of deleted keys in [start, end) back to the file system; may take a while."""

    def close(self) -> None:
        """Release the folder; what was not flushed may be lost. A second call does nothing."""


class Subtree:
    """The keys of a disk that start with a prefix, without that prefix; reading only."""

    def __init__(self, disk: Disk, prefix: bytes) -> None:
        self._disk = disk
        self._prefix = prefix

    def get(self, key: bytes) -> bytes | None:
        return self._disk.get(self._prefix + key)

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        return self._disk.get_many([self._prefix + key for key in keys])

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        start = self._prefix + prefix
        for key, value in self._disk.scan(start, end_of(start)):
            yield key[len(self._prefix) :], value


def end_of(prefix: bytes) -> bytes:
    """The first key after all that start with the prefix, whose last byte is not 255 throughout."""
    head = prefix.rstrip(b"\xff")
    assert head, "no key is after these"
    return head[:-1] + bytes([head[-1] + 1])


_WRITE_BUFFER_BYTES = 16 << 20
_WRITE_BUFFERS = 3
_BLOB_FROM_BYTES = 1 << 10
_BLOB_FILE_BYTES = 64 << 20
_GARBAGE_THRESHOLD = 0.5
_CACHE_BYTES = 8 << 20


class RocksDisk:
    """RocksDB in a folder: one column family, no write-ahead log, big values in blob files.

    Blocks of samples are written once into blob files, so that compaction moves only their keys. Everything is in
    one column family and every batch in one memtable, hence what a crash leaves is a prefix of the batches.

    Raises:
        StartupError: the folder cannot be opened, or another process has it open.
    """

    def __init__(self, folder: Path, *, write_buffer_bytes: int = _WRITE_BUFFER_BYTES) -> None:
        from rocksdict import CompactOptions, Rdict, WriteOptions

        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._db: Any = Rdict(str(folder), _options(write_buffer_bytes))
        except Exception as error:  # rocksdict raises bare Exception
            raise StartupError(_why_not_opened(folder, error)) from error
        self._write_options = WriteOptions()
        self._write_options.disable_wal = True
        self._compact_options = CompactOptions()

    def get(self, key: bytes) -> bytes | None:
        return self.get_many([key])[0]

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        try:
            values: list[bytes | None] = self._db.get(list(keys))
        except Exception as error:
            raise DiskError(_why_not_read(error)) from error
        return values

    def scan(self, start: bytes, end: bytes) -> Iterator[tuple[bytes, bytes]]:
        from rocksdict import ReadOptions

        options = ReadOptions()
        options.set_iterate_upper_bound(end)
        try:
            yield from self._db.items(from_key=start, read_opt=options)
        except Exception as error:
            raise DiskError(_why_not_read(error)) from error

    def write(self, batch: Batch) -> None:
        from rocksdict import WriteBatch

        changes = WriteBatch(raw_mode=True)
        for start, end in batch.ranges:
            changes.delete_range(start, end)
        for key in batch.deletes:
            changes.delete(key)
        for key, value in batch.puts:
            changes.put(key, value)
        try:
            self._db.write(changes, self._write_options)
        except Exception as error:
            raise DiskError(f"RocksDB cannot write: {error}") from error

    def flush(self) -> None:
        try:
            self._db.flush()
        except Exception as error:
            raise DiskError(f"RocksDB cannot flush: {error}") from error

    def freeze(self) -> FrozenDisk:
        try:
            return _RocksSnapshot(self._db.snapshot())
        except Exception as error:
            raise DiskError(_why_not_read(error)) from error

    def reclaim(self, start: bytes, end: bytes) -> None:
        self.flush()
        try:
            self._db.compact_range(start, end, self._compact_options)
        except Exception as error:
            raise DiskError(f"RocksDB cannot compact: {error}") from error

    def properties(self) -> dict[str, int]:
        """What RocksDB tells of itself; see `common.rocksdb`."""
        return properties_of(self._db)

    def close(self) -> None:
        try:
            self._db.close()
        except Exception as error:  # rocksdict flushes first; where that fails it closes all the same
            _log.warning("closed_without_flush", reason=str(error))


class _RocksSnapshot:
    def __init__(self, snapshot: Any) -> None:
        self._snapshot = snapshot

    def get(self, key: bytes) -> bytes | None:
        return next((value for found, value in self.scan(key, key + b"\x00") if found == key), None)

    def scan(self, start: bytes, end: bytes) -> Iterator[tuple[bytes, bytes]]:
        from rocksdict import ReadOptions

        options = ReadOptions()
        options.set_iterate_upper_bound(end)
        options.fill_cache(False)
        try:
            yield from self._snapshot.items(from_key=start, read_opt=options)
        except Exception as error:
            raise DiskError(_why_not_read(error)) from error


def _options(write_buffer_bytes: int) -> Any:
    from rocksdict import BlockBasedOptions, Cache, DBCompressionType, Options

    options = Options(raw_mode=True)
    options.create_if_missing(True)
    options.set_compression_type(DBCompressionType.none())
    options.set_write_buffer_size(write_buffer_bytes)
    options.set_max_write_buffer_number(_WRITE_BUFFERS)
    options.set_max_background_jobs(2)
    options.set_enable_blob_files(True)
    options.set_min_blob_size(_BLOB_FROM_BYTES)
    options.set_blob_file_size(_BLOB_FILE_BYTES)
    options.set_enable_blob_gc(True)
    # A file of which half is garbage is rewritten, whatever its age.
    options.set_blob_gc_age_cutoff(1.0)
    options.set_blob_gc_force_threshold(_GARBAGE_THRESHOLD)
    options.set_max_open_files(512)
    options.set_keep_log_file_num(2)
    options.set_max_log_file_size(1 << 20)
    tables = BlockBasedOptions()
    tables.set_block_cache(Cache(_CACHE_BYTES))
    tables.set_block_size(4096)
    options.set_block_based_table_factory(tables)
    return options


def _why_not_read(error: Exception) -> str:
    text = str(error)
    if "borrowed" in text or "already closed" in text:
        # rocksdict's words for a handle that is being closed in another thread.
        return "RocksDB is being opened anew; ask again"
    return f"RocksDB cannot read: {text}"


def _why_not_opened(folder: Path, error: Exception) -> str:
    text = str(error)
    if "LOCK" in text or "lock" in text:
        return f"the data folder {folder} is in use by another process; stop it, or choose another --data-dir"
    return f"the data folder {folder} cannot be opened: {text}"
