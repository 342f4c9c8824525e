"""OTLP into `tabor run`, as an OpenTelemetry Collector sends it, and PromQL out of it."""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse

from ingest.otlp_http import PATH
from tests.processes import Process, running, tabor_run
from tests.unit.ingest.otlp import SERVICE, counter, exponential, gauge, histogram, point, request

pytestmark = pytest.mark.acceptance
T0 = 1_790_000_000
N_POINTS = 21
STEP_S = 15
RESOURCE = {**SERVICE, "host.name": "h1"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    tabor = tabor_run(tmp_path_factory.mktemp("otlp"))
    with running(tabor):
        tabor.start_and_wait()
        content = request(*metrics(), resource=RESOURCE).SerializeToString()
        response = httpx.post(
            f"http://127.0.0.1:{tabor.port}{PATH}",
            content=gzip.compress(content),
            headers={"content-type": "application/x-protobuf", "content-encoding": "gzip"},
        )
        assert response.status_code == 200, response.content
        assert not ExportMetricsServiceResponse.FromString(response.content).HasField("partial_success")
        yield tabor


def metrics() -> list[dict[str, Any]]:
    """Twenty-one points of each kind of metric, 15 seconds apart; all of them grow by the same amounts."""
    times = [(T0 + STEP_S * k) * 1000 for k in range(N_POINTS)]
    exemplar = {"asDouble": 0.5, "timeUnixNano": times[3] * 1_000_000, "traceId": "AAECAwQFBgcICQoLDA0ODw=="}
    return [
        gauge(
            "room.temperature",
            *(point(t, {"room": "a"}, asDouble=20 + k) for k, t in enumerate(times)),
            unit="Cel",
        ),
        counter(
            "http.server.requests",
            *(point(t, {"http.route": "/"}, asInt=30 * k, exemplars=[exemplar]) for k, t in enumerate(times)),
            description="Requests.",
        ),
        histogram(
            "work.time",
            *(
                point(t, count=4 * k, sum=6 * k, explicitBounds=[1, 2], bucketCounts=[2 * k, 2 * k, 0])
                for k, t in enumerate(times)
            ),
            unit="s",
        ),
        exponential(
            "work.exact",
            # At scale 0, the buckets (1, 2] and (2, 4].
            *(
                point(t, scale=0, count=4 * k, sum=8 * k, positive={"bucketCounts": [2 * k, 2 * k]})
                for k, t in enumerate(times)
            ),
        ),
    ]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("room_temperature_celsius", 40.0),
        ('sum by (job) (rate(http_server_requests_total{http_route="/"}[1m]))', 2.0),
        ("histogram_quantile(0.5, rate(work_time_seconds_bucket[1m]))", 1.0),
        ("rate(work_time_seconds_sum[1m]) / rate(work_time_seconds_count[1m])", 1.5),
        ("histogram_avg(rate(work_exact[1m]))", 2.0),
        ("histogram_fraction(1, 2, rate(work_exact[1m]))", 0.5),
        ("histogram_count(work_exact)", 80.0),
        ('count(info(room_temperature_celsius, {host_name="h1"}))', 1.0),
        ("count_over_time(target_info[5m])", 2.0),
    ],
)
def test_a_query_finds_what_was_sent(server: Process, query: str, expected: float) -> None:
    (series,) = server.data("/api/v1/query", query=query, time=T0 + STEP_S * (N_POINTS - 1))["result"]
    assert series["metric"].get("job", "eu/shop") == "eu/shop"
    assert float(series["value"][1]) == pytest.approx(expected)


def test_metadata_and_exemplars_are_answered(server: Process) -> None:
    metadata = server.data("/api/v1/metadata")
    assert metadata["http_server_requests_total"] == [{"type": "counter", "help": "Requests.", "unit": ""}]
    assert metadata["work_exact"][0]["type"] == "histogram"
    (found,) = server.data("/api/v1/query_exemplars", query="http_server_requests_total", start=T0, end=T0 + 300)
    assert [each["labels"] for each in found["exemplars"]] == [{"trace_id": "000102030405060708090a0b0c0d0e0f"}]


def test_the_endpoint_that_the_documentation_gives_a_collector_is_the_one_that_answers(server: Process) -> None:
    documentation = (Path(__file__).parents[2] / "docs" / "api.md").read_text()
    (endpoint,) = re.findall(r"^ +endpoint: http://[^/]+(\S+)$", documentation, re.MULTILINE)
    # An exporter appends the path of the signal to its endpoint.
    assert f"{endpoint}/v1/metrics" == PATH
