"""What a real VictoriaMetrics exports arrives, and answers alike."""

from __future__ import annotations

import gzip
import json
import subprocess
from pathlib import Path

import pytest

from tests.acceptance.test_prometheus import program
from tests.oracles import remote_write as oracle
from tests.processes import Process, free_port, running, tabor_command, tabor_run, wait_for

pytestmark = pytest.mark.acceptance
T0 = 1_790_000_000_000


def victoria_metrics(folder: Path) -> Process:
    port = free_port()
    command = [program("victoria-metrics", "victoria-metrics"), f"-storageDataPath={folder / 'victoria'}"]
    return Process(
        "victoria", [*command, f"-httpListenAddr=127.0.0.1:{port}", "-retentionPeriod=100y"], folder, port
    )


def run_import(target: Process, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = tabor_command("import", "--url", f"http://127.0.0.1:{target.port}", *arguments)
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_an_export_of_victoria_metrics_arrives_and_answers_alike(tmp_path: Path) -> None:
    source, target = victoria_metrics(tmp_path), tabor_run(tmp_path)
    series = [
        ({"__name__": "steps", "job": job}, [(T0 + 15_000 * i, i * factor) for i in range(240)])
        for job, factor in (("a", 1), ('ü "quoted" ],[{', 0.1))
    ]
    odd = [(T0, float("inf")), (T0 + 15_000, float("-inf")), (T0 + 30_000, -1.5e20)]
    series.append(({"__name__": "odd", "text": '},"values":[NaN,Inf'}, odd))
    with running(source, target):
        source.start_and_wait("/health")
        target.start_and_wait()
        status, said = source.write(oracle.snappy(oracle.request(series)))
        assert status == 204, said

        def exported() -> bytes:
            source.get("/internal/force_flush")
            return source.get("/api/v1/export", **{"match[]": '{__name__!=""}', "start": T0 / 1000 - 60})[1]

        wait_for(lambda: exported().count(b"\n") == 3, "all series can be exported")
        path = tmp_path / "all.jsonl.gz"
        path.write_bytes(gzip.compress(exported()))
        done = run_import(target, str(path))
        assert done.returncode == 0, done.stderr
        assert "483 samples sent (victoriametrics)" in done.stderr
        for query in ("sum by (job) (steps)", "count_over_time(steps[10m])", "odd"):
            asked = {"query": query, "time": (T0 + 3_000_000 if query != "odd" else T0 + 30_000) / 1000}
            answers = [one.data("/api/v1/query", **asked)["result"] for one in (source, target)]
            theirs, ours = (sorted(json.dumps(row, sort_keys=True) for row in rows) for rows in answers)
            assert ours == theirs
            assert ours


def test_values_are_taken_as_older_and_newer_releases_write_them(tmp_path: Path) -> None:
    target = tabor_run(tmp_path)
    path = tmp_path / "some.jsonl"
    line = '{"metric":{"__name__":"m","v":"%s"},"values":[1,%s,null,-2.5e3],"timestamps":[1000,2000,3000,4000]}\n'
    path.write_text(line % ("old", "-Inf") + line % ("new", '"-Infinity"') + "\n")
    with running(target):
        target.start_and_wait()
        done = run_import(target, str(path))
        assert done.returncode == 0, done.stderr
        for time_s, value in ((1, "1"), (2, "-Inf"), (4, "-2500")):
            rows = target.data("/api/v1/query", query="m", time=time_s)["result"]
            assert {row["metric"]["v"]: row["value"][1] for row in rows} == {"old": value, "new": value}
        # Where they had a NaN the series has ended.
        assert target.data("/api/v1/query", query="m", time=3)["result"] == []


@pytest.mark.parametrize(
    "line",
    [
        '{"metric":{"__name__":"m"},"values":[1,2],"timestamps":[1]}',
        '{"metric":{"__name__":"m"},"values":[1],"timestamps":["x"]}',
        '{"metric":{"__name__":"m"},"values":["x"],"timestamps":[1]}',
        '{"metric":{"__name__":7},"values":[1],"timestamps":[1]}',
        '{"metric":{"__name__":"m"},"values":[1',
        '{"metric":[],"values":[1],"timestamps":[1]}',
        '{"metric":{"__name__":"m"},"values":[1],"timestamps":[1e30]}',
        '{"metric":{"__name__":"m"},"values":[Inf,{}],"timestamps":[1,2]}',
    ],
)
def test_a_line_that_is_no_series_is_named(tmp_path: Path, line: str) -> None:
    from tabor.imports.victoria import _series

    with pytest.raises(Exception, match="file: line 3 is no series of VictoriaMetrics' JSON export"):
        _series(line.encode(), "file: line 3")
