"""Spans of OpenTelemetry reach a collector, hang together across processes, and cost nothing when off."""

from __future__ import annotations

import contextlib
import contextvars
import subprocess
import sys
from pathlib import Path

from bench.requests import compress, encode_labels, encode_sample
from query.config import QueryConfig
from query.service import QueryService, Wanted
from tabor.tracing import traced
from tests.collector import collecting
from tests.integration.test_remote_store import EVERYTHING, UP, Cluster, Node, serving
from tests.processes import WRITE_HEADERS, running, tabor_run

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = {"traceparent": f"00-{TRACE}-{PARENT}-01"}


def test_writes_and_queries_of_a_server_are_traced_under_what_the_client_says(tmp_path: Path) -> None:
    with collecting() as collector:
        tabor = tabor_run(tmp_path, "--otlp-endpoint", collector.url)
        with running(tabor):
            tabor.start_and_wait()
            body = compress([encode_labels({"__name__": "up"}) + encode_sample(1.0, 1_790_000_000_000)])
            assert tabor.request("POST", "/api/v1/write", body, WRITE_HEADERS | TRACEPARENT)[0] == 204
            ids = TRACEPARENT | {"X-Request-ID": "mine"}
            assert tabor.request("GET", "/api/v1/query?query=up", headers=ids)[0] == 200
            # What is left is sent when it stops.
            assert tabor.stop() == 0
    (write,) = collector.named("POST /api/v1/write")
    (ask,) = collector.named("GET /api/v1/query")
    (query,) = collector.named("query")
    (commit,) = collector.named("group commit")
    assert {write.service, commit.service} == {"tabor-run"}
    assert (write.trace_id, write.parent_id) == (ask.trace_id, ask.parent_id) == (TRACE, PARENT)
    assert (query.trace_id, query.parent_id) == (TRACE, ask.span_id)
    assert commit.links == [write.span_id]
    assert ask.attributes["tabor.request_id"] == "mine"
    assert ask.attributes["http.response.status_code"] == 200
    assert query.attributes["db.query.text"] == "up"


def test_the_spans_of_storage_nodes_belong_to_the_query() -> None:
    with collecting() as collector:

        def ask(cluster: Cluster) -> None:
            service = QueryService(cluster.store, QueryConfig())
            with contextlib.closing(service), traced(collector.url, "test"):
                work = service.run(lambda store, _: store.select(UP, *EVERYTHING, 10), Wanted("eventual"))
                assert len(work.result(10).timestamps) == 2

        with serving(Node("a")) as address, contextlib.closing(Cluster()) as cluster:
            cluster.announce("a", address)
            contextvars.copy_context().run(ask, cluster)
    (query,) = collector.named("query")
    reads = {span.span_id: span for span in collector.named("read select")}
    served = collector.named("POST /internal/v1/select")
    assert served
    assert {span.trace_id for span in [*reads.values(), *served]} == {query.trace_id}
    assert {span.parent_id for span in served} <= reads.keys()
    assert {span.parent_id for span in reads.values()} == {query.span_id}
    assert {span.attributes["node"] for span in reads.values()} == {"a"}


def test_without_an_endpoint_nothing_of_the_sdk_is_imported() -> None:
    code = (
        "import sys\n"
        "import tabor.cli, tabor.run, tabor.tiers, tabor.serving, query.http, query.remote, ingest.http\n"
        "from common import tracing\n"
        "with tracing.span('nothing') as span:\n"
        "    assert span is None and tracing.headers() == {}\n"
        # The web framework brings the API, but neither SDK nor exporters.
        "brought = ('opentelemetry.sdk', 'opentelemetry.exporter', 'requests', 'tabor.tracing')\n"
        "print([name for name in sys.modules if name.startswith(brought)])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
