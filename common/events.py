"""Structured log events: constant names, fields for partition, offset, reason.

structlog costs a tenth of a second to import, which a server that has nothing to say at its start does not pay.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from common import request_ids

_set_up: Callable[[], None] | None = None
_debugs = False


def when_first_used(set_up: Callable[[], None], *, debugs: bool = False) -> None:
    """Have structlog configured by `set_up`, once, before the first event. debugs: such events are wanted."""
    global _set_up, _debugs
    _set_up, _debugs = set_up, debugs


def _of_request(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields with the id of the request that this context works for, if any."""
    request_id = request_ids.current.get()
    return {**fields, "request_id": request_id} if request_id and "request_id" not in fields else fields


class EventLog:
    """A logger that loads structlog with its first event. Events of a request carry its id."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._logger: Any = None

    def debug(self, event: str, **fields: Any) -> None:
        if _debugs:
            self._say("debug", event, fields)

    def info(self, event: str, **fields: Any) -> None:
        self._say("info", event, fields)

    def warning(self, event: str, **fields: Any) -> None:
        self._say("warning", event, fields)

    def error(self, event: str, **fields: Any) -> None:
        self._say("error", event, fields)

    def exception(self, event: str, **fields: Any) -> None:
        """With the traceback of the exception being handled."""
        self._say("exception", event, fields)

    def _say(self, method: str, event: str, fields: dict[str, Any]) -> None:
        # Where the log goes may be full, as the disk that the event is about; the work goes on.
        with contextlib.suppress(OSError):
            getattr(self._load(), method)(event, **_of_request(fields))

    def _load(self) -> Any:
        global _set_up
        if self._logger is None:
            import structlog

            if _set_up is not None:
                _set_up()
                _set_up = None
            self._logger = structlog.get_logger(part=self._name)
        return self._logger
