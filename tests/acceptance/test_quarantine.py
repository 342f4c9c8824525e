"""A record that cannot be read is passed over, counted, said, and can still be looked at."""

from __future__ import annotations

import json
import subprocess
from concurrent.futures import Future
from pathlib import Path

import pytest

from bench.requests import compress, encode_labels, encode_sample
from common.log.base import Append
from common.log.local import LocalLog
from tests.processes import Process, running, tabor_command, tabor_run

pytestmark = pytest.mark.acceptance
BROKEN = b"TBR1 this is not a record"


def write(server: Process, time_ms: int) -> None:
    series = (encode_labels({"__name__": "x", "n": str(n)}) + encode_sample(n, time_ms) for n in range(20))
    assert server.write(compress(series))[0] == 204


def test_a_broken_record_stops_nothing(tmp_path: Path) -> None:
    server = tabor_run(tmp_path, "--partitions", "2")
    with running(server):
        server.start_and_wait()
        write(server, 1_790_000_000_000)
        assert server.stop() == 0

        log = LocalLog(tmp_path / "data" / "log", None)
        appended: Future[list[int]] = log.append([Append(1, BROKEN)])
        (offset,) = appended.result(10)
        log.close()

        server.start_and_wait()
        write(server, 1_790_000_001_000)
        found = server.data("/api/v1/query", query="count_over_time(x[10s])", time=1_790_000_001)["result"]
        assert [row["value"][1] for row in found] == ["2"] * 20
        metrics = server.get("/metrics")[1].decode()
        assert "tabor_storage_node_quarantined_records_total 1.0" in metrics
        events = [json.loads(line) for line in server.output.splitlines() if line.startswith("{")]
        (said,) = [event for event in events if event["event"] == "record_quarantined"]
        assert (said["partition"], said["offset"]) == (1, offset)

        inspect = ["log", "inspect", "--data-dir", str(tmp_path / "data"), "--partition", "1", "--json"]
        command = tabor_command(*inspect, "--from", str(offset), "--limit", "2")
        shown = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
        first, second = (json.loads(line) for line in shown.splitlines())
        assert first["error"]
        assert first["prefix_hex"] == BROKEN.hex()[: len(first["prefix_hex"])]
        assert "error" not in second
