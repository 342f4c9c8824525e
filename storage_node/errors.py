"""The storage node's own errors.

TaborError
├── RetryableError
│   ├── DiskError      RocksDB refused a read or a write (disk full, I/O error); the log still has everything
│   └── ViewsDamaged   a stored value breaks its format; `tabor replay` builds the views anew
└── StartupError       the folder belongs to another process, log, format or number of partitions
"""

from __future__ import annotations

from common.errors import RetryableError


class DiskError(RetryableError):
    """RocksDB refused a read or a write; nothing is lost, for the log has it."""


class ViewsDamaged(RetryableError):
    """A stored value breaks its format, though RocksDB's checksum holds; the log still has what it was."""


class SegmentGone(Exception):
    """A block that a reader planned on was merged or expired meanwhile; the reader plans again."""
