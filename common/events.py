"""Structured log events: constant names, fields for partition, offset, reason.

structlog costs a tenth of a second to import, which a server that has nothing to say at its start does not pay.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

_set_up: Callable[[], None] | None = None


def when_first_used(set_up: Callable[[], None]) -> None:
    """Have structlog configured by `set_up`, once, before the first event."""
    global _set_up
    _set_up = set_up


class EventLog:
    """A logger that loads structlog with its first event."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._logger: Any = None

    def info(self, event: str, **fields: Any) -> None:
        self._load().info(event, **fields)

    def warning(self, event: str, **fields: Any) -> None:
        self._load().warning(event, **fields)

    def error(self, event: str, **fields: Any) -> None:
        self._load().error(event, **fields)

    def exception(self, event: str, **fields: Any) -> None:
        """With the traceback of the exception being handled."""
        self._load().exception(event, **fields)

    def _load(self) -> Any:
        global _set_up
        if self._logger is None:
            import structlog

            if _set_up is not None:
                _set_up()
                _set_up = None
            self._logger = structlog.get_logger(part=self._name)
        return self._logger
