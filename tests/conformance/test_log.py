"""What every log promises (`common/log/base.py`), asked of each implementation."""

from __future__ import annotations

import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path

import pytest

from common.errors import LogUnavailable, StartupError
from common.log.base import MAX_RECORD_BYTES, Append, Log, LogReader, LogRecord
from common.log.kafka import KafkaLog
from common.log.local import LocalLog
from tests.memory_log import MemoryLog

PARTITIONS = 3
DEADLINE_S = 30.0


class Durable:
    """A log that can be closed and opened again; `open` gives another handle on the same records."""

    def __init__(self, open_log: Callable[..., Log]) -> None:
        self._open = open_log
        self._opened: list[Log] = []

    def open(self, **options: int) -> Log:
        log = self._open(**options)
        self._opened.append(log)
        return log

    def close_all(self) -> None:
        for log in self._opened:
            log.close()


@pytest.fixture(params=["local", pytest.param("kafka", marks=pytest.mark.kafka)])
def durable(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Durable]:
    if request.param == "local":

        def open_log(**options: int) -> Log:
            return LocalLog(tmp_path / "log", options.pop("partitions", PARTITIONS), **options)  # type: ignore[arg-type]

    else:
        bootstrap = request.getfixturevalue("kafka_broker").bootstrap
        prefix = f"test-{uuid.uuid4().hex}"

        def open_log(**options: int) -> Log:
            return KafkaLog(bootstrap, prefix, options.pop("partitions", PARTITIONS), **options)  # type: ignore[arg-type]

    durable = Durable(open_log)
    yield durable
    durable.close_all()


@pytest.fixture(params=["memory", "local", pytest.param("kafka", marks=pytest.mark.kafka)])
def log(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Log]:
    made: Log
    if request.param == "memory":
        made = MemoryLog(PARTITIONS)
    elif request.param == "local":
        made = LocalLog(tmp_path / "log", PARTITIONS)
    else:
        broker = request.getfixturevalue("kafka_broker")
        made = KafkaLog(broker.bootstrap, f"test-{uuid.uuid4().hex}", PARTITIONS)
    yield made
    made.close()


def read(reader: LogReader, count: int, max_bytes: int = 32 << 20) -> list[LogRecord]:
    """Poll until `count` records have come."""
    deadline = time.monotonic() + DEADLINE_S
    out: list[LogRecord] = []
    while len(out) < count:
        assert time.monotonic() < deadline, f"{len(out)} of {count} records came"
        out += reader.poll(1.0, max_bytes)
    return out


def read_all(log: Log, positions: dict[int, int], count: int) -> list[LogRecord]:
    reader = log.reader(positions)
    try:
        return read(reader, count)
    finally:
        reader.close()


def offsets(future: Future[list[int]]) -> list[int]:
    return future.result(timeout=DEADLINE_S)


def of_partition(records: list[LogRecord], partition: int) -> list[bytes]:
    return [record.value for record in records if record.partition == partition]


def test_a_log_has_the_partitions_it_was_made_with(log: Log) -> None:
    assert log.partitions == PARTITIONS


def test_records_come_back_in_the_order_of_their_offsets_in_each_partition(log: Log) -> None:
    values = [b"record %d" % i for i in range(100)]
    futures = [log.append([Append(i % 2, value)]) for i, value in enumerate(values)]
    given = [offsets(future)[0] for future in futures]
    records = read_all(log, {0: 0, 1: 0, 2: 0}, 100)
    assert of_partition(records, 0) == values[0::2]
    assert of_partition(records, 1) == values[1::2]
    assert [r.offset for r in records if r.partition == 0] == given[0::2] == sorted(set(given[0::2]))


def test_an_append_over_partitions_gets_one_offset_per_record_in_order(log: Log) -> None:
    first = offsets(log.append([Append(2, b"a"), Append(0, b"b"), Append(2, b"c")]))
    second = offsets(log.append([Append(2, b"d")]))
    assert first[0] < first[2] < second[0]
    found = {(r.partition, r.offset): r.value for r in read_all(log, {0: 0, 2: 0}, 4)}
    assert [found[2, first[0]], found[0, first[1]], found[2, first[2]]] == [b"a", b"b", b"c"]


def test_an_append_of_nothing_is_acknowledged(log: Log) -> None:
    assert offsets(log.append([])) == []


@pytest.mark.parametrize("size", [0, 1, 511, 512, MAX_RECORD_BYTES])
def test_a_record_of_any_allowed_size_comes_back_byte_for_byte(log: Log, size: int) -> None:
    value = os.urandom(size)
    offsets(log.append([Append(1, value)]))
    assert read_all(log, {1: 0}, 1)[0].value == value


def test_a_record_over_the_limit_is_refused_before_anything_is_written(log: Log) -> None:
    with pytest.raises(ValueError, match=f"{MAX_RECORD_BYTES + 1} bytes"):
        log.append([Append(0, b"fine"), Append(0, bytes(MAX_RECORD_BYTES + 1))])
    assert log.bounds(0).high_watermark == 0


@pytest.mark.parametrize("partition", [-1, PARTITIONS])
def test_a_partition_that_does_not_exist_is_refused(log: Log, partition: int) -> None:
    with pytest.raises(ValueError, match="does not exist"):
        log.append([Append(partition, b"x")])
    with pytest.raises(ValueError, match="does not exist"):
        log.reader({partition: 0})


def test_every_acknowledged_record_lies_below_the_high_watermark(log: Log) -> None:
    assert log.bounds(0) == (0, 0)
    for _ in range(20):
        offset = offsets(log.append([Append(0, b"x")]))[0]
        bounds = log.bounds(0)
        assert bounds.start <= offset < bounds.high_watermark
    assert log.bounds(1) == (0, 0)


def test_a_reader_starts_at_any_offset(log: Log) -> None:
    given = offsets(log.append([Append(0, b"%d" % i) for i in range(10)]))
    for i in range(10):
        records = read_all(log, {0: given[i]}, 10 - i)
        assert [r.value for r in records] == [b"%d" % k for k in range(i, 10)]


def test_a_reader_reads_only_its_partitions(log: Log) -> None:
    offsets(log.append([Append(0, b"not mine"), Append(1, b"mine")]))
    assert [r.value for r in read_all(log, {1: 0}, 1)] == [b"mine"]


def test_a_poll_with_nothing_to_read_returns_nothing_in_time(log: Log) -> None:
    reader = log.reader({0: 0})
    before = time.monotonic()
    assert reader.poll(0.05) == []
    assert time.monotonic() - before < 5.0
    reader.close()


def test_a_waiting_poll_gets_what_is_appended_meanwhile(log: Log) -> None:
    reader = log.reader({0: log.bounds(0).high_watermark})
    got: list[LogRecord] = []
    thread = threading.Thread(target=lambda: got.extend(read(reader, 1)))
    thread.start()
    offsets(log.append([Append(0, b"news")]))
    thread.join(DEADLINE_S)
    assert [r.value for r in got] == [b"news"]
    reader.close()


def test_a_poll_keeps_to_its_byte_limit_but_gives_at_least_one_record(log: Log) -> None:
    offsets(log.append([Append(p, bytes(1000)) for p in (0, 1) for _ in range(20)]))
    reader = log.reader({0: 0, 1: 0})
    count = 0
    deadline = time.monotonic() + DEADLINE_S
    while count < 40:
        assert time.monotonic() < deadline
        records = reader.poll(1.0, max_bytes=3500)
        assert len(records) <= 4
        count += len(records)
    reader.close()
    reader = log.reader({0: 0})
    assert len(read(reader, 1, max_bytes=1)) == 1
    reader.close()


def test_a_small_byte_limit_does_not_starve_a_partition(log: Log) -> None:
    offsets(log.append([Append(p, bytes(1000)) for p in (0, 1) for _ in range(200)]))
    reader = log.reader({0: 0, 1: 0})
    records = read(reader, 399, max_bytes=1000)
    assert {record.partition for record in records} == {0, 1}
    reader.close()


def test_concurrent_appenders_lose_and_reorder_nothing(log: Log) -> None:
    writers, each = 4, 50
    futures: list[Future[list[int]]] = []

    def write(writer: int) -> None:
        for i in range(each):
            futures.append(log.append([Append(p, b"%d %d" % (writer, i)) for p in range(PARTITIONS)]))

    threads = [threading.Thread(target=write, args=(w,)) for w in range(writers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for future in futures:
        offsets(future)
    records = read_all(log, dict.fromkeys(range(PARTITIONS), 0), writers * each * PARTITIONS)
    for partition in range(PARTITIONS):
        values = [tuple(map(int, v.split())) for v in of_partition(records, partition)]
        for writer in range(writers):
            assert [i for w, i in values if w == writer] == list(range(each))


def test_a_reader_follows_while_others_write(log: Log) -> None:
    reader = log.reader({0: 0})
    seen: list[bytes] = []
    thread = threading.Thread(target=lambda: seen.extend(r.value for r in read(reader, 200)))
    thread.start()
    for i in range(200):
        log.append([Append(0, b"%d" % i)])
    thread.join(DEADLINE_S)
    assert seen == [b"%d" % i for i in range(200)]
    reader.close()


def test_two_readers_do_not_disturb_one_another(log: Log) -> None:
    offsets(log.append([Append(0, b"%d" % i) for i in range(10)]))
    one, two = log.reader({0: 0}), log.reader({0: 5})
    assert len(read(one, 10)) == 10
    assert len(read(two, 5)) == 5
    one.close()
    two.close()
    two.close()


def test_closing_waits_for_what_is_under_way_and_then_refuses(log: Log) -> None:
    futures = [log.append([Append(0, bytes(10_000))]) for _ in range(50)]
    log.close()
    assert all(future.done() and future.exception() is None for future in futures)
    with pytest.raises(LogUnavailable, match="closed"):
        log.append([Append(0, b"x")])
    with pytest.raises(LogUnavailable, match="closed"):
        log.bounds(0)
    log.close()


def test_a_reader_of_a_closed_log_says_so(log: Log) -> None:
    reader = log.reader({0: 0})
    log.close()
    with pytest.raises(LogUnavailable, match="closed"):
        reader.poll(0.1)
    reader.close()


def test_acknowledged_records_and_offsets_survive_reopening(durable: Durable) -> None:
    log = durable.open()
    values = [os.urandom(100 * i) for i in range(50)]
    given = [offsets(log.append([Append(0, value)]))[0] for value in values]
    log.close()
    log = durable.open()
    assert log.bounds(0) == (0, given[-1] + 1)
    assert log.bounds(1) == (0, 0)
    assert [(r.offset, r.value) for r in read_all(log, {0: 0}, 50)] == list(zip(given, values, strict=True))
    assert offsets(log.append([Append(0, b"next")]))[0] > given[-1]


def test_opening_with_another_number_of_partitions_is_an_error_that_names_both(durable: Durable) -> None:
    durable.open().close()
    with pytest.raises(StartupError, match=f"{PARTITIONS} partitions, not {PARTITIONS + 1}"):
        durable.open(partitions=PARTITIONS + 1)


def test_opening_without_a_number_takes_the_partitions_that_are_there(durable: Durable) -> None:
    durable.open().close()
    assert durable.open(partitions=None).partitions == PARTITIONS  # type: ignore[arg-type]


def test_a_log_that_does_not_exist_is_not_made_unless_asked_for(durable: Durable) -> None:
    with pytest.raises(StartupError, match="there is no"):
        durable.open(create=False)


def test_a_full_queue_refuses_at_once_and_takes_records_again_later(durable: Durable) -> None:
    log = durable.open(max_queued_bytes=1 << 20)
    futures: list[Future[list[int]]] = []

    def flood() -> None:
        for _ in range(10_000):
            futures.append(log.append([Append(0, bytes(200_000))]))

    with pytest.raises(LogUnavailable, match="queue is full") as refused:
        flood()
    assert refused.value.retry_after_s > 0
    for future in futures:
        offsets(future)
    offsets(log.append([Append(0, b"room again")]))
