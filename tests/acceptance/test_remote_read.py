"""A real Prometheus with `remote_read` on Tabor answers queries over what only Tabor has."""

from __future__ import annotations

import json
import math
from pathlib import Path

import httpx
import pytest

from tests.acceptance.test_prometheus import program
from tests.oracles import remote_write as oracle
from tests.processes import Process, free_port, running, tabor_run

pytestmark = pytest.mark.acceptance
T0 = 1_790_000_000
QUERIES = [
    "sum by (job) (rate(requests_total[5m]))",
    'requests_total{job=~"a.*", instance!="2"}',
    "max_over_time(requests_total[10m:1m])",
    "count({__name__=~'req.+', job!~'b'})",
]


def test_prometheus_reads_through_tabor_what_it_does_not_have_itself(tmp_path: Path) -> None:
    tabor, port = tabor_run(tmp_path), free_port()
    config = {"remote_read": [{"url": f"http://127.0.0.1:{tabor.port}/api/v1/read", "read_recent": True}]}
    # JSON is YAML.
    (tmp_path / "prometheus.yml").write_text(json.dumps(config))
    prometheus = Process(
        "prometheus",
        [
            program("prometheus", "prometheus"),
            f"--config.file={tmp_path / 'prometheus.yml'}",
            f"--storage.tsdb.path={tmp_path / 'tsdb'}",
            f"--web.listen-address=127.0.0.1:{port}",
            "--log.level=warn",
        ],
        tmp_path,
        port,
    )
    series = [
        (
            {"__name__": "requests_total", "job": job, "instance": str(i)},
            [(T0 * 1000 + 15_007 * k, float(k * (i + 1))) for k in range(80)],
        )
        for job in ("a1", "a2", "b")
        for i in range(3)
    ]
    with running(tabor, prometheus):
        tabor.start_and_wait()
        prometheus.start_and_wait()
        body = oracle.snappy(oracle.request(series))
        httpx.post(f"http://127.0.0.1:{tabor.port}/api/v1/write", content=body).raise_for_status()
        for query in QUERIES:
            asked = {"query": query, "start": T0 + 600, "end": T0 + 1150, "step": 50}
            ours, theirs = (
                server.data("/api/v1/query_range", **asked)["result"] for server in (tabor, prometheus)
            )
            assert len(ours) == len(theirs) > 0, query
            for one, other in zip(ours, theirs, strict=True):
                assert one["metric"] == other["metric"], query
                pairs = zip(one["values"], other["values"], strict=True)
                assert all(a[0] == b[0] and math.isclose(float(a[1]), float(b[1]), rel_tol=1e-9) for a, b in pairs)
