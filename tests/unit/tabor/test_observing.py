"""Every door counts its requests by declared routes only, and gives each an id."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request
from prometheus_client import REGISTRY, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from common import request_ids
from tabor.observing import observed

seen: list[str] = []


def app() -> Any:
    api = FastAPI()

    @api.get("/things/{name}")
    async def thing(name: str, request: Request) -> dict[str, str]:
        seen.append(request_ids.current.get())
        if name == "broken":
            raise ValueError(name)
        return {"id": request.scope[request_ids.SCOPE_KEY]}

    return observed(api)


def ask(path: str, method: str = "GET", **headers: str) -> httpx.Response:
    async def send() -> httpx.Response:
        transport = httpx.ASGITransport(app(), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://tabor") as client:
            return await client.request(method, path, headers=headers)

    return asyncio.run(send())


def count(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


def test_a_request_without_an_id_gets_one_and_is_told() -> None:
    answer = ask("/things/a")
    assert len(answer.headers["x-request-id"]) == 16
    assert answer.json()["id"] == answer.headers["x-request-id"] == seen[-1]
    assert ask("/things/a").headers["x-request-id"] != answer.headers["x-request-id"]


def test_an_id_that_is_sent_is_kept() -> None:
    assert ask("/things/a", **{"X-Request-ID": "abc-1:2/3"}).headers["x-request-id"] == "abc-1:2/3"


@pytest.mark.parametrize("sent", ["", "a b", 'a"b', "a" * 129, "a;b", "ä"])
def test_an_id_that_could_disturb_logs_is_not_kept(sent: str) -> None:
    answer = ask("/things/a", **{"X-Request-ID": sent.encode("utf-8")})  # type: ignore[arg-type]
    assert len(answer.headers["x-request-id"]) == 16


@pytest.mark.parametrize(
    ("path", "method", "route", "shown", "status"),
    [
        ("/things/a", "GET", "/things/{name}", "GET", "2xx"),
        ("/things/broken", "GET", "/things/{name}", "GET", "5xx"),
        ("/nothing/secret", "GET", "other", "GET", "4xx"),
        ("/things/a", "PROPFIND", "/things/{name}", "other", "4xx"),
    ],
)
def test_requests_are_counted_by_declared_route_method_and_class_of_status(
    path: str, method: str, route: str, shown: str, status: str
) -> None:
    labels = {"route": route, "method": shown}
    before = count("tabor_http_requests_total", **labels, status=status)
    durations = count("tabor_http_request_seconds_count", **labels)
    ask(path, method)
    assert count("tabor_http_requests_total", **labels, status=status) == before + 1
    assert count("tabor_http_request_seconds_count", **labels) == durations + 1
    assert count("tabor_http_running_requests") == 0


def test_no_text_of_a_client_becomes_a_label() -> None:
    for path in ("/things/user-data", "/user-data", "/things/user-data/user-data"):
        ask(path)
        ask(path, "USERDATA")
    shown = generate_latest(REGISTRY).decode()
    assert list(text_string_to_metric_families(shown))
    assert "user-data" not in shown
    assert "USERDATA" not in shown
