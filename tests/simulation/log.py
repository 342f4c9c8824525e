"""A simulated log: what a broker and its clients may do to records, short of losing what they acknowledged."""

from __future__ import annotations

import bisect
import random
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from common.errors import LogUnavailable
from common.log.base import Append, Bounds, LogRecord
from common.log.checks import check_positions, check_records

MAX_HELD = 4


@dataclass(slots=True)
class LogPartition:
    """Everything that was ever stored, and where retention has cut it off."""

    offsets: list[int] = field(default_factory=list)
    values: list[bytes] = field(default_factory=list)
    start: int = 0

    @property
    def high_watermark(self) -> int:
        return self.offsets[-1] + 1 if self.offsets else 0


@dataclass(slots=True)
class _Held:
    records: list[Append]
    future: Future[list[int]]
    offsets: list[int] | None = None
    """Where the records are, if they are stored already and only the acknowledgement is missing."""


class SimLog:
    """The broker. While `down` is set nothing can be appended or read."""

    def __init__(self, rng: random.Random, partitions: int, *, gaps: float, faults: float) -> None:
        self.rng = rng
        self.partitions = [LogPartition() for _ in range(partitions)]
        self.down = False
        self.faults = faults
        """Probability that an append fails, which includes that it is stored all the same."""
        self._gaps = gaps
        self._stray: list[Append] = []

    def store(self, partition: int, value: bytes) -> int:
        """Put a record at the end of its partition; returns its offset."""
        log = self.partitions[partition]
        offset = log.high_watermark
        if self.rng.random() < self._gaps:
            offset += self.rng.randint(1, 5)
        log.offsets.append(offset)
        log.values.append(bytes(value))
        return offset

    def maybe_store(self, record: Append) -> None:
        """A record that is never acknowledged: nothing, the record, a torn one, or the record some time later."""
        fate = self.rng.random()
        if fate < 0.3:
            self.store(*record)
        elif fate < 0.5:
            self.store(record.partition, self._torn(record.value))
        elif fate < 0.6:
            self._stray.append(record)

    def store_stray(self) -> None:
        """Let a record turn up that its client has long given up."""
        if self._stray:
            self.store(*self._stray.pop(self.rng.randrange(len(self._stray))))

    def cut(self, partition: int, start: int) -> None:
        """Forget the records below `start`, as the log's retention does."""
        log = self.partitions[partition]
        log.start = max(log.start, min(start, log.high_watermark))

    def _torn(self, value: bytes) -> bytes:
        if self.rng.random() < 0.5:
            return value[: self.rng.randrange(len(value))]
        torn = bytearray(value)
        torn[self.rng.randrange(len(torn))] ^= 1 << self.rng.randrange(8)
        return bytes(torn)


class LogClient:
    """One process' way to the log: `common.log.base.Log`. Nothing in it waits.

    reach: called with the name of each point at which the process may be killed.
    archive: read as if retention had never cut anything off.
    delivered: gives, for each partition, the offsets of what the reader's views were given, ascending; kept here.
    """

    def __init__(
        self,
        log: SimLog,
        *,
        reach: Callable[[str], None] = lambda point: None,
        archive: bool = False,
        delivered: Callable[[], list[list[int]]] = list,
    ) -> None:
        self.log = log
        self.reach = reach
        self._archive = archive
        self._held: deque[_Held] = deque()
        self._delivered = delivered

    @property
    def partitions(self) -> int:
        return len(self.log.partitions)

    @property
    def n_held(self) -> int:
        return len(self._held)

    def append(self, records: Sequence[Append]) -> Future[list[int]]:
        check_records(records, self.partitions)
        rng = self.log.rng
        if len(self._held) >= MAX_HELD or (self.log.down and rng.random() < 0.5):
            raise LogUnavailable("the log's queue is full")
        future: Future[list[int]] = Future()
        future.set_running_or_notify_cancel()
        self._held.append(_Held(list(records), future))
        if len(self._held) == 1 and rng.random() < 0.6:
            self.settle()
        return future

    def settle(self) -> None:
        """Go on with the oldest append: store it, acknowledge it, or fail it."""
        if not self._held:
            return
        rng = self.log.rng
        held = self._held[0]
        if rng.random() < (0.7 if self.log.down else self.log.faults):
            self._held.popleft()
            if held.offsets is None:
                for record in held.records:
                    if not self.log.down:
                        self.log.maybe_store(record)
            held.future.set_exception(LogUnavailable("the broker did not answer"))
        elif not self.log.down:
            if held.offsets is None:
                held.offsets = [self.log.store(*record) for record in held.records]
                if rng.random() < self.log.faults:
                    # A client's retry whose first attempt had been stored.
                    for record in held.records:
                        self.log.store(*record)
                if rng.random() < 0.2:
                    return
            self._held.popleft()
            held.future.set_result(held.offsets)

    def die(self) -> None:
        """The process is gone: what it had under way is stored or not, and nobody learns which."""
        for held in self._held:
            for record in held.records if held.offsets is None else ():
                self.log.maybe_store(record)
        self._held.clear()

    def bounds(self, partition: int) -> Bounds:
        self.reach("log.bounds")
        self._check_up()
        log = self.log.partitions[partition]
        return Bounds(0 if self._archive else log.start, log.high_watermark)

    def reader(self, positions: Mapping[int, int]) -> SimReader:
        check_positions(positions, self.partitions)
        for partition, position in positions.items():
            offsets = self._delivered()[partition]
            del offsets[bisect.bisect_left(offsets, position) :]
        return SimReader(self, dict(positions))

    def close(self) -> None:
        pass

    def _check_up(self) -> None:
        if self.log.down:
            raise LogUnavailable("the broker is down")

    def take(self, partition: int, position: int, limit: int) -> tuple[list[LogRecord], int]:
        """The next records of a partition from a position, and the position after them."""
        log = self.log.partitions[partition]
        start = 0 if self._archive else log.start
        known = self._delivered()[partition]
        first = bisect.bisect_left(log.offsets, max(position, start))
        last = min(first + limit, len(log.offsets))
        if first == last:
            return [], max(position, start)
        given = set(known)
        skipped = [at for at in log.offsets[:first] if at >= start and at not in given]
        assert not skipped, f"records {skipped} of partition {partition} were passed over at {position}"
        known.extend(log.offsets[first:last])
        records = [LogRecord(partition, log.offsets[i], log.values[i]) for i in range(first, last)]
        return records, records[-1].offset + 1


class SimReader:
    """A cursor over some partitions; gives a few records at a time."""

    def __init__(self, client: LogClient, positions: dict[int, int]) -> None:
        self._client = client
        self._positions = positions

    def poll(self, timeout_s: float, max_bytes: int = 32 << 20) -> list[LogRecord]:
        client = self._client
        client.reach("log.poll")
        client._check_up()
        out: list[LogRecord] = []
        rng = client.log.rng
        for partition in sorted(self._positions, key=lambda _: rng.random()):
            records, position = client.take(partition, self._positions[partition], rng.choice((1, 3, 20)))
            self._positions[partition] = position
            out += records
        client.reach("log.polled")
        return out

    def close(self) -> None:
        self._positions.clear()
