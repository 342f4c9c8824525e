"""What the query API tells of metrics, expressions and the server; compression; clients that go away."""

from __future__ import annotations

import asyncio
import gzip
import json
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import httpx
import pytest
import zstandard
from fastapi import FastAPI
from prometheus_client import REGISTRY

from common.store import Exemplar, Matcher, Metadata, SeriesExemplars
from query import clients
from query.compression import negotiated
from query.config import QueryConfig
from query.http import router
from query.service import QueryService
from tests.memory_store import MemoryStore
from tests.oracles import remote_write as oracle
from tests.oracles.histogram import NativeHistogram

T0 = 1_790_000_000


class Store(MemoryStore):
    """With metadata and exemplars; a select of `slow` waits to be told to go on."""

    def __init__(self) -> None:
        super().__init__()
        self.entered, self.go_on = threading.Event(), threading.Event()
        self.asked: list[tuple[Matcher, ...]] = []

    def select(self, matchers, *limits):  # type: ignore[no-untyped-def]
        self._wait_if_slow([matchers])
        return super().select(matchers, *limits)

    def series(self, matcher_sets, *limits):  # type: ignore[no-untyped-def]
        self._wait_if_slow(matcher_sets)
        return super().series(matcher_sets, *limits)

    def _wait_if_slow(self, matcher_sets: Sequence[Sequence[Matcher]]) -> None:
        if any(matcher.value == "slow" for matchers in matcher_sets for matcher in matchers):
            self.entered.set()
            assert self.go_on.wait(30)

    def metadata(self, metric: str | None, tenants: Sequence[str] | None = None) -> dict[str, list[Metadata]]:
        known = {"up": [Metadata("gauge", "is it", ""), Metadata("unknown", "", "s")], "down": []}
        return known if metric is None else {name: rows for name, rows in known.items() if name == metric}

    def exemplars(self, matcher_sets, min_time_ms, max_time_ms):  # type: ignore[no-untyped-def]
        self.asked = list(matcher_sets)
        return [SeriesExemplars({"__name__": "up"}, [Exemplar({"trace_id": "1"}, 2.5, 1500)])]


@pytest.fixture
def store() -> Store:
    store = Store()
    for i in range(200):
        labels = {"__name__": "up", "job": f"job-{i % 3}", "instance": f"host-{i:03d}"}
        store.add(labels, [(T0 * 1000, float(i))])
    native = NativeHistogram(0, 3, 2.5, 0.5, 1, ((1, 1),), (2,), is_float=False)
    store.add({"__name__": "native"}, [(T0 * 1000, native.encode()), (T0 * 1000 - 60_000, 7.0)])
    store.add({"__name__": "slow"}, [(T0 * 1000, 1.0)])
    return store


@pytest.fixture
def app(store: Store) -> Iterator[FastAPI]:
    service = QueryService(store, QueryConfig(max_concurrency=1))
    app = FastAPI()
    app.include_router(router(service, "0"))
    yield app
    store.go_on.set()
    service.close()


def ask(app: FastAPI, path: str, headers: dict[str, str] | None = None, **parameters: Any) -> httpx.Response:
    async def send() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://tabor") as client:
            return await client.get(path, params=parameters, headers=headers or {"accept-encoding": "identity"})

    return asyncio.run(send())


def data(app: FastAPI, path: str, **parameters: Any) -> Any:
    response = ask(app, path, **parameters)
    assert response.status_code == 200, response.text
    return response.json()["data"]


def test_metadata_is_given_by_family_up_to_the_limits(app: FastAPI) -> None:
    gauge, unknown = ({"type": "gauge", "help": "is it", "unit": ""}, {"type": "unknown", "help": "", "unit": "s"})
    assert data(app, "/api/v1/metadata") == {"up": [gauge, unknown], "down": []}
    assert data(app, "/api/v1/metadata", metric="up", limit_per_metric=1) == {"up": [gauge]}
    assert data(app, "/api/v1/metadata", limit=1) == {"down": []}
    assert data(app, "/api/v1/metadata", limit=0) == {}


def test_exemplars_are_asked_for_by_all_selectors_of_the_expression(app: FastAPI, store: Store) -> None:
    found = data(app, "/api/v1/query_exemplars", query='rate(up[5m]) / sum(down{a="b"})')
    exemplar = {"labels": {"trace_id": "1"}, "value": "2.5", "timestamp": 1.5}
    assert found == [{"seriesLabels": {"__name__": "up"}, "exemplars": [exemplar]}]
    assert [[str(matcher) for matcher in matchers] for matchers in store.asked] == [
        ['__name__="up"'],
        ['a="b"', '__name__="down"'],
    ]
    assert data(app, "/api/v1/query_exemplars", query="1 + 2") == []


def test_a_query_is_formatted_and_parsed_to_prometheus_tree(app: FastAPI) -> None:
    assert (
        data(app, "/api/v1/format_query", query="sum by(job)(rate(up [5m]))>1")
        == "sum by (job) (rate(up[5m])) > 1"
    )
    for path in ("format_query", "parse_query"):
        assert ask(app, f"/api/v1/{path}", query="x{").status_code == 400


def test_the_tree_names_operators_matchers_and_modifiers(app: FastAPI) -> None:
    query = 'a{b!="c"} offset 1m * on(d) group_left(e) rate(f[5m] @ start())'
    tree = data(app, "/api/v1/parse_query", query=query)
    assert (tree["type"], tree["op"], tree["bool"]) == ("binaryExpr", "*", False)
    assert tree["matching"]["card"] == "many-to-one"
    assert (tree["matching"]["labels"], tree["matching"]["include"]) == (["d"], ["e"])
    assert tree["lhs"]["offset"] == 60_000
    assert {"name": "b", "type": "!=", "value": "c"} in tree["lhs"]["matchers"]
    call = tree["rhs"]
    assert call["func"] == {"name": "rate", "argTypes": ["matrix"], "variadic": 0, "returnType": "vector"}
    assert (call["args"][0]["range"], call["args"][0]["startOrEnd"]) == (300_000, "start")


def test_the_server_tells_about_itself(app: FastAPI) -> None:
    assert data(app, "/api/v1/status/buildinfo")["version"].startswith("3.")
    assert data(app, "/api/v1/status/runtimeinfo")["reloadConfigSuccess"] is True
    assert data(app, "/api/v1/status/flags")["query-max-points"] == "11000"
    assert data(app, "/api/v1/status/walreplay")["state"] == "done"
    assert "scrapes nothing" in data(app, "/api/v1/status/config")["yaml"]


def test_statistics_count_series_by_metric_label_and_pair(app: FastAPI) -> None:
    found = data(app, "/api/v1/status/tsdb", limit=2)
    assert found["headStats"] == {
        "numSeries": 202,
        "numLabelPairs": 206,
        "chunkCount": 202,
        "minTime": (T0 - 60) * 1000,
        "maxTime": T0 * 1000,
    }
    assert found["seriesCountByMetricName"] == [{"name": "up", "value": 200}, {"name": "native", "value": 1}]
    assert found["labelValueCountByLabelName"][0] == {"name": "instance", "value": 200}
    assert found["seriesCountByLabelValuePair"][1] == {"name": "job=job-0", "value": 67}


def test_federation_gives_the_latest_floats_in_the_text_format(app: FastAPI, store: Store) -> None:
    import time

    now_ms = time.time_ns() // 1_000_000
    store.add({"__name__": "fresh", "a": 'q"'}, [(now_ms - 60_000, 1.0), (now_ms - 1000, float("inf"))])
    store.add({"__name__": "fresh"}, [(now_ms - 400_000, 5.0)])
    response = ask(app, "/federate", **{"match[]": '{__name__="fresh"}'})
    assert response.text == f'# TYPE fresh untyped\nfresh{{a="q\\"", instance=""}} +Inf {now_ms - 1000}\n'
    assert ask(app, "/federate").status_code == 400


def test_a_native_histogram_is_answered_beside_floats(app: FastAPI) -> None:
    (found,) = data(app, "/api/v1/query", query="native", time=T0)["result"]
    histogram = {"count": "3", "sum": "2.5", "buckets": [[3, "-0.5", "0.5", "1"], [0, "1", "2", "2"]]}
    assert found == {"metric": {"__name__": "native"}, "histogram": [T0, histogram]}
    (found,) = data(app, "/api/v1/query_range", query="native", start=T0 - 60, end=T0, step=60)["result"]
    assert found["values"] == [[T0 - 60, "7"]]
    assert found["histograms"] == [[T0, histogram]]


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
def test_large_answers_are_compressed_for_those_who_ask(app: FastAPI, encoding: str) -> None:
    plain = ask(app, "/api/v1/query", query="up", time=T0)
    assert "content-encoding" not in plain.headers

    async def raw() -> tuple[httpx.Headers, bytes]:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://tabor") as client:
            request = client.build_request(
                "GET", "/api/v1/query", params={"query": "up", "time": T0}, headers={"accept-encoding": encoding}
            )
            response = await client.send(request, stream=True)
            return response.headers, b"".join([chunk async for chunk in response.aiter_raw()])

    headers, body = asyncio.run(raw())
    assert headers["content-encoding"] == encoding
    text = (
        gzip.decompress(body)
        if encoding == "gzip"
        else zstandard.ZstdDecompressor().decompressobj().decompress(body)
    )
    assert json.loads(text) == plain.json()
    small = ask(app, "/api/v1/query", {"accept-encoding": encoding}, query="1")
    assert "content-encoding" not in small.headers


@pytest.mark.parametrize(
    ("header", "encoding"),
    [
        ("", ""),
        ("identity", ""),
        ("gzip, deflate", "gzip"),
        ("gzip;q=0", ""),
        ("gzip, zstd", "zstd"),
        ("*", "zstd"),
        ("gzip;q=1, zstd;q=0.5", "gzip"),
        ("zstd;q=x, gzip", "gzip"),
    ],
)
def test_the_encoding_is_what_the_client_likes_best(header: str, encoding: str) -> None:
    assert negotiated(header) == encoding


SLOW = oracle.delimited(3, oracle.delimited(2, b"__name__") + oracle.delimited(3, b"slow"))
READ = oracle.delimited(1, b"\x10" + oracle.uvarint(T0 * 1000) + SLOW)


@pytest.mark.parametrize(
    ("path", "query", "body"),
    [
        ("/api/v1/query", f"query=sum(slow)&time={T0}", b""),
        ("/api/v1/query_range", f"query=sum(slow)&start={T0}&end={T0}&step=1", b""),
        ("/api/v1/series", "match[]=slow", b""),
        ("/federate", "match[]=slow", b""),
        ("/api/v1/read", "", oracle.snappy(READ)),
        ("/api/v1/read", "", oracle.snappy(READ + b"\x10\x01")),
    ],
)
def test_a_query_whose_client_has_gone_ends_and_frees_its_place(
    app: FastAPI, store: Store, path: str, query: str, body: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Looked at from the beginning: nothing here lasts.
    monkeypatch.setattr(clients, "NOT_WATCHED_S", 0.0)

    async def abandon() -> None:
        scope = {
            "type": "http", "method": "POST" if body else "GET", "path": path, "raw_path": b"", "headers": [],
            "query_string": query.encode(), "http_version": "1.1", "scheme": "http",
        }  # fmt: skip
        sent = []
        gone = asyncio.Event()
        requests = [{"type": "http.request", "body": body, "more_body": False}] if body else []

        async def receive() -> dict[str, Any]:
            if requests:
                return requests.pop()
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        task = asyncio.ensure_future(app(scope, receive, send))
        await asyncio.to_thread(store.entered.wait, 30)
        gone.set()
        for _ in range(20):
            # The handler sees that the client has gone before the store goes on.
            await asyncio.sleep(0)
        store.go_on.set()
        await task
        assert sent[0]["status"] == 499

    asyncio.run(abandon())
    assert REGISTRY.get_sample_value("tabor_query_running") == 0
    assert data(app, "/api/v1/query", query="1")["result"][1] == "1"


def test_strict_promql_refuses_what_is_behind_a_flag(store: Store) -> None:
    service = QueryService(store, QueryConfig(promql_strict=True))
    app = FastAPI()
    app.include_router(router(service, "0"))
    for query in ("limitk(1, up)", "up[1m] smoothed", "rate(up[step()])", "info(up)"):
        assert ask(app, "/api/v1/query", query=query).status_code == 400, query
    assert ask(app, "/api/v1/query", query="sum(up)").status_code == 200
    service.close()
