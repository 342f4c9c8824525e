"""RocksDB as LocalLog uses it: keys, opening, synced writes, time marks and deletion of prefixes.

Keys, all big-endian so that they sort by number (`docs/decisions/0002-local-log.md`):

    partition u32, offset u64            -> the record
    0xFFFFFFFF, 'f'                      -> JSON: format, Tabor that made it, number of partitions
    0xFFFFFFFF, 's'                      -> what retention has removed: as a mark, of the last one it applied
    0xFFFFFFFF, 'm', mark number u64     -> a mark: arrival time, bytes so far, next offset of every partition

Everything below a mark's offsets arrived no later than the mark says. Not safe for threads: one thread writes,
and LocalLog keeps `reopen` and `close` away from the readers.
"""

from __future__ import annotations

import contextlib
import json
import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.errors import StartupError, TaborError
from common.log.base import LOCAL_PARTITIONS, LogRecord
from common.rocksdb import properties_of
from common.version import VERSION, check_format

# Values below this stay next to their keys; larger ones go to blob files, which compactions do not rewrite.
_MIN_BLOB_BYTES = 512
_BLOB_FILE_BYTES = 64 << 20
_MEMTABLE_BYTES = 16 << 20
# rocksdict holds the GIL while it writes a batch (2.4 ms/MiB measured); larger commits are written in pieces.
_WRITE_BATCH_BYTES = 512 << 10
_PROBE_BYTES = 1 << 20

_KEY = struct.Struct(">IQ")
_META = b"\xff\xff\xff\xff"
_FORMAT_KEY = _META + b"f"
_START_KEY = _META + b"s"
_MARK_PREFIX = _META + b"m"
_MARK_END = _META + b"n"
_MARK_NUMBER = struct.Struct(">Q")
_MARK_HEAD = struct.Struct(">qQ")
_FORMAT = 1
MAX_PARTITIONS = 1 << 16


class DiskError(TaborError):
    """RocksDB or the file system refused; the message is theirs."""


@dataclass(frozen=True, slots=True)
class Mark:
    """A point in the log: all below `offsets` arrived by `time_ms` (Unix ms), `total_bytes` of values in all."""

    time_ms: int
    total_bytes: int
    offsets: tuple[int, ...]

    def encode(self) -> bytes:
        return _MARK_HEAD.pack(self.time_ms, self.total_bytes) + struct.pack(
            f">{len(self.offsets)}Q", *self.offsets
        )

    @classmethod
    def decode(cls, data: bytes) -> Mark:
        count = (len(data) - _MARK_HEAD.size) // 8
        time_ms, total_bytes = _MARK_HEAD.unpack_from(data)
        return cls(time_ms, total_bytes, struct.unpack_from(f">{count}Q", data, _MARK_HEAD.size))


class LogDisk:
    """The log's RocksDB.

    partitions: None takes the number that the folder was made with.
    read_only: also opens a folder that another process has open, as it is at that moment.
    Raises:
        StartupError: the folder cannot be opened or made, is in use, or has another number of partitions.
    """

    def __init__(self, path: Path, partitions: int | None, *, create: bool, read_only: bool = False) -> None:
        self._path = path
        self._read_only = read_only
        if not (path / "CURRENT").exists() and not create:
            raise StartupError(f"there is no log in {path}; give the folder of an existing one")
        try:
            if not read_only:
                path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StartupError(f"cannot make the log's folder {path}: {error.strerror}") from None
        try:
            self._db = self._open()
        except Exception as error:
            if "lock" in str(error).lower():
                raise StartupError(f"the log in {path} is in use by another process; stop it first") from None
            raise StartupError(f"cannot open the log in {path}: {error}") from None
        try:
            self.partitions = self._agree_on_partitions(partitions)
            self._load()
        except BaseException:
            self._db.close()
            raise

    def _open(self) -> Any:
        import rocksdict

        options = rocksdict.Options(raw_mode=True)
        options.create_if_missing(True)
        options.set_compression_type(rocksdict.DBCompressionType.none())
        options.set_enable_blob_files(True)
        options.set_min_blob_size(_MIN_BLOB_BYTES)
        options.set_blob_file_size(_BLOB_FILE_BYTES)
        options.set_write_buffer_size(_MEMTABLE_BYTES)
        options.set_max_background_jobs(2)
        options.set_max_open_files(256)
        options.set_keep_log_file_num(4)
        options.set_max_log_file_size(1 << 20)
        options.set_stats_dump_period_sec(0)
        options.set_stats_persist_period_sec(0)
        if self._read_only:
            access = rocksdict.AccessType.read_only(False)
            return rocksdict.Rdict(str(self._path), options, access_type=access)
        return rocksdict.Rdict(str(self._path), options)

    def _agree_on_partitions(self, wanted: int | None) -> int:
        stored = self._db.get(_FORMAT_KEY)
        if stored is None:
            if wanted is None:
                wanted = LOCAL_PARTITIONS
            if not 1 <= wanted <= MAX_PARTITIONS:
                raise StartupError(f"a log has 1 to {MAX_PARTITIONS} partitions, not {wanted}")
            meta = {"format": _FORMAT, "tabor": VERSION, "partitions": wanted}
            self._db.put(_FORMAT_KEY, json.dumps(meta).encode())
            self._db.flush_wal(True)
            return wanted
        meta = json.loads(stored)
        check_format(
            f"the log in {self._path} has", meta, _FORMAT, "run that version, or choose another --data-dir"
        )
        found = int(meta["partitions"])
        if wanted is not None and wanted != found:
            raise StartupError(
                f"the log in {self._path} has {found} partitions, not {wanted};"
                " their number is fixed when a log is made"
            )
        return found

    def _load(self) -> None:
        """Learn where every partition starts and ends, and how many bytes have ever been written."""
        stored = self._db.get(_START_KEY)
        empty = Mark(0, 0, (0,) * self.partitions)
        self.start = Mark.decode(stored) if stored is not None else empty
        self.next_offsets = [
            max(self._last_offset(partition) + 1, start) for partition, start in enumerate(self.start.offsets)
        ]
        iterator = self._db.iter()
        iterator.seek_for_prev(_MARK_END)
        last = self.start
        self._next_mark = 0
        if iterator.valid() and iterator.key().startswith(_MARK_PREFIX):
            last = Mark.decode(iterator.value())
            self._next_mark = _MARK_NUMBER.unpack_from(iterator.key(), len(_MARK_PREFIX))[0] + 1
        self.last_mark = last
        self.total_bytes = last.total_bytes
        for partition, offset in enumerate(last.offsets):
            while offset < self.next_offsets[partition]:
                records = self.read(partition, offset, self.next_offsets[partition], 4 << 20)
                self.total_bytes += sum(len(record.value) for record in records)
                offset = records[-1].offset + 1 if records else self.next_offsets[partition]

    def _last_offset(self, partition: int) -> int:
        iterator = self._db.iter()
        iterator.seek_for_prev(_KEY.pack(partition, (1 << 64) - 1))
        if not iterator.valid():
            return -1
        found, offset = _KEY.unpack(iterator.key())
        return int(offset) if found == partition else -1

    def begin_at(self, offsets: Sequence[int], time_ms: int) -> None:
        """Let a log that has no records begin at these offsets, as if what is below had been removed.

        Raises:
            DiskError: it has records, or RocksDB refused.
        """
        if any(self.next_offsets) or len(offsets) != self.partitions:
            raise DiskError("only an empty log can be told where to begin")
        try:
            self._db.put(_START_KEY, Mark(time_ms, 0, tuple(offsets)).encode())
            self._db.flush_wal(True)
        except Exception as error:
            raise DiskError(str(error)) from None
        self._load()

    def write(self, records: Sequence[LogRecord]) -> None:
        """Make records durable.

        Raises:
            DiskError: nothing is known about what of them is stored; the log must be reopened.
        """
        import rocksdict

        try:
            batch, size = rocksdict.WriteBatch(raw_mode=True), 0
            for partition, offset, value in records:
                batch.put(_KEY.pack(partition, offset), value)
                size += len(value)
                if size >= _WRITE_BATCH_BYTES:
                    self._db.write(batch)
                    batch, size = rocksdict.WriteBatch(raw_mode=True), 0
            if not batch.is_empty():
                self._db.write(batch)
            # Unlike a synced write, this lets go of the GIL while the disk works.
            self._db.flush_wal(True)
        except Exception as error:
            raise DiskError(str(error)) from None
        self.total_bytes += sum(len(record.value) for record in records)
        for partition, offset, _ in records:
            self.next_offsets[partition] = offset + 1

    def read(self, partition: int, offset: int, end: int, max_bytes: int) -> list[LogRecord]:
        """Records of [offset, end), in order, up to about `max_bytes` but at least one if there is one."""
        out: list[LogRecord] = []
        size = 0
        try:
            for key, value in self._db.items(from_key=_KEY.pack(partition, offset)):
                if len(key) != _KEY.size:
                    break
                found, at = _KEY.unpack(key)
                if found != partition or at >= end or (out and size + len(value) > max_bytes):
                    break
                out.append(LogRecord(partition, at, value))
                size += len(value)
        except Exception as error:
            raise DiskError(str(error)) from None
        return out

    def add_mark(self, time_ms: int) -> None:
        """Note that everything so far arrived by `time_ms`."""
        mark = Mark(max(time_ms, self.last_mark.time_ms), self.total_bytes, tuple(self.next_offsets))
        try:
            self._db.put(_MARK_PREFIX + _MARK_NUMBER.pack(self._next_mark), mark.encode())
        except Exception as error:
            raise DiskError(str(error)) from None
        self._next_mark += 1
        self.last_mark = mark

    def marks(self) -> list[tuple[int, Mark]]:
        """The 64 oldest marks with their numbers, oldest first; retention comes back for more."""
        out: list[tuple[int, Mark]] = []
        try:
            for key, value in self._db.items(from_key=_MARK_PREFIX):
                if not key.startswith(_MARK_PREFIX) or len(out) == 64:
                    break
                out.append((_MARK_NUMBER.unpack_from(key, len(_MARK_PREFIX))[0], Mark.decode(value)))
        except Exception as error:
            raise DiskError(str(error)) from None
        return out

    def remove_below(self, number: int, mark: Mark) -> None:
        """Delete every record below a mark, and give the space back."""
        import rocksdict

        batch = rocksdict.WriteBatch(raw_mode=True)
        for partition, (start, end) in enumerate(zip(self.start.offsets, mark.offsets, strict=True)):
            if start < end:
                batch.delete_range(_KEY.pack(partition, start), _KEY.pack(partition, end))
        batch.delete_range(_MARK_PREFIX, _MARK_PREFIX + _MARK_NUMBER.pack(number + 1))
        batch.put(_START_KEY, mark.encode())
        try:
            self._db.write(batch)
            self._db.flush_wal(True)
            self.start = mark
            # Only keys and references to blob files are rewritten; a blob file goes when nothing refers to it.
            self._db.compact_range(None, None)
        except Exception as error:
            raise DiskError(str(error)) from None

    def probe(self) -> None:
        """Try whether the disk takes data, without touching the database.

        Raises:
            DiskError: it does not.
        """
        probe = self._path / "probe"
        try:
            with probe.open("wb") as file:
                file.write(bytes(_PROBE_BYTES))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise DiskError(str(error)) from None
        finally:
            probe.unlink(missing_ok=True)

    def reopen(self) -> None:
        """Close and open again, after an error: what RocksDB recovers is what is stored.

        Raises:
            DiskError: it cannot be opened, or acknowledged records are missing.
        """
        acknowledged = list(self.next_offsets)
        # Closing reports the error that led here once more, or that an earlier attempt has closed already.
        with contextlib.suppress(Exception):
            self._db.close()
        try:
            self._db = self._open()
            self._load()
        except Exception as error:
            self.next_offsets = acknowledged
            raise DiskError(str(error)) from None
        for partition, (found, known) in enumerate(zip(self.next_offsets, acknowledged, strict=True)):
            if found < known:
                self.next_offsets = acknowledged
                raise DiskError(
                    f"partition {partition} ends at {found} after reopening but {known} was acknowledged"
                )

    def properties(self) -> dict[str, int]:
        """What RocksDB tells of itself; see `common.rocksdb`."""
        return properties_of(self._db)

    def close(self) -> None:
        """Raises DiskError: RocksDB could not write what it wanted to; the folder is released all the same."""
        try:
            self._db.close()
        except Exception as error:
            raise DiskError(str(error)) from None
