"""The producer: columns to the log, and errors back to the caller."""

from __future__ import annotations

import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from ingest import DeliveryFailed, InvalidLabels, Producer
from ingest.config import IngestConfig
from ingest.errors import QueueFull
from tests.memory_log import MemoryLog
from tests.unit.ingest.logs import batches_of, key_of, n_declared, own_metrics, samples_of

TIMEOUT_S = 60.0
CARS = [{"__name__": "speed", "car": str(i)} for i in range(3)]


@pytest.fixture
def log() -> MemoryLog:
    return MemoryLog(4)


def make(log: MemoryLog, *, timeout_s: float = TIMEOUT_S, **config: float) -> Producer:
    return Producer(log, IngestConfig(**config), timeout_s=timeout_s, metrics=own_metrics())


def test_columns_are_in_the_log_after_flush(log: MemoryLog) -> None:
    with make(log) as producer:
        series = producer.series(CARS)
        assert series.dtype == np.uint32
        producer.write(series, np.array([1, 2, 3]), np.array([1.0, -0.0, np.inf]))
        producer.write(np.repeat(series, 2), np.arange(6), np.arange(6) / 4)
        producer.flush()
        assert samples_of(log) == {
            key_of(CARS[0]): [(1, 1.0), (0, 0.0), (1, 0.25)],
            key_of(CARS[1]): [(2, -0.0), (2, 0.5), (3, 0.75)],
            key_of(CARS[2]): [(3, np.inf), (4, 1.0), (5, 1.25)],
        }
        assert n_declared(log) == 3


def test_one_handle_stands_for_all_samples(log: MemoryLog) -> None:
    with make(log) as producer:
        handle = producer.series(CARS[:1])[0]
        producer.write(handle, [1, 2], [1, 2])
    assert samples_of(log) == {key_of(CARS[0]): [(1, 1.0), (2, 2.0)]}


def test_the_same_labels_give_the_same_handle(log: MemoryLog) -> None:
    with make(log) as producer:
        first = producer.series(CARS)
        again = producer.series([CARS[2], CARS[0] | {"empty": ""}, CARS[2]])
        assert again.tolist() == [first[2], first[0], first[2]]
        assert producer.series([]).tolist() == []


def test_arrays_may_be_reused_after_write(log: MemoryLog) -> None:
    log.hold()
    producer = make(log)
    handle = producer.series(CARS[:1])
    times, values = np.array([1]), np.array([1.0])
    for i in range(5):
        times[:], values[:] = i, i
        producer.write(handle, times, values)
    log.release()
    producer.close()
    assert samples_of(log) == {key_of(CARS[0]): [(i, float(i)) for i in range(5)]}


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"job": "x"}, "__name__ is missing"),
        ({"__name__": "m", "": "x"}, "a label name is empty"),
        ({"__name__": "m", "a": 7}, "value of 'a' is not a string"),
        ({"__name__": "m", "a": "\ud800"}, "cannot be written as UTF-8"),
        ({"__name__": "m", "a": "v" * 65}, "more than 64 bytes"),
        ({"__name__": "m", "n" * 33: "v"}, "more than 32 bytes"),
        ({"__name__": "m"} | {f"l{i}": "v" for i in range(8)}, "more than 8 labels"),
    ],
)
def test_invalid_labels_are_refused_and_shown(log: MemoryLog, labels: dict[str, str], message: str) -> None:
    with make(log, max_labels_per_series=8, max_label_name_bytes=32, max_label_value_bytes=64) as producer:
        with pytest.raises(InvalidLabels, match=message) as caught:
            producer.series([CARS[0], labels])
        assert next(iter(labels)) in str(caught.value)


def test_more_series_than_the_limit_are_refused(log: MemoryLog) -> None:
    with make(log, max_active_series=2) as producer, pytest.raises(InvalidLabels, match="2 series already"):
        producer.series(CARS)


@pytest.mark.parametrize(
    ("series", "times", "values"),
    [([0, 1], [1], [1.0]), ([0], [1], [1.0, 2.0]), ([3], [1], [1.0]), ([-1], [1], [1.0]), ([0], [1.5], [1.0])],
)
def test_columns_that_do_not_fit_are_refused(
    log: MemoryLog, series: list[int], times: list[float], values: list[float]
) -> None:
    with make(log) as producer:
        producer.series(CARS)
        with pytest.raises(ValueError):
            producer.write(series, times, values)
    assert not batches_of(log)


def test_samples_that_the_log_did_not_take_are_reported_once(log: MemoryLog) -> None:
    producer = make(log)
    series = producer.series(CARS)
    log.hold()
    producer.write(series, [1, 2, 3], [1, 2, 3])
    deadline = time.monotonic() + TIMEOUT_S
    while not log._held:
        assert time.monotonic() < deadline
        threading.Event().wait(0.001)
    log.fail("the broker is gone")
    with pytest.raises(DeliveryFailed, match="3 samples did not reach the log: the broker is gone") as caught:
        producer.flush()
    assert caught.value.samples == 3
    producer.write(series, [4, 5, 6], [4, 5, 6])
    producer.close()
    assert samples_of(log)[key_of(CARS[2])] == [(6, 6.0)]


def test_flush_over_a_stuck_log_ends_in_time(log: MemoryLog) -> None:
    producer = make(log)
    series = producer.series(CARS)
    log.hold()
    producer.write(series, [1, 2, 3], [1, 2, 3])
    with pytest.raises(DeliveryFailed, match="3 samples are not acknowledged in time"):
        producer.flush(timeout_s=0.01)
    log.release()
    producer.flush()
    producer.close()


def test_a_stuck_log_stops_the_writer_instead_of_filling_memory(log: MemoryLog) -> None:
    producer = make(log, timeout_s=0.05, max_queued_bytes=1, max_groups_in_flight=1, max_group_samples=1)
    series = producer.series(CARS)
    log.hold()
    n_written = 0

    def write_on() -> None:
        nonlocal n_written
        while n_written < 100:
            producer.write(series[0], np.arange(100_000), np.zeros(100_000))
            n_written += 1

    with pytest.raises(QueueFull):
        write_on()
    assert n_written < 6
    log.release()
    producer.flush(TIMEOUT_S)
    producer.close()
    assert len(samples_of(log)[key_of(CARS[0])]) == n_written * 100_000


def test_importing_the_producer_does_not_import_a_web_framework_or_numba() -> None:
    code = "import sys; from ingest import Producer; print([m for m in ('fastapi', 'numba') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
