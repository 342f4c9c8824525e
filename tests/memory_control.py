"""A control topic in memory, shared by any number of readers."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future

from common.control.base import ControlRecord
from common.errors import LogUnavailable


class Broker:
    """Holds the records. `away` makes every call fail. clock_ms: the time it gives to records."""

    def __init__(self, clock_ms: Callable[[], int] = lambda: 0) -> None:
        self.records: list[ControlRecord] = []
        self.away = False
        self.clock_ms = clock_ms
        self.changed = threading.Condition()

    def append(self, key: str, value: bytes | None) -> int:
        with self.changed:
            offset = len(self.records)
            self.records.append(ControlRecord(offset, key, value, self.clock_ms()))
            self.changed.notify_all()
            return offset

    def topic(self) -> MemoryControlTopic:
        return MemoryControlTopic(self)


class MemoryControlTopic:
    """See `common.control.base.ControlTopic`."""

    name = "memory.control"

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self.position = 0

    def send(self, key: str, value: bytes | None) -> Future[int]:
        future: Future[int] = Future()
        if self._broker.away:
            future.set_exception(LogUnavailable("away"))
        else:
            future.set_result(self._broker.append(key, value))
        return future

    def end(self) -> int:
        self._check()
        return len(self._broker.records)

    def poll(self, timeout_s: float) -> list[ControlRecord]:
        self._check()
        with self._broker.changed:
            self._broker.changed.wait_for(lambda: len(self._broker.records) > self.position, timeout_s)
            found = self._broker.records[self.position :]
        self.position += len(found)
        return found

    def close(self) -> None:
        pass

    def _check(self) -> None:
        if self._broker.away:
            raise LogUnavailable("away")
