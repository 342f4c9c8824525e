"""The ingestor over a log in memory: what gets into the log, when, and what is answered."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from common.errors import LogUnavailable
from common.log.base import MAX_RECORD_BYTES
from ingest.config import IngestConfig
from ingest.errors import BadRequest, BodyTooLarge, NotAccepting, QueueFull
from ingest.ingestor import Ingestor
from tests.memory_log import MemoryLog
from tests.oracles import remote_write as oracle
from tests.unit.ingest.logs import batches_of, bits, key_of, n_declared, own_metrics, samples_of

UP = {"__name__": "up", "job": "node"}
STALE = 0x7FF0000000000002
HOUR_MS = 3_600_000


class Clock:
    """Unix ms, moved by hand."""

    def __init__(self) -> None:
        self.now_ms = 1_700_000_000_000

    def __call__(self) -> int:
        return self.now_ms


Make = Callable[..., Ingestor]


@pytest.fixture
def log() -> MemoryLog:
    return MemoryLog(4)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def make(log: MemoryLog, clock: Clock) -> Iterator[Make]:
    made: list[Ingestor] = []

    def make(*, gate: Callable[[], str | None] | None = None, **config: float) -> Ingestor:
        ingestor = Ingestor(log, IngestConfig(**config), clock=clock, gate=gate, metrics=own_metrics())
        ingestor.start()
        made.append(ingestor)
        return ingestor

    yield make
    log.release()
    for ingestor in made:
        assert ingestor.close(5.0)


def body(*series: tuple[dict[str, str], list[tuple[int, float]]]) -> bytes:
    return oracle.snappy(oracle.request(list(series)))


def write(ingestor: Ingestor, data: bytes):
    return ingestor.submit(data).result(60.0)


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60.0
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        threading.Event().wait(0.001)


def test_an_acknowledged_write_is_in_the_log_with_its_labels(make: Make, log: MemoryLog) -> None:
    ingestor = make()
    outcome = write(ingestor, body((UP, [(1, 1.0), (2, 0.5)]), ({"__name__": "x", "é": "ü"}, [(-3, -0.0)])))
    assert (outcome.n_samples, outcome.n_created, outcome.refusal) == (3, 2, None)
    got = samples_of(log)
    assert got == {key_of(UP): [(1, 1.0), (2, 0.5)], key_of({"__name__": "x", "é": "ü"}): [(-3, -0.0)]}


def test_values_keep_their_bits(make: Make, log: MemoryLog) -> None:
    ingestor = make()
    patterns = [STALE, bits(float("nan")), 0xFFF8000000000001, 1 << 63, bits(float("-inf")), 1]
    data = oracle.series_field([(b"__name__", b"up")], [(i, pattern) for i, pattern in enumerate(patterns)])
    write(ingestor, oracle.snappy(data))
    values = np.concatenate([batch.values for _, batch in batches_of(log)])
    assert values.view(np.uint64).tolist() == patterns


def test_a_series_is_declared_once_it_is_acknowledged_and_not_again(make: Make, log: MemoryLog) -> None:
    ingestor = make()
    for time_ms in range(5):
        write(ingestor, body((UP, [(time_ms, 1.0)])))
    assert n_declared(log) == 1
    assert samples_of(log) == {key_of(UP): [(time_ms, 1.0) for time_ms in range(5)]}


def test_a_series_is_declared_in_every_record_until_one_is_acknowledged(make: Make, log: MemoryLog) -> None:
    ingestor = make(linger_s=0.0)
    log.hold()
    futures = []
    for time_ms in range(3):
        futures.append(ingestor.submit(body((UP, [(time_ms, 1.0)]))))
        wait_until(lambda: len(log._held) == len(futures))
    assert not any(future.done() for future in futures)
    log.release()
    for future in futures:
        future.result(60.0)
    assert n_declared(log) == 3
    write(ingestor, body((UP, [(9, 1.0)])))
    assert n_declared(log) == 3


def test_a_failed_append_fails_its_requests_and_leaves_their_series_undeclared(make: Make, log: MemoryLog) -> None:
    ingestor = make()
    log.hold()
    future = ingestor.submit(body((UP, [(1, 1.0)])))
    wait_until(lambda: bool(log._held))
    log.fail("the disk is on fire")
    with pytest.raises(LogUnavailable, match="on fire"):
        future.result(60.0)
    write(ingestor, body((UP, [(2, 2.0)])))
    assert samples_of(log) == {key_of(UP): [(2, 2.0)]}
    assert ingestor.metrics.lost_samples._value.get() == 1


def test_a_log_that_takes_no_more_fails_the_request(make: Make, log: MemoryLog) -> None:
    ingestor = make()
    log.close()
    with pytest.raises(LogUnavailable, match="closed"):
        write(ingestor, body((UP, [(1, 1.0)])))


def test_series_are_declared_again_within_the_hour_but_not_all_at_one_instant(
    make: Make, log: MemoryLog, clock: Clock
) -> None:
    ingestor = make()
    request = body(*(({"__name__": "m", "i": str(i)}, [(1, 1.0)]) for i in range(400)))
    write(ingestor, request)
    counts = []
    for quarter in range(1, 9):
        clock.now_ms += HOUR_MS // 8
        before = n_declared(log)
        write(ingestor, request)
        counts.append(n_declared(log) - before)
        assert quarter > 5 or counts[-1] == 0
    assert sum(counts) == 400
    assert 100 < counts[6] < 300


def test_series_are_declared_again_when_the_clock_is_set_back(make: Make, log: MemoryLog, clock: Clock) -> None:
    ingestor = make()
    write(ingestor, body((UP, [(1, 1.0)])))
    clock.now_ms -= 48 * HOUR_MS
    write(ingestor, body((UP, [(2, 1.0)])))
    assert n_declared(log) == 2


def test_refs_are_dense_in_each_partition(make: Make, log: MemoryLog) -> None:
    ingestor = make()
    for start in range(0, 300, 100):
        write(ingestor, body(*(({"__name__": "m", "i": str(i)}, [(1, 1.0)]) for i in range(start, start + 100))))
    refs: dict[int, list[int]] = {}
    for partition, batch in batches_of(log):
        refs.setdefault(partition, []).extend(batch.declared_refs.tolist())
    assert sum(map(len, refs.values())) == 300
    assert all(sorted(each) == list(range(len(each))) for each in refs.values())


def test_requests_that_come_while_the_log_is_busy_share_records(make: Make, log: MemoryLog) -> None:
    ingestor = make(max_groups_in_flight=1)
    log.hold()
    first = ingestor.submit(body((UP, [(0, 1.0)])))
    wait_until(lambda: len(log._held) == 1)
    futures = [ingestor.submit(body((UP, [(i, 1.0)]))) for i in range(1, 50)]
    log.release()
    for future in [first, *futures]:
        future.result(60.0)
    assert len(batches_of(log)) == 2
    assert samples_of(log) == {key_of(UP): [(i, 1.0) for i in range(50)]}


def test_a_bad_request_in_a_group_does_not_touch_the_others(make: Make, log: MemoryLog) -> None:
    ingestor = make(max_groups_in_flight=1)
    log.hold()
    futures = [ingestor.submit(body((UP, [(0, 1.0)])))]
    wait_until(lambda: len(log._held) == 1)
    futures.append(ingestor.submit(body((UP, [(1, 1.0)]))))
    bad = ingestor.submit(oracle.snappy(oracle.request([(UP, [(7, 7.0)])])[:-1]))
    futures.append(ingestor.submit(body((UP, [(2, 1.0)]))))
    log.release()
    with pytest.raises(BadRequest, match="truncated"):
        bad.result(60.0)
    for future in futures:
        future.result(60.0)
    assert samples_of(log) == {key_of(UP): [(i, 1.0) for i in range(3)]}


def test_writes_from_many_threads_all_arrive(make: Make, log: MemoryLog) -> None:
    ingestor = make()

    def send(worker: int) -> None:
        for i in range(20):
            write(ingestor, body(({"__name__": "m", "worker": str(worker), "i": str(i % 3)}, [(i, float(i))])))

    threads = [threading.Thread(target=send, args=(worker,)) for worker in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    got = samples_of(log)
    assert len(got) == 24
    for labels, samples in got.items():
        assert samples == [(i, float(i)) for i in range(20) if i % 3 == int(dict(labels)["i"])]


def test_a_bad_series_does_not_lose_the_good_ones(make: Make, log: MemoryLog) -> None:
    ingestor = make()
    data = (
        oracle.request([(UP, [(1, 1.0)])])
        + oracle.series_field([(b"__name__", b"bad"), (b"b", b"1"), (b"a", b"2")], [(1, bits(1.0))])
        + oracle.series_field([(b"job", b"nameless")], [(1, bits(1.0))])
        + oracle.request([({"__name__": "last"}, [(5, 5.0)])])
    )
    for _ in range(2):
        refusal = write(ingestor, oracle.snappy(data)).refusal
        assert refusal is not None
        assert (refusal.status, refusal.n_series) == (400, 2)
        assert '{__name__="bad", b="1", a="2"}: its label names are not sorted; 2 series' in refusal.message
    assert samples_of(log) == {
        key_of(UP): [(1, 1.0)] * 2,
        key_of({"__name__": "last"}): [(5, 5.0)] * 2,
    }
    assert ingestor.metrics.series_refused.labels("unsorted_labels")._value.get() == 2


@pytest.mark.parametrize(
    ("labels", "reason", "status"),
    [
        ([(b"job", b"x")], "it has no metric name", 400),
        ([(b"__name__", b""), (b"job", b"x")], "it has no metric name", 400),
        ([(b"", b"x"), (b"__name__", b"m")], "a label name is empty", 400),
        ([(b"__name__", b"m"), (b"a", b"1"), (b"a", b"2")], "a label name occurs twice", 400),
        ([(b"a", b"1"), (b"__name__", b"m")], "not sorted", 400),
        ([(b"__name__", b"m"), (b"\xff", b"1")], "UTF-8", 400),
        ([(b"__name__", b"m"), (b"a", b"\xed\xa0\x80")], "UTF-8", 400),
        ([(b"__name__", b"m"), (b"n" * 33, b"1")], "more than 32 bytes (max_label_name_bytes)", 422),
        ([(b"__name__", b"m"), (b"n", b"v" * 65)], "more than 64 bytes (max_label_value_bytes)", 422),
        (
            [(b"__name__", b"m")] + [(b"l%d" % i, b"v") for i in range(8)],
            "more than 8 labels (max_labels_per_series)",
            422,
        ),
        ([(b"__name__", b"m")] + [(b"l%04d" % i, b"v" * 60) for i in range(1000)], "more than 65536 bytes", 422),
    ],
)
def test_a_series_is_refused_with_the_reason(
    make: Make, log: MemoryLog, labels: list[tuple[bytes, bytes]], reason: str, status: int
) -> None:
    ingestor = make(max_labels_per_series=8, max_label_name_bytes=32, max_label_value_bytes=64)
    outcome = write(ingestor, oracle.snappy(oracle.series_field(labels, [(1, 1)])))
    assert outcome.n_samples == 0
    assert outcome.refusal is not None
    assert outcome.refusal.status == status
    assert reason in outcome.refusal.message
    assert not batches_of(log)


def test_a_bad_histogram_is_refused_by_name_and_floats_are_stored(make: Make, log: MemoryLog) -> None:
    ingestor = make()
    data = oracle.delimited(1, oracle.label_field(b"__name__", b"latency") + oracle.delimited(4, b"\x08\x01"))
    refusal = write(ingestor, oracle.snappy(data + oracle.request([(UP, [(1, 1.0)])]))).refusal
    assert refusal is not None
    assert refusal.status == 400
    assert '{__name__="latency"}: a histogram\'s count is not the sum' in refusal.message
    assert samples_of(log) == {key_of(UP): [(1, 1.0)]}


@pytest.mark.parametrize("data", [b"", oracle.delimited(3, b"\x08\x01"), oracle.delimited(1, b"")])
def test_a_request_without_samples_writes_nothing(make: Make, log: MemoryLog, data: bytes) -> None:
    write(make(), oracle.snappy(data))
    assert not batches_of(log)


def test_labels_with_empty_values_are_the_same_as_none(make: Make, log: MemoryLog) -> None:
    ingestor = make()
    write(ingestor, body((UP, [(1, 1.0)])))
    write(ingestor, body((UP | {"zone": ""}, [(2, 2.0)])))
    assert samples_of(log) == {key_of(UP): [(1, 1.0), (2, 2.0)]}


@pytest.mark.parametrize(
    "data",
    [b"", b"\xff\xff\xff\xff\xff\xff", b"\x05\x00a", b"\x80", b"\x00\x00", oracle.snappy(b"a" * 100)[:-1]],
)
def test_what_is_not_snappy_is_refused(make: Make, data: bytes) -> None:
    with pytest.raises(BadRequest, match="snappy"):
        write(make(), data)


def test_a_body_that_claims_more_than_the_limit_is_refused_before_it_is_decompressed(make: Make) -> None:
    ingestor = make(max_body_bytes=1000)
    write(ingestor, oracle.snappy(oracle.delimited(3, bytes(997 - 1))))
    with pytest.raises(BodyTooLarge, match=r"1001 bytes.*at most 1000.*--max-body-bytes"):
        write(ingestor, oracle.snappy(bytes(1001)))
    with pytest.raises(BodyTooLarge, match="4294967295 bytes"):
        write(ingestor, b"\xff\xff\xff\xff\x0f")


def test_requests_have_limits_of_series_and_samples(make: Make, log: MemoryLog) -> None:
    ingestor = make(max_series_per_request=2, max_samples_per_request=4)
    with pytest.raises(BodyTooLarge, match="more than 2 series"):
        write(ingestor, body(*(({"__name__": f"m{i}"}, [(1, 1.0)]) for i in range(3))))
    with pytest.raises(BodyTooLarge, match="more than 4 samples"):
        write(ingestor, body((UP, [(i, 1.0) for i in range(5)])))
    assert not batches_of(log)


def test_new_series_beyond_the_limit_are_refused_and_known_ones_stored(make: Make, log: MemoryLog) -> None:
    ingestor = make(max_active_series=3)
    outcome = write(ingestor, body(*(({"__name__": f"m{i}"}, [(1, 1.0)]) for i in range(5))))
    assert outcome.refusal is not None
    assert (outcome.refusal.status, outcome.refusal.n_series, outcome.n_samples) == (429, 2, 3)
    assert '{__name__="m3"}: there are 3 active series already (--max-active-series)' in outcome.refusal.message
    assert write(ingestor, body(({"__name__": "m1"}, [(2, 1.0)]))).refusal is None
    assert len(samples_of(log)) == 3


def test_idle_series_make_room_for_new_ones(make: Make, log: MemoryLog, clock: Clock) -> None:
    ingestor = make(max_active_series=100, series_idle_s=3600.0)
    names = [f"m{i}" for i in range(100)]
    write(ingestor, body(*(({"__name__": name}, [(0, 0.0)]) for name in names)))
    for minute in range(1, 181):
        clock.now_ms += 60_000
        write(ingestor, body(*(({"__name__": name}, [(minute, 1.0)]) for name in names[:50])))
    outcome = write(ingestor, body(*(({"__name__": f"new{i}"}, [(1, 1.0)]) for i in range(50))))
    assert outcome.refusal is None
    write(ingestor, body(({"__name__": "m7"}, [(1000, 2.0)])))
    got = samples_of(log)
    assert len(got) == 150
    assert got[key_of({"__name__": "m7"})][-2:] == [(180, 1.0), (1000, 2.0)]
    assert len({batch.producer_id for _, batch in batches_of(log)}) == 2


def test_a_full_queue_refuses_and_recovers(make: Make, log: MemoryLog) -> None:
    ingestor = make(max_queued_requests=5, max_groups_in_flight=1, max_group_samples=1)
    log.hold()
    data = body((UP, [(1, 1.0)]))
    taken = [ingestor.submit(data)]
    wait_until(lambda: len(log._held) == 1)

    def submit_on() -> None:
        while len(taken) < 20:
            taken.append(ingestor.submit(data))

    with pytest.raises(QueueFull):
        submit_on()
    assert 5 <= len(taken) - 1 <= 6
    log.release()
    for future in taken:
        future.result(60.0)
    write(ingestor, data)
    assert len(samples_of(log)[key_of(UP)]) == len(taken) + 1


def test_a_closed_gate_refuses_with_its_reason(make: Make) -> None:
    reasons: list[str | None] = ["the disk of the storage node is full", None]
    ingestor = make(gate=lambda: reasons.pop(0))
    with pytest.raises(NotAccepting, match="disk of the storage node is full"):
        ingestor.submit(body((UP, [(1, 1.0)])))
    write(ingestor, body((UP, [(1, 1.0)])))


def test_closing_finishes_what_is_under_way_and_takes_no_more(make: Make, log: MemoryLog) -> None:
    ingestor = make(max_groups_in_flight=1)
    log.hold()
    futures = [ingestor.submit(body((UP, [(i, 1.0)]))) for i in range(5)]
    wait_until(lambda: len(log._held) == 1)
    closer = threading.Thread(target=ingestor.close, args=(10.0,))
    closer.start()
    wait_until(lambda: ingestor._committer._closing)
    with pytest.raises(LogUnavailable, match="closing"):
        ingestor.submit(body((UP, [(9, 1.0)])))
    log.release()
    closer.join()
    assert all(future.result(0.0).n_samples == 1 for future in futures)


def test_closing_over_a_stuck_log_ends_in_time_and_fails_what_waits(log: MemoryLog, clock: Clock) -> None:
    config = IngestConfig(max_groups_in_flight=1, max_group_samples=1)
    ingestor = Ingestor(log, config, clock=clock, metrics=own_metrics())
    ingestor.start()
    log.hold()
    futures = [ingestor.submit(body((UP, [(i, 1.0)]))) for i in range(4)]
    wait_until(lambda: len(log._held) == 1)
    assert not ingestor.close(0.05)
    with pytest.raises(LogUnavailable, match="closed before"):
        futures[-1].result(1.0)
    log.release()
    futures[0].result(60.0)


def test_a_huge_request_becomes_records_that_fit(make: Make, log: MemoryLog) -> None:
    ingestor = make()
    rng = np.random.default_rng(7)
    noise = rng.integers(0, 1 << 62, 120_000).tolist()
    times = rng.integers(-(1 << 62), 1 << 62, 120_000).tolist()
    data = oracle.series_field([(b"__name__", b"noise")], list(zip(times, noise, strict=True)))
    assert write(ingestor, oracle.snappy(data)).n_samples == 120_000
    held = [record for records in log._records for record in records]
    assert len(held) > 1
    assert max(map(len, held)) <= MAX_RECORD_BYTES
    (samples,) = samples_of(log).values()
    assert [time for time, _ in samples] == times
    assert np.array([value for _, value in samples]).view(np.uint64).tolist() == noise


def test_many_large_declarations_become_records_that_fit(log: MemoryLog, make: Make) -> None:
    ingestor = make()
    rng = np.random.default_rng(8)
    series = []
    for i in range(300):
        wide = {f"l{j}": rng.bytes(8000).hex()[:16_000] for j in range(3)}
        series.append(({"__name__": "wide", "i": str(i), **wide}, [(i, float(i))]))
    assert write(ingestor, body(*series)).n_samples == 300
    held = [record for records in log._records for record in records]
    assert max(map(len, held)) <= MAX_RECORD_BYTES
    assert samples_of(log) == {key_of(labels): samples for labels, samples in series}
