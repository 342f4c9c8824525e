"""Queries can be seen while they run, ended, and are remembered and logged when they were slow."""

from __future__ import annotations

import json
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
import structlog

from query.config import QueryConfig
from query.running import MAX_SLOW, MAX_TEXT
from query.service import QueryService
from tests.processes import wait_for
from tests.unit.query.test_http import T0, Client
from tests.unit.query.test_limits import Slow

PATH = "/api/v1/status/queries"


class World:
    """A server whose reads wait, and a thread for each who asks."""

    def __init__(self, **config: Any) -> None:
        self.store = Slow()
        self.store.add({"__name__": "up"}, [(T0 * 1000, 1.0)])
        self.service = QueryService(self.store, QueryConfig(**config))
        self.client = Client(self.service)
        self._threads = ThreadPoolExecutor(4)

    def ask(self, query: str) -> Future[Any]:
        return self._threads.submit(self.client.ask, "/api/v1/query", query=query, time=T0)

    def shown(self) -> dict[str, Any]:
        found: dict[str, Any] = self.client.data(PATH)
        return found

    def close(self) -> None:
        self.store.go_on.set()
        self._threads.shutdown()
        self.service.close()


@pytest.fixture
def world(request: pytest.FixtureRequest) -> Any:
    world = World(**getattr(request, "param", {}))
    yield world
    world.close()


@pytest.mark.parametrize("world", [{"max_concurrency": 1}], indirect=True)
def test_queries_that_run_and_wait_are_shown(world: World) -> None:
    world.ask("up")
    world.store.entered.wait(10)
    world.ask("up + 1")
    shown = wait_for(lambda: (found := world.shown()["queries"])[1:] and found, "two queries are there")
    assert [(one["query"], one["state"]) for one in shown] == [("up", "running"), ("up + 1", "waiting")]
    assert {one["route"] for one in shown} == {"/api/v1/query"}
    assert shown[0]["principal"] == "anyone"
    assert shown[0]["client"].startswith("127.0.0.1")
    assert 0 < shown[0]["running_seconds"] < 30
    world.store.go_on.set()
    wait_for(lambda: not world.shown()["queries"], "they have ended")


def test_a_query_can_be_cancelled(world: World) -> None:
    answer = world.ask("up")
    world.store.entered.wait(10)
    (one,) = world.shown()["queries"]
    assert world.client.delete(f"{PATH}/{one['id']}") == 204
    assert world.shown()["queries"][0]["state"] == "cancelled"
    world.store.go_on.set()
    status, said = answer.result(10)
    assert (status, said["errorType"]) == (499, "canceled")
    assert "cancelled by an operator" in said["error"]
    assert world.client.delete(f"{PATH}/{one['id']}") == 404
    assert world.client.data("/api/v1/query", query="up", time=T0)["result"], "others are not ended"


@pytest.mark.parametrize("world", [{"slow_query_s": 1e-9}], indirect=True)
def test_slow_queries_are_remembered_and_logged_with_bounds(world: World) -> None:
    world.store.go_on.set()
    long = "up" + " " * MAX_TEXT
    with structlog.testing.capture_logs() as logged:
        assert world.ask(long).result(30)[0] == 200
        assert world.ask("sum(up").result(30)[0] == 400
    slow = wait_for(lambda: (found := world.shown()["slow"])[1:] and found, "both are remembered")
    failed, answered = slow[:2]
    assert (answered["outcome"], answered["samples"], answered["series"]) == ("answered", 1, 1)
    assert len(answered["query"]) == MAX_TEXT
    assert {"wait", "parse", "select", "compute", "encode"} <= answered["stages"].keys()
    assert failed["outcome"] == "ParseError"
    events = [one for one in logged if one["event"] == "slow_query"]
    assert [len(one["query"]) for one in events] == [MAX_TEXT, len("sum(up")]
    assert all(one["query_id"] and one["running_seconds"] > 0 for one in events)
    for _ in range(MAX_SLOW):
        world.client.ask("/api/v1/labels")
    wait_for(lambda: len(world.shown()["slow"]) == MAX_SLOW, "the ring is full")


def test_no_query_is_slow_below_the_threshold(world: World) -> None:
    world.store.go_on.set()
    assert world.ask("up").result(30)[0] == 200
    assert world.shown() == {"queries": [], "slow": [], "slow_threshold_seconds": 5.0}


def test_what_is_shown_is_json_while_queries_come_and_go(world: World) -> None:
    world.store.go_on.set()
    stop = threading.Event()

    def many() -> int:
        n = 0
        while not stop.is_set():
            world.client.ask("/api/v1/query", query="up", time=T0)
            n += 1
        return n

    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(many)
        for _ in range(50):
            json.dumps(world.service.queries.shown())
        stop.set()
        assert asked.result(30) > 0
