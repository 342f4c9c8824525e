"""The storage node's own errors.

TaborError
├── RetryableError
│   └── DiskError      RocksDB refused a read or a write (disk full, I/O error); the log still has everything
├── StartupError       the folder belongs to another process, log, format or number of partitions
└── CorruptError       a stored value breaks its format
"""

from __future__ import annotations

from common.errors import RetryableError


class DiskError(RetryableError):
    """RocksDB refused a read or a write; nothing is lost, for the log has it."""


class SegmentGone(Exception):
    """A block that a reader planned on was merged or expired meanwhile; the reader plans again."""
