"""Answers as Arrow streams say the same as the JSON, and raw samples keep every bit."""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import pytest
from fastapi import FastAPI

from query.config import QueryConfig
from query.http import router
from query.negotiation import preferred
from query.responses import ARROW
from query.service import QueryService
from tests.memory_store import MemoryStore
from tests.oracles.histogram import NativeHistogram

T0 = 1_790_000_000
STALE = struct.unpack("<d", struct.pack("<Q", 0x7FF0000000000002))[0]
ODD_NAN = struct.unpack("<d", struct.pack("<Q", 0xFFF8000000ABCDEF))[0]
HISTOGRAM = NativeHistogram(0, 6, 2.5, 0.1, 2, ((-1, 1), (1, 1)), (1, 3))
LABELS = {"__name__": "m", "a b": "ü", "timestamp": "mine", "label_timestamp": "too"}
FLOATS = [1.5, STALE, ODD_NAN, -0.0, float("inf")]


@pytest.fixture(scope="module")
def app() -> Iterator[FastAPI]:
    store = MemoryStore()
    for code in ("200", "500"):
        labels = {"__name__": "requests_total", "code": code}
        store.add(labels, [((T0 + 15 * i) * 1000, float(i)) for i in range(0 if code == "200" else 3, 41)])
    store.add(LABELS, [(T0 * 1000 + i, value) for i, value in enumerate(FLOATS)])
    store.add(
        {"__name__": "native"}, [((T0 + 15 * i) * 1000, HISTOGRAM.encode() if i % 2 else 0.5) for i in range(9)]
    )
    service = QueryService(store, QueryConfig(max_samples=10_000))
    application = FastAPI()
    application.include_router(router(service, "0"))
    yield application
    service.close()


def get(app: FastAPI, path: str, headers: dict[str, str] | None = None, **parameters: Any) -> httpx.Response:
    async def send() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://tabor") as client:
            return await client.get(
                path, params=parameters, headers={"accept-encoding": "identity", **(headers or {})}
            )

    return asyncio.run(send())


def table(app: FastAPI, path: str, **parameters: Any) -> pa.Table:
    response = get(app, path, {"accept": ARROW}, **parameters)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == ARROW
    return pa.ipc.open_stream(response.content).read_all()


def rows_of_json(data: Any) -> list[tuple[str, int, float]]:
    rows = []
    for series in data["result"]:
        key = json.dumps(series["metric"], sort_keys=True)
        points = series.get("values", [series["value"]] if "value" in series else [])
        rows += [(key, round(time * 1000), float(text)) for time, text in points]
    return rows


def rows_of(found: pa.Table) -> list[tuple[str, int, float]]:
    names = {field.name: field.metadata[b"label"].decode() for field in found.schema if field.metadata}
    times = found["timestamp"].cast(pa.int64()).to_pylist()
    rows = []
    for row, time in zip(found.select([*names, "value"]).to_pylist(), times, strict=True):
        labels = {names[column]: text for column, text in row.items() if column in names and text is not None}
        rows.append((json.dumps(labels, sort_keys=True), time, row["value"]))
    return rows


@pytest.mark.parametrize(
    "query", ["requests_total", "sum(requests_total)", "requests_total > 20", "absent(x)", "no"]
)
def test_a_range_query_has_the_rows_of_the_json(app: FastAPI, query: str) -> None:
    asked = {"query": query, "start": T0, "end": T0 + 900, "step": 7}
    data = get(app, "/api/v1/query_range", **asked).json()["data"]
    found = table(app, "/api/v1/query_range", **asked)
    assert rows_of(found) == rows_of_json(data)
    assert found.schema.metadata[b"resultType"] == b"matrix"
    assert found.schema.field("timestamp").type == pa.timestamp("ms", tz="UTC")


@pytest.mark.parametrize("query", ["requests_total", "requests_total[1m]", "sort_desc(requests_total)"])
def test_an_instant_query_has_the_rows_of_the_json(app: FastAPI, query: str) -> None:
    data = get(app, "/api/v1/query", query=query, time=T0 + 60).json()["data"]
    assert rows_of(table(app, "/api/v1/query", query=query, time=T0 + 60)) == rows_of_json(data) != []


def test_scalars_and_strings_are_one_row(app: FastAPI) -> None:
    scalar = table(app, "/api/v1/query", query="1.5", time=T0)
    assert scalar["value"].to_pylist() == [1.5]
    assert scalar["timestamp"].cast(pa.int64()).to_pylist() == [T0 * 1000]
    assert table(app, "/api/v1/query", query="'x'", time=T0)["value"].to_pylist() == ["x"]


def test_labels_are_dictionaries_and_one_that_is_called_like_a_column_has_another_name(app: FastAPI) -> None:
    schema = table(app, "/api/v1/query", query="m", time=T0).schema
    found = {field.name: field.metadata[b"label"].decode() for field in schema if field.metadata}
    assert found == {"__name__": "__name__", "a b": "a b", "label_timestamp": "label_timestamp"} | {
        "label_label_timestamp": "timestamp"
    }
    assert schema.field("a b").type == pa.dictionary(pa.int32(), pa.utf8())


def test_native_histograms_are_structs_beside_the_floats(app: FastAPI) -> None:
    asked = {"query": "native", "start": T0, "end": T0 + 120, "step": 15}
    found = table(app, "/api/v1/query_range", **asked)
    (series,) = get(app, "/api/v1/query_range", **asked).json()["data"]["result"]
    assert [value for value in found["value"].to_pylist() if value is not None] == [0.5] * 5
    structs = [one for one in found["histogram"].to_pylist() if one is not None]
    assert len(structs) == len(series["histograms"]) == 4
    for one, (_, other) in zip(structs, series["histograms"], strict=True):
        assert (one["count"], one["sum"]) == (float(other["count"]), float(other["sum"]))
        buckets = [[b["boundary_rule"], b["lower"], b["upper"], b["count"]] for b in one["buckets"]]
        assert buckets == [[rule, *map(float, rest)] for rule, *rest in other["buckets"]]


def test_warnings_and_infos_are_in_the_metadata(app: FastAPI) -> None:
    found = table(
        app, "/api/v1/query_range", query="rate(native[1m])", start=T0 + 60, end=T0 + 60, step=1, limit=1
    )
    said = get(app, "/api/v1/query_range", query="rate(native[1m])", start=T0 + 60, end=T0 + 60, step=1).json()
    assert json.loads(found.schema.metadata[b"warnings"]) == said["warnings"]
    assert json.loads(found.schema.metadata[b"infos"]) == said["infos"]
    assert b"warnings" not in table(app, "/api/v1/query", query="m", time=T0).schema.metadata


@pytest.mark.parametrize("encoding", ["zstd", "gzip"])
def test_a_stream_is_compressed_on_demand(app: FastAPI, encoding: str) -> None:
    asked = {"query": "requests_total", "start": T0, "end": T0 + 600, "step": 1}
    plain = get(app, "/api/v1/query_range", {"accept": ARROW}, **asked)
    packed = get(app, "/api/v1/query_range", {"accept": ARROW, "accept-encoding": encoding}, **asked)
    assert packed.headers["content-encoding"] == encoding
    assert packed.headers["vary"] == "Accept, Accept-Encoding"
    assert packed.content == plain.content


def test_errors_stay_json(app: FastAPI) -> None:
    response = get(app, "/api/v1/query", {"accept": ARROW}, query="sum(")
    assert response.status_code == 400
    assert response.json()["errorType"] == "bad_data"


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        ("", "json"),
        ("*/*", "json"),
        ("application/*", "json"),
        (ARROW, "arrow"),
        (f"{ARROW}, */*", "arrow"),
        (f"application/json, {ARROW}", "json"),
        (f"application/json;q=0.5, {ARROW.upper()}", "arrow"),
        (f"{ARROW};q=0.5, */*", "json"),
        (f"{ARROW};q=0.5, */*;q=0.4", "arrow"),
        (f"{ARROW};q=0", "json"),
        (f"{ARROW};q=x, application/json;q=0", "json"),
        ("application/json;q=0, */*", "arrow"),
        ("text/html", "json"),
    ],
)
def test_the_form_is_what_the_client_prefers(accept: str, chosen: str) -> None:
    assert preferred(accept, ARROW, "application/json") == {"json": "application/json", "arrow": ARROW}[chosen]


def test_an_export_keeps_stale_markers_and_the_payload_of_every_nan(app: FastAPI) -> None:
    found = table(app, "/api/v1/export", **{"match[]": "m"})
    bits = found["value"].to_numpy().view(np.uint64).tolist()
    assert bits == np.array(FLOATS).view(np.uint64).tolist()
    assert found["timestamp"].cast(pa.int64()).to_pylist() == [T0 * 1000 + i for i in range(5)]
    assert found["histogram"].null_count == 5


def test_an_export_has_the_bytes_of_histograms(app: FastAPI) -> None:
    found = table(app, "/api/v1/export", **{"match[]": "{__name__=~'native|requests.*'}"})
    native = found.filter(pa.compute.equal(found["__name__"].cast(pa.utf8()), "native"))
    assert native["histogram"].to_pylist() == [HISTOGRAM.encode() if i % 2 else None for i in range(9)]
    assert native["value"].to_pylist() == [None if i % 2 else 0.5 for i in range(9)]
    assert len(found) == 9 + 41 + 38


def test_an_export_of_nothing_is_an_empty_table(app: FastAPI) -> None:
    assert table(app, "/api/v1/export", **{"match[]": "nothing"}).num_rows == 0


@pytest.mark.parametrize(
    ("parameters", "status", "reason"),
    [
        ({}, 400, "match[]"),
        ({"match[]": ["a", "b"]}, 400, "one match[]"),
        ({"match[]": "m", "start": 2, "end": 1}, 400, "end timestamp"),
        ({"match[]": "{__name__=~'.+'}", "max_samples": 40}, 422, "40"),
        ({"match[]": "m", "max_samples": "x"}, 400, "max_samples"),
    ],
)
def test_what_cannot_be_exported_is_refused(
    app: FastAPI, parameters: dict[str, Any], status: int, reason: str
) -> None:
    response = get(app, "/api/v1/export", **parameters)
    assert response.status_code == status
    assert reason in response.json()["error"]
