"""The storage node's own errors.

TaborError
├── RetryableError
│   ├── NotHeld        a read wants a partition that this node does not hold; another node does
│   ├── DiskError      RocksDB refused a read or a write (disk full, I/O error); the log still has everything
│   └── ViewsDamaged   a stored value breaks its format; `tabor replay` builds the views anew
└── StartupError       the folder belongs to another process, log, format or number of partitions
"""

from __future__ import annotations

from common.errors import RetryableError


class NotHeld(RetryableError):
    """A read wants a partition that this node does not hold, or holds no more."""

    def __init__(self, partition: int) -> None:
        super().__init__(f"this node does not hold partition {partition}")
        self.partition = partition


class DiskError(RetryableError):
    """RocksDB refused a read or a write; nothing is lost, for the log has it."""


class ViewsDamaged(RetryableError):
    """A stored value breaks its format, though RocksDB's checksum holds; the log still has what it was."""


class SegmentGone(Exception):
    """A block that a reader planned on was merged or expired meanwhile; the reader plans again."""
