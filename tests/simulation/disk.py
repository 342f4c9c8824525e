"""Folders and disks of a simulated machine.

A folder is a real, empty folder with the number of a simulated disk in it, so that `rename` and `rmtree` act on
simulated disks as they do on RocksDB's folders.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

from storage_node.disk import Batch
from storage_node.errors import DiskError
from tests.memory_disk import MemoryDisk

_NUMBER = "disk"
_really_rename = Path.rename
_really_rmtree = shutil.rmtree


class Crash(BaseException):
    """The simulated process has been killed; nothing in it may catch this."""


class Process(Protocol):
    """What uses a disk: it may be killed at any point that it reaches."""

    name: str
    alive: bool
    disk_full: bool
    read_errors: float

    def reach(self, point: str) -> None:
        """Raises Crash if the process is killed here."""

    def opened(self, disk: SimDisk, before: SimDisk | None) -> None:
        """Called when a disk is opened; `before` is the handle that it had last."""

    def interleave(self) -> None:
        """Do what another thread of the process might do now."""


class SimDisk:
    """A handle of one process on a disk; the disk itself outlives it.

    delivered: offsets of the records of which its views are made, ascending, of each partition.
    """

    def __init__(self, disk: MemoryDisk, process: Process, rng: random.Random) -> None:
        self.disk = disk
        self._process = process
        self._rng = rng
        self.closed = False
        self.delivered: list[list[int]] = []

    def get(self, key: bytes) -> bytes | None:
        return self.get_many([key])[0]

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        self._before_read()
        return self.disk.get_many(keys)

    def scan(self, start: bytes, end: bytes) -> Iterator[tuple[bytes, bytes]]:
        self._before_read()
        yield from self.disk.scan(start, end)

    def write(self, batch: Batch) -> None:
        self._process.reach("disk.write")
        self._before_write()
        self.disk.write(batch)
        self._process.reach("disk.written")

    def flush(self) -> None:
        self._process.reach("disk.flush")
        self._before_write()
        self.disk.flush()
        self._process.reach("disk.flushed")

    def reclaim(self, start: bytes, end: bytes) -> None:
        self.flush()
        self._process.reach("disk.compact")
        self._before_write()

    def close(self) -> None:
        """RocksDB flushes what it can when it closes; the killed process closes nothing."""
        if self.closed or not self._process.alive:
            return
        self.closed = True
        lost = self._process.disk_full or self._rng.random() < 0.3
        self.disk.crash(self._rng.randint(0, self.disk.n_unflushed) if lost else self.disk.n_unflushed)

    def _before_read(self) -> None:
        self._check_open()
        self._process.reach("disk.read")
        if self._rng.random() < self._process.read_errors:
            raise DiskError("input/output error")
        self._process.interleave()
        self._check_open()

    def _before_write(self) -> None:
        self._check_open()
        if self._process.disk_full:
            raise DiskError("no space left on device")

    def _check_open(self) -> None:
        if self.closed:
            raise DiskError("the database is closed")


class Folders:
    """All disks of the machine, and file operations at which the active process may be killed."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self.active: Process | None = None
        self._disks: list[MemoryDisk] = []
        self._handles: dict[int, SimDisk] = {}

    def open(self, folder: Path) -> SimDisk:
        """The disk in a folder; a new one if there is none."""
        process = self.active
        assert process is not None, "a disk was opened by nobody"
        folder.mkdir(parents=True, exist_ok=True)
        process.reach("disk.open")
        number = self.number(folder)
        if number is None:
            number = len(self._disks)
            (folder / _NUMBER).write_text(str(number))
            self._disks.append(MemoryDisk())
        handle = SimDisk(self._disks[number], process, self._rng)
        process.opened(handle, self._handles.get(number))
        self._handles[number] = handle
        return handle

    def number(self, folder: Path) -> int | None:
        """Which disk is in a folder."""
        path = folder / _NUMBER
        return int(path.read_text()) if path.exists() else None

    def lose_unflushed(self, data_dir: Path) -> None:
        """What a crash of its process does to every disk below a folder: batches go, from the last one back."""
        for number in sorted(data_dir.glob(f"*/{_NUMBER}")):
            disk = self._disks[int(number.read_text())]
            disk.crash(self._rng.randint(0, disk.n_unflushed))

    def rename(self, source: Path, target: Path) -> Path:
        process = self.active
        if process is None:
            return _really_rename(source, target)
        process.reach(f"rename.{source.name}.{Path(target).name}")
        done = _really_rename(source, target)
        process.reach(f"renamed.{source.name}.{Path(target).name}")
        return done

    def rmtree(self, folder: Path) -> None:
        process = self.active
        if process is None:
            _really_rmtree(folder)
            return
        process.reach(f"remove.{folder.name}")
        (folder / _NUMBER).unlink(missing_ok=True)
        process.reach(f"removing.{folder.name}")
        _really_rmtree(folder)
        process.reach(f"removed.{folder.name}")
