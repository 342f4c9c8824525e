"""Prometheus' query API over a store in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from common.errors import RetryableError
from query.config import QueryConfig
from query.http import in_front_of, router
from query.http_queries import router as queries_router
from query.service import QueryService
from tests.memory_store import MemoryStore

T0 = 1_790_000_000


class Client:
    """Asks the application without a network."""

    def __init__(self, service: QueryService) -> None:
        app = FastAPI()
        app.include_router(router(service, "0"))
        app.include_router(queries_router(service))
        self._transport = httpx.ASGITransport(in_front_of(app, service))

    def ask(self, path: str, *, form: bool = False, **parameters: Any) -> tuple[int, Any]:
        async def send() -> httpx.Response:
            async with httpx.AsyncClient(transport=self._transport, base_url="http://tabor") as client:
                if form:
                    return await client.post(path, data=parameters)
                return await client.get(path, params=parameters)

        response = asyncio.run(send())
        return response.status_code, response.json()

    def raw(self, path: str, **parameters: Any) -> bytes:
        """The body of a successful answer."""
        response = self._send("GET", path, parameters)
        assert response.status_code == 200, response.text
        return response.content

    def delete(self, path: str) -> int:
        """The status that a DELETE is answered with."""
        return self._send("DELETE", path, {}).status_code

    def _send(self, method: str, path: str, parameters: dict[str, Any]) -> httpx.Response:
        async def send() -> httpx.Response:
            async with httpx.AsyncClient(transport=self._transport, base_url="http://tabor") as client:
                return await client.request(method, path, params=parameters)

        return asyncio.run(send())

    def data(self, path: str, **parameters: Any) -> Any:
        status, answer = self.ask(path, **parameters)
        assert status == 200, answer
        assert answer["status"] == "success"
        return answer["data"]

    def error(self, path: str, **parameters: Any) -> tuple[int, str, str]:
        status, answer = self.ask(path, **parameters)
        assert answer["status"] == "error", answer
        return status, answer["errorType"], answer["error"]


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    store = MemoryStore()
    for code, start in (("200", 0.0), ("500", 100.0)):
        labels = {"__name__": "requests_total", "code": code, "job": "api"}
        store.add(labels, [((T0 + 15 * i) * 1000, start + i) for i in range(41)])
    store.add({"__name__": "my.metric", "a b": "ü"}, [(T0 * 1000 + 1, float("inf"))])
    service = QueryService(store, QueryConfig(max_samples=1000))
    yield Client(service)
    service.close()


def test_an_instant_vector_has_one_value_a_series(client: Client) -> None:
    data = client.data("/api/v1/query", query="requests_total", time=T0 + 30)
    assert data == {
        "resultType": "vector",
        "result": [
            {"metric": {"__name__": "requests_total", "code": "200", "job": "api"}, "value": [T0 + 30, "2"]},
            {"metric": {"__name__": "requests_total", "code": "500", "job": "api"}, "value": [T0 + 30, "102"]},
        ],
    }


def test_a_range_has_the_values_of_every_step(client: Client) -> None:
    data = client.data("/api/v1/query_range", query="sum(requests_total)", start=T0, end=T0 + 60, step="30s")
    assert data == {
        "resultType": "matrix",
        "result": [{"metric": {}, "values": [[T0, "100"], [T0 + 30, "104"], [T0 + 60, "108"]]}],
    }


def test_a_range_selector_gives_the_samples_as_stored(client: Client) -> None:
    data = client.data("/api/v1/query", query='requests_total{code="200"}[40s]', time=T0 + 60)
    assert data["resultType"] == "matrix"
    assert data["result"][0]["values"] == [[T0 + 30, "2"], [T0 + 45, "3"], [T0 + 60, "4"]]


def test_scalars_and_strings_are_pairs(client: Client) -> None:
    assert client.data("/api/v1/query", query="1.5", time=T0) == {"resultType": "scalar", "result": [T0, "1.5"]}
    assert client.data("/api/v1/query", query="'x'", time=T0) == {"resultType": "string", "result": [T0, "x"]}


def test_a_form_and_rfc3339_are_understood(client: Client) -> None:
    status, answer = client.ask(
        "/api/v1/query", form=True, query="requests_total", time="2026-09-21T14:13:50.000+00:00"
    )
    assert status == 200
    assert [row["value"][1] for row in answer["data"]["result"]] == ["2", "102"]


def test_a_time_beyond_all_times_is_the_last_one(client: Client) -> None:
    for time in ("1.7976931348623157e308", "-1.7976931348623157e308", "9223372036854775807"):
        status, answer = client.ask("/api/v1/query", query="vector(1)", time=time)
        assert (status, answer["status"]) == (200, "success")


def test_a_syntax_error_says_where(client: Client) -> None:
    status, kind, message = client.error("/api/v1/query", query="sum(", time=T0)
    assert (status, kind) == (400, "bad_data")
    assert message.startswith('invalid parameter "query": 1:5: parse error:')


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"start": "x"}, 'invalid parameter "start": cannot parse "x" to a valid timestamp'),
        ({"step": "x"}, 'invalid parameter "step": cannot parse "x" to a valid duration'),
        ({"end": T0 - 1}, 'invalid parameter "end": end timestamp must not be before start time'),
        ({"limit": "-1"}, 'invalid parameter "limit": limit must be non-negative'),
        (
            {"step": 0},
            'invalid parameter "step": zero or negative query resolution step widths are not accepted. '
            "Try a positive integer",
        ),
        (
            {"end": T0 + 11_001, "step": 1},
            "exceeded maximum resolution of 11,000 points per timeseries. "
            "Try decreasing the query resolution (?step=XX), or raise --query-max-points",
        ),
    ],
)
def test_a_wrong_parameter_is_named(client: Client, parameters: dict[str, Any], message: str) -> None:
    sent = {"query": "up", "start": T0, "end": T0 + 60, "step": 15, **parameters}
    assert client.error("/api/v1/query_range", **sent) == (400, "bad_data", message)


def test_an_error_of_evaluation_is_422(client: Client) -> None:
    status, kind, _ = client.error("/api/v1/query", query="requests_total + on(job) requests_total", time=T0)
    assert (status, kind) == (422, "execution")


def test_too_many_samples_are_refused_with_the_limit(client: Client) -> None:
    status, kind, message = client.error(
        "/api/v1/query_range", query="requests_total", start=T0, end=T0 + 600, step=1
    )
    assert (status, kind) == (422, "execution")
    assert "too many samples" in message


def test_eleven_thousand_points_are_allowed(client: Client) -> None:
    client.data("/api/v1/query_range", query="vector(1) > 2", start=T0, end=T0 + 500, step=1)


def test_series_labels_and_values_are_listed(client: Client) -> None:
    assert client.data("/api/v1/series", **{"match[]": 'requests_total{code=~"5.."}'}) == [
        {"__name__": "requests_total", "code": "500", "job": "api"}
    ]
    assert client.data("/api/v1/labels") == ["__name__", "a b", "code", "job"]
    assert client.data("/api/v1/labels", **{"match[]": "requests_total"}) == ["__name__", "code", "job"]
    assert client.data("/api/v1/label/code/values") == ["200", "500"]
    assert client.data("/api/v1/label/U__a_20_b/values") == ["ü"]
    assert client.data("/api/v1/label/__name__/values") == ["my.metric", "requests_total"]


def test_a_limit_cuts_and_warns(client: Client) -> None:
    status, answer = client.ask("/api/v1/label/code/values", limit=1)
    assert (status, answer["data"]) == (200, ["200"])
    assert answer["warnings"] == ["results truncated due to limit"]
    status, answer = client.ask("/api/v1/query", query="requests_total", time=T0, limit=1)
    assert len(answer["data"]["result"]) == 1
    assert answer["warnings"] == ["results truncated due to limit"]


def test_series_needs_a_selector(client: Client) -> None:
    assert client.error("/api/v1/series") == (400, "bad_data", "no match[] parameter provided")
    status, _, message = client.error("/api/v1/series", **{"match[]": '{a=~".*"}'})
    assert status == 400
    assert "match[] must contain at least one non-empty matcher" in message


def test_a_lookback_of_the_request_counts(client: Client) -> None:
    late = T0 + 600 + 20
    assert len(client.data("/api/v1/query", query="requests_total", time=late)["result"]) == 2
    assert client.data("/api/v1/query", query="requests_total", time=late, lookback_delta="10s")["result"] == []


def test_an_unknown_consistency_is_refused(client: Client) -> None:
    status, kind, message = client.error("/api/v1/query", query="1", consistency="maybe")
    assert (status, kind) == (400, "bad_data")
    assert "strong" in message


def test_text_that_is_not_utf8_is_refused(client: Client) -> None:
    async def send() -> httpx.Response:
        async with httpx.AsyncClient(transport=client._transport, base_url="http://tabor") as asker:
            return await asker.get("/api/v1/query?query=%ff")

    response = asyncio.run(send())
    assert response.status_code == 400
    assert response.json()["errorType"] == "bad_data"


def test_what_tabor_does_not_have_is_answered_empty(client: Client) -> None:
    assert client.data("/api/v1/metadata") == {}
    assert client.data("/api/v1/rules") == {"groups": []}
    assert client.data("/api/v1/alerts") == {"alerts": []}
    assert client.data("/api/v1/query_exemplars", query="up") == []
    assert client.data("/api/v1/targets")["activeTargets"] == []
    assert client.data("/api/v1/scrape_pools") == {"scrapePools": []}


def test_queries_in_front_of_the_framework_are_answered_as_behind_it() -> None:
    store = MemoryStore()
    store.add({"__name__": "up"}, [(T0 * 1000, 1.0)])
    service = QueryService(store, QueryConfig())
    app = FastAPI()
    app.include_router(router(service, "0"))

    async def answers(asked: Any) -> list[tuple[int, bytes]]:
        found = []
        async with httpx.AsyncClient(transport=httpx.ASGITransport(asked), base_url="http://tabor") as client:
            for path in ("/api/v1/query", "/api/v1/query_range"):
                for query in ("up", "up[", "up + on ("):
                    about = {"query": query, "time": T0, "start": T0, "end": T0 + 60, "step": 15}
                    for response in (
                        await client.get(path, params=about),
                        await client.post(path, data=about),
                        await client.put(path, data=about),
                        await client.get(path + "/", params=about),
                        await client.get(path),
                    ):
                        found.append((response.status_code, response.content))
        return found

    behind = asyncio.run(answers(app))
    assert {status for status, _ in behind} >= {200, 400, 405}
    assert asyncio.run(answers(in_front_of(app, service))) == behind
    service.close()


def test_before_there_is_something_to_read_queries_are_told_to_come_again() -> None:
    async def require_started() -> None:
        raise RetryableError("the views are being opened", retry_after_s=3.0)

    service = QueryService(MemoryStore(), QueryConfig())

    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(in_front_of(FastAPI(), service, require_started))
        async with httpx.AsyncClient(transport=transport, base_url="http://tabor") as client:
            return await client.get("/api/v1/query", params={"query": "up"})

    response = asyncio.run(ask())
    service.close()
    assert response.status_code == 503
    assert response.headers["Retry-After"] == "3"
    assert response.json()["errorType"] == "unavailable"
    assert "being opened" in response.json()["error"]
