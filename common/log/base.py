"""The contract of the log: the one source of truth, as everything else sees it.

A log has a fixed number of partitions. A partition is a sequence of records, each an opaque byte string at an
offset; offsets of one partition grow, possibly with gaps, and are never used twice.

    append(records) ──► future of offsets, resolved when *all* of them are durable
    reader({partition: offset}) ──► poll() ──► records in order of offset within each partition
    bounds(partition) ──► [start, high_watermark)

`tests/conformance/test_log.py` runs against every implementation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import NamedTuple, Protocol

MAX_RECORD_BYTES = 900 * 1024
"""Upper limit of one record, so that a Kafka with default settings (1 MB) takes it."""

DEFAULT_PARTITIONS = 16
"""Partitions of a topic that is made without saying how many: they are to be spread over nodes."""
LOCAL_PARTITIONS = 4
"""The same of a local log: each costs every query a look-up, and one machine has nothing to spread."""


class Append(NamedTuple):
    """A record on its way into the log."""

    partition: int
    value: bytes


class LogRecord(NamedTuple):
    """A record read from the log."""

    partition: int
    offset: int
    value: bytes


class Bounds(NamedTuple):
    """The readable range of a partition, half-open: `start` is the first offset that is still there,
    `high_watermark` the offset that the next record will get at the least."""

    start: int
    high_watermark: int


class LogReader(Protocol):
    """A cursor over some partitions; used by one thread."""

    def poll(self, timeout_s: float, max_bytes: int = 32 << 20) -> list[LogRecord]:
        """Return the next records, at most about `max_bytes` but at least one if there is one.

        Waits up to `timeout_s` for the first. Records of one partition come in order of offset; an empty list
        means that nothing came in time. A position below the partition's start moves to the start.

        Raises:
            LogUnavailable: the log cannot be read just now; polling again goes on where it was.
        """

    def close(self) -> None:
        """Give the cursor's resources back. A second call does nothing."""


class Log(Protocol):
    """A durable, partitioned log. Methods may be called from any thread."""

    @property
    def partitions(self) -> int:
        """Number of partitions; fixed when the log was made."""

    def append(self, records: Sequence[Append]) -> Future[list[int]]:
        """Append records; the future gives their offsets, in order, once every one of them is durable.

        Records of one partition keep the order of the calls. If the future fails, each record may or may not be
        in the log. The future's callbacks must be quick: they run on the log's own thread.

        Raises:
            LogUnavailable: the bounded queue of records under way is full, or the log is closed.
            ValueError: a record is larger than MAX_RECORD_BYTES or its partition does not exist.
        The future raises LogUnavailable.
        """

    def reader(self, positions: Mapping[int, int]) -> LogReader:
        """Open a cursor that starts at the given offset of each given partition."""

    def bounds(self, partition: int) -> Bounds:
        """The readable range now. Every append acknowledged before the call lies below `high_watermark`.

        Raises:
            LogUnavailable: the log cannot be asked just now.
        """

    def close(self) -> None:
        """Wait for records under way, then close. A second call does nothing."""
