"""`tabor run` is killed in the middle of a load; nothing acknowledged is lost, nothing is there twice."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.requests import compress, encode_labels, encode_sample
from tests.load import Load, wait_for_acknowledged
from tests.processes import Process, running, tabor_command, tabor_run, wait_for

pytestmark = pytest.mark.acceptance


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Process]:
    process = tabor_run(tmp_path)
    with running(process):
        yield process


def digests(server: Process) -> dict[int, str]:
    """The digest of each partition once all that is in the log is in the views; the status waits for nothing."""

    def applied() -> dict[int, str] | None:
        rows = server.data("/api/v1/status/partitions", digest=1)["partitions"]
        return None if any(row["lag"] for row in rows) else {row["partition"]: row["digest"] for row in rows}

    return wait_for(applied, "the views have all that is in the log")


def test_every_acknowledged_sample_survives_three_sigkills_once(server: Process) -> None:
    seed = random.randrange(1 << 30)
    print("seed", seed)
    load = Load(seed=seed)
    server.start_and_wait()
    load.start(server)
    try:
        for _ in range(3):
            wait_for_acknowledged(load, 20_000)
            server.kill()
            server.start_and_wait()
        wait_for_acknowledged(load, 5_000)
    finally:
        load.stop()
    assert load.check(server) >= 65_000
    partitions = server.data("/api/v1/status/partitions")["partitions"]
    assert all(row["lag"] == 0 for row in partitions)
    assert sum(row["series"] for row in partitions) == load.n_batches * load.n_series


def test_views_rebuilt_from_the_log_have_the_same_digests_and_samples(server: Process, tmp_path: Path) -> None:
    load = Load()
    server.start_and_wait()
    load.start(server)
    wait_for_acknowledged(load, 20_000)
    server.kill()
    server.start_and_wait()
    wait_for_acknowledged(load, 5_000)
    load.stop()
    before = digests(server)
    total = load.check(server)
    assert server.stop() == 0

    replay = Process("replay", tabor_command("replay", "--data-dir", str(tmp_path / "data")), tmp_path, 0)
    with running(replay):
        replay.start()
        assert replay.wait(120) == 0, replay.output
    for digest in before.values():
        assert replay.output.count(digest) >= 2

    server.start_and_wait()
    assert digests(server) == before
    assert load.check(server) == total


def test_a_clean_stop_ends_with_status_0_and_the_next_start_has_nothing_to_replay(server: Process) -> None:
    load = Load()
    server.start_and_wait()
    load.start(server)
    wait_for_acknowledged(load, 10_000)
    server.signal(signal.SIGTERM)
    assert server.wait(10) == 0, server.output
    load.stop()
    server.start_and_wait()
    assert load.check(server) >= 10_000


def test_not_ready_is_answered_with_the_progress_of_the_replay(server: Process, tmp_path: Path) -> None:
    load = Load(n_series=500)
    server.start_and_wait()
    load.start(server)
    wait_for_acknowledged(load, 100_000)
    load.stop()
    server.kill()
    server.start()
    seen = []

    def poll() -> bool:
        try:
            status, body = server.get("/-/ready")
        except OSError:
            return False
        if status == 503:
            seen.append(json.loads(body))
        return status == 200

    while not poll():
        assert server.returncode is None, server.output
    for answer in seen:
        assert answer["ready"] is False
        assert {"next_offset", "high_watermark", "samples_per_s", "seconds_left"} <= set(answer)
    assert load.check(server) >= 100_000


def test_a_replay_keeps_to_the_retention_of_the_run(tmp_path: Path) -> None:
    server = tabor_run(tmp_path, "--retention", "1d", "--partitions", "2")
    with running(server):
        server.start_and_wait()
        now_ms = time.time_ns() // 1_000_000
        for time_ms in (now_ms - 30 * 86_400_000, now_ms):
            labels = [encode_labels({"__name__": "x", "n": str(n)}) for n in range(20)]
            assert server.write(compress(label + encode_sample(1.0, time_ms) for label in labels))[0] == 204
        assert server.data("/api/v1/query", query="sum(count_over_time(x[60d]))")["result"][0]["value"][1] == "20"
        assert server.stop() == 0
        command = tabor_command("replay", "--data-dir", str(tmp_path / "data"))
        result = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert result.returncode == 0, result.stdout
