"""The contract of the control topic: one sequence of keyed records that everybody reads from the start.

Implementations: `common.control.kafka.KafkaControlTopic`, and one in memory for tests.
"""

from __future__ import annotations

from concurrent.futures import Future
from typing import NamedTuple, Protocol


class ControlRecord(NamedTuple):
    """A record; `value` None deletes its key. `time_ms`: when the broker took it, Unix ms."""

    offset: int
    key: str
    value: bytes | None
    time_ms: int


class ControlTopic(Protocol):
    """A compacted topic of one partition: of each key at least the last record stays readable.

    `send` may be called from any thread, the rest by one.
    """

    @property
    def name(self) -> str:
        """For messages."""

    @property
    def position(self) -> int:
        """The offset up to which, exclusively, everything has been given out by `poll`."""

    def send(self, key: str, value: bytes | None) -> Future[int]:
        """Append a record; the future gives its offset once it is durable, or raises LogUnavailable."""

    def end(self) -> int:
        """The offset that the next record will get at the least. Raises LogUnavailable."""

    def poll(self, timeout_s: float) -> list[ControlRecord]:
        """The next records, in order, from the first one there is; empty if none came in time.

        Raises:
            LogUnavailable: the topic cannot be read just now; polling again goes on where it was.
        """

    def close(self) -> None:
        """Deliver what was sent, or give it up after a few seconds, and close. A second call does nothing."""
