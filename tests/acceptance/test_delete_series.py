"""Series are deleted while `tabor run` runs, over restarts and a replay."""

from __future__ import annotations

import json
import subprocess
import urllib.parse
from pathlib import Path

import pytest

from bench.requests import compress, encode_labels, encode_sample
from tests.processes import Process, running, tabor_command, tabor_run, wait_for

pytestmark = pytest.mark.acceptance
T0_S = 1_790_000_000


def write(server: Process, value: float) -> None:
    series = (
        encode_labels({"__name__": "x", "n": str(n)})
        + b"".join(encode_sample(value, (T0_S + 10 * i) * 1000) for i in range(6))
        for n in range(40)
    )
    assert server.write(compress(series))[0] == 204


def delete(server: Process, **parameters: object) -> tuple[int, bytes]:
    query = urllib.parse.urlencode({name.replace("match", "match[]"): text for name, text in parameters.items()})
    return server.request("POST", f"/api/v1/admin/tsdb/delete_series?{query}")


def values(server: Process, selector: str) -> list[list[tuple[int, str]]]:
    rows = server.data("/api/v1/query", query=f"{selector}[10m]", time=T0_S + 100)["result"]
    rows.sort(key=lambda row: row["metric"]["n"])
    return [[(time - T0_S, value) for time, value in row["values"]] for row in rows]


def digests(server: Process) -> list[str]:
    return [row["digest"] for row in server.data("/api/v1/status/partitions", digest=1)["partitions"]]


def test_deleted_series_stay_deleted_and_may_be_written_anew(tmp_path: Path) -> None:
    server = tabor_run(tmp_path, "--partitions", "2")
    with running(server):
        server.start_and_wait()
        write(server, 1.0)
        assert server.stop() == 0
        # Now they are in segments.
        server.start_and_wait()
        assert delete(server, match='x{n=~"[0-7]"}', start=T0_S + 20, end=T0_S + 40)[0] == 204
        assert values(server, 'x{n="3"}') == [[(0, "1"), (10, "1"), (50, "1")]]
        assert values(server, 'x{n="8"}') == [[(10 * i, "1") for i in range(6)]]
        assert delete(server, match='x{n="5"}')[0] == 204
        assert values(server, 'x{n="5"}') == []
        write(server, 2.0)
        assert values(server, 'x{n="3"}') == [[(10 * i, "2" if 2 <= i <= 4 else "1") for i in range(6)]]
        assert values(server, 'x{n="5"}') == [[(10 * i, "2") for i in range(6)]]
        status, body = delete(server, match="{}")
        assert status == 400
        assert "match[]" in json.loads(body)["error"]

        before, held = digests(server), values(server, "x")
        server.kill()
        server.start_and_wait()
        wait_for(lambda: digests(server) == before, "the digests are as before the crash")
        assert values(server, "x") == held
        assert server.stop() == 0
        replay = tabor_command("replay", "--data-dir", str(tmp_path / "data"))
        subprocess.run(replay, check=True, timeout=120, capture_output=True)
        server.start_and_wait()
        assert digests(server) == before
        assert values(server, "x") == held
        assert server.stop() == 0
