"""Errors of backups.

TaborError
├── RetryableError
│   └── TargetError     where backups are kept does not take or give something
├── CorruptError
│   └── BackupCorrupt   an object or manifest is missing, or is not what its name and checksum say
└── StartupError        a backup or restore cannot begin
"""

from __future__ import annotations

from common.errors import CorruptError, RetryableError


class TargetError(RetryableError):
    """Where backups are kept does not take or give something; the message names it."""


class BackupCorrupt(CorruptError):
    """Something of a backup is missing, or is not what its name and checksum say; the message names it."""
