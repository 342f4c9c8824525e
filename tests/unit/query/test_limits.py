"""Limits of queries: each refuses with an error that says how much is allowed and which flag allows more."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import httpx
import numpy as np
import pytest
from fastapi import FastAPI
from hypothesis import given, settings
from hypothesis import strategies as st

from query.config import QueryConfig
from query.engine.engine import Engine, EngineConfig
from query.http import router
from query.json_result import encode_data, encode_result, encode_series, labels_bytes, upper_bound
from query.service import QueryService
from tests.memory_store import MemoryStore
from tests.oracles.histogram import NativeHistogram

T0 = 1_790_000_000
AT = {"time": T0}
RANGE = {"start": T0, "end": T0 + 99, "step": 1}


class Slow(MemoryStore):
    """Waits until it may go on."""

    def __init__(self) -> None:
        super().__init__()
        self.entered, self.go_on = threading.Event(), threading.Event()

    def select(self, *arguments):  # type: ignore[no-untyped-def]
        self.entered.set()
        assert self.go_on.wait(30)
        return super().select(*arguments)


@pytest.fixture
def store() -> MemoryStore:
    store = MemoryStore()
    for i in range(20):
        name = "up" if i < 12 else "down"
        store.add({"__name__": name, "instance": f"é{i}"}, [(T0 * 1000 + 1000 * k, k / 3) for k in range(100)])
    return store


@pytest.fixture
def service() -> Iterator[list[QueryService]]:
    started: list[QueryService] = []
    yield started
    for one in started:
        one.close()


def app(store: MemoryStore, started: list[QueryService], **limits: Any) -> FastAPI:
    started.append(QueryService(store, QueryConfig(**limits)))
    app = FastAPI()
    app.include_router(router(started[-1], "0"))
    return app


def ask(app: FastAPI, path: str, parameters: Mapping[str, Any]) -> httpx.Response:
    async def send() -> httpx.Response:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://tabor") as client:
            return await client.get(path, params=parameters)

    return asyncio.run(send())


def refused(answer: httpx.Response, limit: str, flag: str) -> None:
    assert answer.status_code == 422, answer.text[:500]
    assert answer.json()["errorType"] == "execution"
    assert limit in answer.json()["error"]
    assert flag in answer.json()["error"]


@pytest.mark.parametrize(
    ("path", "parameters", "n_series"),
    [
        ("/api/v1/query", {"query": "up", **AT}, 12),
        ("/api/v1/query", {"query": "count(up) + count(down)", **AT}, 20),
        ("/api/v1/query_range", {"query": "up or down", **RANGE}, 20),
        ("/api/v1/series", {"match[]": "up"}, 12),
        ("/api/v1/series", {"match[]": ["up", "down"]}, 20),
    ],
)
def test_series_of_all_selectors_together_are_limited(
    store: MemoryStore, service: list[QueryService], path: str, parameters: dict[str, Any], n_series: int
) -> None:
    assert ask(app(store, service, max_series=n_series), path, parameters).status_code == 200
    limited = app(store, service, max_series=n_series - 1)
    refused(ask(limited, path, parameters), f"more than {n_series - 1} series", "--query-max-series")


def test_samples_of_all_selectors_together_are_limited(store: MemoryStore, service: list[QueryService]) -> None:
    parameters = {"query": "sum(rate(up[1m])) + sum(rate(down[1m]))", "time": T0 + 99}
    assert ask(app(store, service, max_samples=1200), "/api/v1/query", parameters).status_code == 200
    limited = app(store, service, max_samples=1199)
    refused(ask(limited, "/api/v1/query", parameters), "more than 1199 samples", "--query-max-samples")


def test_a_matrix_that_breaks_the_limit_is_refused_with_its_size(
    store: MemoryStore, service: list[QueryService]
) -> None:
    parameters = {"query": "up", "start": T0, "end": T0 + 999, "step": 1}
    answer = ask(app(store, service, max_samples=11_999), "/api/v1/query_range", parameters)
    refused(answer, "12 series at 1000 steps are more than 11999", "--query-max-samples")


@pytest.mark.parametrize(
    ("path", "parameters"),
    [
        ("/api/v1/query", {"query": "up", **AT}),
        ("/api/v1/query_range", {"query": "up", **RANGE}),
        ("/api/v1/series", {"match[]": "up"}),
        ("/api/v1/labels", {}),
        ("/api/v1/label/instance/values", {}),
        ("/api/v1/status/tsdb", {}),
    ],
)
def test_answers_are_limited_to_the_byte(
    store: MemoryStore, service: list[QueryService], path: str, parameters: dict[str, Any]
) -> None:
    size = len(ask(app(store, service), path, parameters).content)
    assert ask(app(store, service, max_response_bytes=size), path, parameters).status_code == 200
    limited = app(store, service, max_response_bytes=size - 1)
    refused(ask(limited, path, parameters), f"more than {size - 1} bytes", "--query-max-response-bytes")


def test_large_answers_are_limited_to_the_byte_before_they_are_sent(service: list[QueryService]) -> None:
    store = MemoryStore()
    noise = np.random.default_rng(1).random(100_000)
    for i in range(3):
        store.add({"__name__": "up", "i": str(i)}, zip(range(len(noise)), (noise + i).tolist(), strict=True))
    parameters = {"query": "up[1h]", "time": 3600}
    size = len(ask(app(store, service), "/api/v1/query", parameters).content)
    assert size > 6 << 20
    whole = ask(app(store, service, max_response_bytes=size), "/api/v1/query", parameters)
    assert whole.status_code == 200
    assert len(whole.content) == size
    limited = app(store, service, max_response_bytes=size - 1)
    refused(ask(limited, "/api/v1/query", parameters), f"more than {size - 1} bytes", "--query-max-response-bytes")


def test_too_many_points_and_too_little_time_name_their_flags(
    store: MemoryStore, service: list[QueryService]
) -> None:
    answer = ask(app(store, service, max_points=50), "/api/v1/query_range", {"query": "up", **RANGE})
    assert answer.status_code == 400
    assert "50 points" in answer.json()["error"]
    assert "--query-max-points" in answer.json()["error"]
    answer = ask(app(store, service, timeout_s=1e-9), "/api/v1/query", {"query": "up", **AT})
    assert answer.status_code == 503
    assert answer.json()["errorType"] == "timeout"
    assert "1e-09 s (--query-timeout)" in answer.json()["error"]


def test_too_many_queries_name_their_flag(service: list[QueryService]) -> None:
    store = Slow()
    asked = app(store, service, max_concurrency=1)

    async def send() -> list[httpx.Response]:
        transport = httpx.ASGITransport(asked)
        async with httpx.AsyncClient(transport=transport, base_url="http://tabor") as client:
            tasks = [asyncio.ensure_future(client.get("/api/v1/query", params={"query": "up"})) for _ in range(12)]
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            store.go_on.set()
            await asyncio.gather(*tasks)
            return [task.result() for task in done]

    (answer,) = asyncio.run(send())
    assert answer.status_code == 503
    assert "1 queries are running" in answer.json()["error"]
    assert "--query-max-concurrency" in answer.json()["error"]


def wide(n_buckets: int) -> bytes:
    """A histogram whose numbers are long as text."""
    sides = ((-99, n_buckets),), (1e300 / 3,) * n_buckets, ((7, n_buckets),), (1e-7,) * n_buckets
    return NativeHistogram(8, 1e300, 1e-300, 1e-5, 1e17 / 3, *sides).encode()


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.dictionaries(st.text(min_size=1, max_size=3), st.text(max_size=4), max_size=3), max_size=4),
    st.lists(st.floats() | st.integers(0, 60).map(wide), min_size=1, max_size=4),
    st.sampled_from(["m[1h]", "m", "-m", "1/3"]),
)
def test_no_answer_is_larger_than_its_upper_bound(labels: Any, values: Any, query: str) -> None:
    store = MemoryStore(
        [(one | {"__name__": "m"}, [(k * 1001, v) for k, v in enumerate(values)]) for one in labels]
    )
    result = Engine(store, EngineConfig()).instant(query, 3001)
    warnings = len(encode_data(None, [*result.warnings, *result.infos]))
    assert len(b"".join(encode_result(result))) <= upper_bound(result) + warnings
    table = store.series([], -10, 10)
    assert len(b"".join(encode_series(table, len(table)))) <= labels_bytes(table) + 3 * len(table) + 1000
