"""The errors every part of Tabor speaks.

    TaborError
    ├── CallerError            the request is wrong and will be wrong again          (HTTP 4xx)
    ├── RetryableError         the same request may succeed later                    (HTTP 503)
    │   └── LogUnavailable     the log did not take or give records
    ├── CorruptError           bytes do not say what their checksum or format claims
    └── StartupError           a service cannot start; one line says why and what to do

Packages derive their own from these and draw them in their `errors.py`.
"""

from __future__ import annotations


class TaborError(Exception):
    """Root of Tabor's errors."""


class CallerError(TaborError):
    """The request is wrong; sending it again cannot help."""


class RetryableError(TaborError):
    """The same request may succeed later; `retry_after_s` says when to try."""

    def __init__(self, message: str, *, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class LogUnavailable(RetryableError):
    """The log did not take or give records; nothing is known to be stored."""


class CorruptError(TaborError):
    """Bytes from the log or the disk fail their checksum or break their format."""

    def __init__(self, message: str, *, partition: int | None = None, offset: int | None = None) -> None:
        super().__init__(message)
        self.partition = partition
        self.offset = offset


class StartupError(TaborError):
    """A service cannot start; the message is one line that says why and what to do."""
