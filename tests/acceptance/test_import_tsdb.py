"""The data folder of a real Prometheus, imported: Tabor has every sample that Prometheus has."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path

import pytest

from tests.acceptance.test_prometheus import program
from tests.oracles import remote_write as oracle
from tests.processes import Process, free_port, running, tabor_command, tabor_run

pytestmark = pytest.mark.acceptance
WRITTEN = {
    ("a", 'quo"te\\ü\n'): [0.1 * i for i in range(400)],
    ("b", "x"): [1e300, -0.0, float("inf"), float("nan"), float("nan"), 5e-324],
}
"""Values by two labels, 15 s apart, the last of each at the start of the test."""


def prometheus(folder: Path) -> Process:
    (folder / "prometheus.yml").write_text("{}")
    port = free_port()
    flags = [
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'tsdb'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--web.enable-remote-write-receiver",
        "--web.enable-admin-api",
        "--storage.tsdb.retention.time=100y",
        # Debian's Prometheus has it off, the project's own on.
        "--storage.tsdb.use-lockfile",
        "--log.level=warn",
    ]
    return Process("prometheus", [program("prometheus", "prometheus"), *flags], folder, port)


def block(folder: Path, now_ms: int) -> None:
    """A block of older samples, as a compaction leaves it; one series ends in it."""
    start_s = now_ms // 1000 - 86_400
    lines = [f'old{{a="1"}} {i / 3!r} {start_s + 15 * i}' for i in range(900)]
    text = folder / "old.om"
    text.write_text("\n".join(["# TYPE old unknown", *lines, "# EOF", ""]))
    command = [
        program("promtool", "prometheus"),
        "tsdb",
        "create-blocks-from",
        "openmetrics",
        text,
        folder / "tsdb",
    ]
    subprocess.run([str(part) for part in command], check=True, capture_output=True, timeout=60)


def test_all_samples_of_blocks_and_of_the_wal_arrive(tmp_path: Path) -> None:
    now_ms = time.time_ns() // 1_000_000
    block(tmp_path, now_ms)
    source, target = prometheus(tmp_path), tabor_run(tmp_path)
    with running(source, target):
        source.start_and_wait()
        target.start_and_wait()
        series = [
            (
                {"__name__": "m", "k": k, "text": text},
                [(now_ms - 15_000 * (len(values) - i), value) for i, value in enumerate(values)],
            )
            for (k, text), values in WRITTEN.items()
        ]
        status, said = source.write(oracle.snappy(oracle.request(series)))
        assert status == 204, said
        asked = {"query": '{__name__=~"m|old"}[3d]', "time": now_ms / 1000}
        theirs = source.data("/api/v1/query", **asked)["result"]
        folder = str(tmp_path / "tsdb")
        command = tabor_command("import", "prometheus-tsdb", "--url", f"http://127.0.0.1:{target.port}", folder)

        refused = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert refused.returncode == 1
        assert f"a Prometheus runs on {folder}" in refused.stderr
        assert refused.stderr.count("\n") == 1

        assert source.stop() == 0
        meta = next((tmp_path / "tsdb").glob("*/meta.json"))
        content = json.loads(meta.read_text())
        content["stats"]["numHistogramSamples"] = 7
        meta.write_text(json.dumps(content))
        for _ in range(2):
            done = subprocess.run(command, capture_output=True, text=True, timeout=120)
            assert done.returncode == 0, done.stderr
        assert "1,306 samples sent" in done.stderr
        assert "2 NaNs in a row are stored as NaN" in done.stderr
        # What Prometheus notes of a block, since promtool 2.42 has nothing to say of histograms.
        last = "exemplars, if there are any, and 7 native histograms that the blocks' meta.json count"
        assert done.stderr.strip().endswith(last)
        ours = target.data("/api/v1/query", **asked)["result"]
        assert sum(len(row["values"]) for row in ours) == 1306
        by_labels = [
            {json.dumps(row["metric"], sort_keys=True): row["values"] for row in rows} for rows in (ours, theirs)
        ]
        assert by_labels[0] == by_labels[1]


def test_a_snapshot_which_has_no_wal_arrives_and_is_left_as_it_is(tmp_path: Path) -> None:
    block(tmp_path, time.time_ns() // 1_000_000)
    assert not (tmp_path / "tsdb" / "wal").exists()
    before = sorted((tmp_path / "tsdb").rglob("*"))
    target = tabor_run(tmp_path)
    with running(target):
        target.start_and_wait()
        url = f"http://127.0.0.1:{target.port}"
        command = tabor_command("import", "prometheus-tsdb", "--url", url, str(tmp_path / "tsdb"))
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        assert target.data("/api/v1/query", query="count_over_time(old[3d])")["result"]
    assert sorted((tmp_path / "tsdb").rglob("*")) == before


def test_a_dump_that_fails_is_said(tmp_path: Path) -> None:
    block(tmp_path, time.time_ns() // 1_000_000)
    for index in (tmp_path / "tsdb").glob("*/index"):
        index.write_bytes(b"not an index")
    (tmp_path / "tsdb" / "wal").mkdir(exist_ok=True)
    target = tabor_run(tmp_path)
    with running(target):
        target.start_and_wait()
        url = f"http://127.0.0.1:{target.port}"
        command = tabor_command("import", "prometheus-tsdb", "--url", url, str(tmp_path / "tsdb"))
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert done.returncode == 1
        assert done.stderr.count("\n") == 1, done.stderr
        assert "tsdb dump" in done.stderr
