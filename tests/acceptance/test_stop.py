"""`tabor run` is asked to stop while it has work that takes longer than it may."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.load import START_MS, Load, wait_for_acknowledged
from tests.processes import Process, running, tabor_run, wait_for

pytestmark = pytest.mark.acceptance

N_QUERIES = 50


@pytest.fixture
def busy(tmp_path: Path) -> Iterator[tuple[Process, list[threading.Thread], list[int]]]:
    """A server with queries that take minutes, their threads, and the status of each that was answered."""
    server = tabor_run(tmp_path)
    load = Load(n_series=1000)
    statuses: list[int] = []

    def ask() -> None:
        try:
            status, _ = server.get(
                "/api/v1/query_range",
                query="quantile_over_time(0.9, load[1d])",
                start=START_MS / 1000,
                end=START_MS / 1000 + 10_000,
                step=1,
            )
        except OSError:
            return
        statuses.append(status)

    with running(server):
        server.start_and_wait()
        load.start(server)
        wait_for_acknowledged(load, 400_000)
        load.stop()
        threads = [threading.Thread(target=ask) for _ in range(N_QUERIES)]
        for thread in threads:
            thread.start()
        wait_for(lambda: b"tabor_query_running 20" in server.get("/metrics")[1], "as many as may run are running")
        yield server, threads, statuses


def test_slow_queries_do_not_hold_up_the_stop(busy: tuple[Process, list[threading.Thread], list[int]]) -> None:
    server, threads, statuses = busy
    begin = time.monotonic()
    server.signal(signal.SIGTERM)
    assert server.wait(20) == 0, server.output
    assert time.monotonic() - begin < 10
    for thread in threads:
        thread.join(10)
    assert set(statuses) <= {200, 499, 503}
    assert "Traceback" not in server.output
    server.start_and_wait()
    partitions = server.data("/api/v1/status/partitions")["partitions"]
    assert sum(row["samples"] for row in partitions) >= 400_000


def test_a_second_signal_ends_it_at_once(busy: tuple[Process, list[threading.Thread], list[int]]) -> None:
    server, threads, _ = busy
    server.signal(signal.SIGINT)
    wait_for(lambda: "stopping" in server.output, "the first signal was taken")
    begin = time.monotonic()
    server.signal(signal.SIGINT)
    assert server.wait(10) == 128 + signal.SIGINT
    assert time.monotonic() - begin < 3
    assert "Traceback" not in server.output
    for thread in threads:
        thread.join(10)
