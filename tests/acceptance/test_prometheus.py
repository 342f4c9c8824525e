"""A real Prometheus scrapes real targets and remote-writes to `tabor run`: both answer the same."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import time
import urllib.parse
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from tests.processes import Process, free_port, running, tabor_run, wait_for

pytestmark = pytest.mark.acceptance
SCRAPED_S = 36
SEND_DEADLINE_S = 7
"""Prometheus' shards hold samples back for up to five seconds, some longer than others."""
REACH_S = 12
"""Further back than any query looks. What Prometheus scraped before it began to remote-write is not in Tabor."""


CAUGHT_UP_S = 150


class Servers(NamedTuple):
    tabor: Process
    prometheus: Process
    start: float
    end: float


def program(name: str, package: str) -> str:
    path = shutil.which(name)
    assert path, f"{name} is missing; on Debian: apt-get install {package}"
    return path


def sending(prometheus: Process) -> str:
    """What Prometheus says of its remote write."""
    lines = prometheus.get("/metrics")[1].decode().splitlines()
    return "\n".join(line for line in lines if line.startswith("prometheus_remote_storage_"))


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    folder = tmp_path_factory.mktemp("prometheus")
    tabor = tabor_run(folder)
    exporter_port, port = free_port(), free_port()
    exporter = Process(
        "exporter",
        [
            program("prometheus-node-exporter", "prometheus-node-exporter"),
            f"--web.listen-address=127.0.0.1:{exporter_port}",
        ],
        folder,
        exporter_port,
    )
    config = {
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s"},
        "scrape_configs": [
            {"job_name": "node", "static_configs": [{"targets": [f"127.0.0.1:{exporter_port}"]}]},
            {"job_name": "prometheus", "static_configs": [{"targets": [f"127.0.0.1:{port}"]}]},
            {"job_name": "tabor", "static_configs": [{"targets": [f"127.0.0.1:{tabor.port}"]}]},
            {"job_name": "gone", "static_configs": [{"targets": [f"127.0.0.1:{free_port()}"]}]},
        ],
        "remote_write": [{"url": f"http://127.0.0.1:{tabor.port}/api/v1/write"}],
    }
    # JSON is YAML.
    (folder / "prometheus.yml").write_text(json.dumps(config))
    prometheus = Process(
        "prometheus",
        [
            program("prometheus", "prometheus"),
            f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={folder / 'tsdb'}",
            f"--web.listen-address=127.0.0.1:{port}",
            "--log.level=warn",
        ],
        folder,
        port,
    )
    with running(tabor, exporter, prometheus):
        tabor.start_and_wait()
        exporter.start_and_wait("/metrics")
        prometheus.start_and_wait()
        start = time.time()
        target_end = start + SCRAPED_S

        def caught_up() -> bool:
            newest = tabor.data("/api/v1/query", query="max(timestamp(up))")["result"]
            return bool(newest) and float(newest[0]["value"][1]) > target_end + 1

        try:
            wait_for(caught_up, "Tabor has what Prometheus scraped", CAUGHT_UP_S)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{sending(prometheus)}\n{prometheus.output}\n{tabor.output}") from None
        # Evaluation times off the samples' own: the two releases differ at the edges of ranges.
        samples = [
            [round(t * 1000) for t, _ in row["values"]]
            for row in tabor.data("/api/v1/query", query="up[5m]", time=target_end)["result"]
        ]
        taken = {time_ms % 1000 for times in samples for time_ms in times}
        free = max(range(1000), key=lambda ms: min(min(abs(ms - t), 1000 - abs(ms - t)) for t in taken))
        first = math.ceil(max(times[0] for times in samples) / 1000) + REACH_S + free / 1000
        yield Servers(tabor, prometheus, first, first + math.floor(target_end - SEND_DEADLINE_S - first))


QUERIES = [
    "up",
    "count({__name__=~'.+'}) by (job)",
    "count by (__name__) ({job='node'})",
    "node_cpu_seconds_total",
    "rate(node_cpu_seconds_total[5s])",
    "sum by (mode) (rate(node_cpu_seconds_total[5s]))",
    "irate(prometheus_http_requests_total[5s])",
    "increase(prometheus_tsdb_head_samples_appended_total[6s])",
    "avg without (cpu) (node_cpu_seconds_total{mode=~'idle|user'})",
    "histogram_quantile(0.9, sum by (le) (rate(prometheus_http_request_duration_seconds_bucket[6s])))",
    "topk(3, node_filesystem_size_bytes)",
    "node_memory_MemFree_bytes / on (instance) node_memory_MemTotal_bytes",
    "max_over_time(node_load1[5s])",
    "quantile_over_time(0.5, go_goroutines[5s])",
    "deriv(process_resident_memory_bytes[8s])",
    "predict_linear(process_resident_memory_bytes[8s], 60)",
    "avg_over_time(sum(go_goroutines)[5s:1s])",
    "label_replace(up, 'host', '$1', 'instance', '(.*):.*')",
    "absent(nothing_of_that_name)",
    "up == 0 or up * 2",
    "count_values('v', up)",
    "scrape_duration_seconds offset 3s",
    "process_start_time_seconds @ end()",
    "changes(up[5s]) + resets(go_gc_duration_seconds_count[5s])",
    "stddev by (job) (scrape_samples_scraped)",
]


def answer(server: Process, query: str, start: float, end: float) -> dict[str, list[tuple[float, float]]]:
    data = server.data("/api/v1/query_range", query=query, start=start, end=end, step=1)
    assert data["resultType"] == "matrix"
    return {
        json.dumps(row["metric"], sort_keys=True): [(t, float(v)) for t, v in row["values"]]
        for row in data["result"]
    }


@pytest.mark.parametrize("query", QUERIES)
def test_a_range_query_is_answered_as_prometheus_answers_it(servers: Servers, query: str) -> None:
    ours = answer(servers.tabor, query, servers.start, servers.end)
    theirs = answer(servers.prometheus, query, servers.start, servers.end)
    assert theirs, "the query selects nothing"
    assert set(ours) == set(theirs)
    for metric, points in theirs.items():
        assert [t for t, _ in ours[metric]] == [t for t, _ in points], metric
        for (t, mine), (_, other) in zip(ours[metric], points, strict=True):
            same = mine == other or (math.isnan(mine) and math.isnan(other))
            assert same or math.isclose(mine, other, rel_tol=1e-9, abs_tol=1e-12), (metric, t, mine, other)


def test_every_sample_of_every_series_arrived_bit_for_bit(servers: Servers) -> None:
    window = f"[{math.floor(servers.end - servers.start)}s]"
    for selector in ("{job='node'}", "{job='prometheus'}", "{job='tabor'}", "{job='gone'}"):
        ours, theirs = (
            {
                json.dumps(row["metric"], sort_keys=True): row["values"]
                for row in server.data("/api/v1/query", query=selector + window, time=servers.end)["result"]
            }
            for server in (servers.tabor, servers.prometheus)
        )
        assert ours == theirs


def test_labels_series_and_values_are_the_same(servers: Servers) -> None:
    def ask(path: str, **parameters: str | float) -> list[Any]:
        answers = []
        for server in (servers.tabor, servers.prometheus):
            data = server.data(path, start=servers.start, end=servers.end, **parameters)
            answers.append(sorted(data, key=lambda item: json.dumps(item, sort_keys=True)))
        return answers

    for path, parameters in [
        ("/api/v1/labels", {}),
        ("/api/v1/labels", {"match[]": "node_cpu_seconds_total"}),
        ("/api/v1/label/job/values", {}),
        ("/api/v1/label/mode/values", {"match[]": "node_cpu_seconds_total"}),
        ("/api/v1/label/__name__/values", {}),
        ("/api/v1/series", {"match[]": "{__name__=~'node_cpu.*|up'}"}),
    ]:
        ours, theirs = ask(path, **parameters)
        assert ours == theirs, path


@pytest.mark.parametrize("command", ["instant", "range", "series", "labels"])
def test_promtool_asks_tabor_as_it_asks_prometheus(servers: Servers, command: str) -> None:
    def ask(server: Process) -> list[str]:
        url = f"http://127.0.0.1:{server.port}"
        start, end = f"{servers.start:.3f}", f"{servers.end:.3f}"
        arguments = {
            "instant": [f"--time={end}", url, "sum by (mode) (node_cpu_seconds_total)"],
            "range": [f"--start={start}", f"--end={end}", "--step=5s", url, "sum by (job) (up)"],
            "series": [f"--start={start}", f"--end={end}", "--match=up", url],
            "labels": [f"--start={start}", f"--end={end}", url, "job"],
        }[command]
        promtool = program("promtool", "prometheus")
        result = subprocess.run(
            [promtool, "query", command, *arguments], capture_output=True, text=True, timeout=60, check=False
        )
        assert result.returncode == 0, result.stderr
        return sorted(result.stdout.splitlines())

    assert ask(servers.tabor) == ask(servers.prometheus) != []


def test_promtool_has_nothing_to_say_against_the_metrics(servers: Servers) -> None:
    status, metrics = servers.tabor.get("/metrics")
    assert status == 200
    check = [program("promtool", "prometheus"), "check", "metrics"]
    result = subprocess.run(check, input=metrics, capture_output=True, timeout=60, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (0, b"", b"")


def test_the_url_encoded_form_of_grafana_is_understood(servers: Servers) -> None:
    form = urllib.parse.urlencode({"query": "up", "start": servers.start, "end": servers.end, "step": "5"})
    status, body = servers.tabor.request(
        "POST", "/api/v1/query_range", form.encode(), {"Content-Type": "application/x-www-form-urlencoded"}
    )
    assert status == 200
    assert json.loads(body)["data"]["result"]
    status, body = servers.tabor.get("/api/v1/status/buildinfo")
    assert status == 200
    assert json.loads(body)["data"]["version"].startswith("3.")
