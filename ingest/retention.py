"""Retention of tenants: what is too old is deleted by tombstones in the log (`docs/decisions/0075-limits.md`).

A storage node looks at no file and no clock: each replica deletes at the same offset. Whoever takes writes says
what is too old, in steps of four hours. Several that do so say the same; what has gone already goes no further.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future

from common.errors import TaborError
from common.events import EventLog
from common.limits import Limits
from common.store import MIN_TIME_MS, Matcher
from common.tombstones import Tombstone

STEP_MS = 4 * 3600 * 1000
"""A window of storage: deleting a part of one costs as much as deleting it whole."""
LOOK_EVERY_S = 60.0
APPEND_S = 30.0
_log = EventLog("retention")


class TenantRetention:
    """Writes tombstones as time goes on, on a thread of its own.

    delete: puts tombstones into the log. clock: Unix ms.
    """

    def __init__(
        self,
        limits: Limits,
        delete: Callable[[Sequence[Tombstone]], Future[list[int]]],
        clock: Callable[[], int],
        *,
        every_s: float = LOOK_EVERY_S,
    ) -> None:
        self._limits = limits
        self._delete = delete
        self._clock = clock
        self._every_s = every_s
        self._deleted: dict[Matcher, int] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="tenant-retention", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()

    def due(self) -> list[Tombstone]:
        """What is to be deleted now and was not before, by this process."""
        now_ms, found = self._clock(), []
        for matcher, retention_ms in self._limits.table().retentions():
            horizon_ms = (now_ms - retention_ms) // STEP_MS * STEP_MS
            if horizon_ms > self._deleted.get(matcher, MIN_TIME_MS):
                found.append(Tombstone((matcher,), MIN_TIME_MS, horizon_ms - 1))
        return found

    def carry_out(self) -> None:
        """Raises TaborError, TimeoutError: what is left is tried again."""
        due = self.due()
        # One at a time: a request for many tenants would be too long for a record.
        for tombstone in due:
            self._delete([tombstone]).result(APPEND_S)
            self._deleted[tombstone.matchers[0]] = tombstone.max_time_ms + 1
        if due:
            _log.info("tenant_retention", tombstones=len(due))

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self.carry_out()
            except (TaborError, TimeoutError) as error:
                _log.warning("tenant_retention_delayed", reason=str(error) or type(error).__name__)
            self._stop.wait(self._every_s)
