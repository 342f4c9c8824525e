"""FrozenLog: a local log as it is at the time of opening, readable while another process owns it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path

from common.errors import LogUnavailable
from common.log.base import Append, Bounds, LogRecord
from common.log.local_disk import DiskError, LogDisk


class FrozenLog:
    """The log in `path`, read-only; records that come later are not seen.

    Raises:
        StartupError: there is no log, or it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self._disk = LogDisk(path, None, create=False, read_only=True)
        self.partitions = self._disk.partitions

    def append(self, records: Sequence[Append]) -> Future[list[int]]:
        raise LogUnavailable("the log was opened for reading only")

    def reader(self, positions: Mapping[int, int]) -> FrozenLogReader:
        return FrozenLogReader(self, positions)

    def bounds(self, partition: int) -> Bounds:
        return Bounds(self._disk.start.offsets[partition], self._disk.next_offsets[partition])

    def read(self, partition: int, position: int, max_bytes: int) -> list[LogRecord]:
        """Records from a position on, at least one if there is one."""
        try:
            return self._disk.read(partition, position, self.bounds(partition).high_watermark, max_bytes)
        except DiskError as error:
            # Files that the owner has deleted since the log was opened.
            raise LogUnavailable(f"the log has moved on while it was read ({error}); try again") from None

    def close(self) -> None:
        self._disk.close()


class FrozenLogReader:
    """A cursor; nothing new ever comes, so that it never waits."""

    def __init__(self, log: FrozenLog, positions: Mapping[int, int]) -> None:
        self._log = log
        self._positions = dict(positions)

    def poll(self, timeout_s: float, max_bytes: int = 32 << 20) -> list[LogRecord]:
        for partition, position in self._positions.items():
            records = self._log.read(partition, max(position, self._log.bounds(partition).start), max_bytes)
            if records:
                self._positions[partition] = records[-1].offset + 1
                return records
        return []

    def close(self) -> None:
        """Holds nothing."""
