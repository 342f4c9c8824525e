"""`stats` tells what a query has cost, with Prometheus' names, the same whether storage nodes evaluate or not."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from query.config import QueryConfig
from query.engine.engine import Engine, EngineConfig
from query.service import QueryService
from tests.memory_cluster import MemoryCluster
from tests.memory_store import MemoryStore
from tests.unit.query.engine.answers import STALE
from tests.unit.query.test_http import Client

RANGE = {"start": 100, "end": 220, "step": 60}


def stores() -> list[MemoryStore]:
    """Two series, of which the second ends with a stale marker at 150 s."""
    whole, ends = MemoryStore(), MemoryStore()
    whole.add({"__name__": "m", "i": "1"}, [(1000 * t, float(t)) for t in range(0, 301, 10)])
    ends.add({"__name__": "m", "i": "2"}, [(1000 * t, STALE if t == 150 else 1.0) for t in range(0, 151, 10)])
    return [whole, ends]


def one_store() -> MemoryStore:
    together = MemoryStore()
    together.add({"__name__": "m", "i": "1"}, [(1000 * t, float(t)) for t in range(0, 301, 10)])
    together.add({"__name__": "m", "i": "2"}, [(1000 * t, STALE if t == 150 else 1.0) for t in range(0, 151, 10)])
    return together


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    service = QueryService(one_store(), QueryConfig())
    yield Client(service)
    service.close()


# Samples that Prometheus looks at for the steps at 100, 160 and 220 s.
LOOKED_AT = [
    ("m", [2, 1, 1]),
    ("m offset 1m", [2, 2, 1]),
    ("m @ 100", [2, 2, 2]),
    ("rate(m[1m])", [12, 10, 6]),
    ("sum(m) / count(m)", [4, 2, 2]),
    ("sum_over_time(m[20s])", [4, 2, 2]),
    ("1", [0, 0, 0]),
    ("nothing", [0, 0, 0]),
]


@pytest.mark.parametrize(("query", "at_steps"), LOOKED_AT)
def test_samples_at_each_step_are_those_that_prometheus_would_look_at(
    client: Client, query: str, at_steps: list[int]
) -> None:
    stats = client.data("/api/v1/query_range", query=query, stats="all", **RANGE)["stats"]
    per_step = stats["samples"]["totalQueryableSamplesPerStep"]
    assert per_step == [[100.0, at_steps[0]], [160.0, at_steps[1]], [220.0, at_steps[2]]]
    assert stats["samples"]["totalQueryableSamples"] == sum(at_steps)


@pytest.mark.parametrize("query", [query for query, _ in LOOKED_AT] + ["sum_over_time(rate(m[1m])[2m:30s])"])
def test_storage_nodes_count_the_same(query: str) -> None:
    def counted(engine: Engine) -> list[int]:
        budget = engine.budget()
        budget.count_steps = True
        found = engine.range(query, 100_000, 220_000, 60_000, budget=budget).stats.samples_at_steps
        assert found is not None
        return [int(n) for n in found]

    cluster = MemoryCluster(stores())
    assert counted(Engine(cluster, EngineConfig())) == counted(Engine(one_store(), EngineConfig()))


def test_the_shape_is_that_of_prometheus_and_tabors_own_is_apart(client: Client) -> None:
    stats = client.data("/api/v1/query", query="sum(rate(m[1m]))", time=160, stats="true")["stats"]
    assert stats.keys() == {"timings", "samples", "tabor"}
    times = {"evalTotalTime", "resultSortTime", "queryPreparationTime", "innerEvalTime", "execQueueTime"}
    assert stats["timings"].keys() == times | {"execTotalTime"}
    assert 0 < stats["timings"]["evalTotalTime"] <= stats["timings"]["execTotalTime"] < 30
    assert stats["samples"].keys() == {"totalQueryableSamples", "peakSamples"}
    own = stats["tabor"]
    assert (own["seriesRead"], own["samplesRead"]) == (2, 11)
    assert stats["samples"]["peakSamples"] >= 11
    assert own["stages"].keys() >= {"wait", "catch_up", "parse", "plan", "select", "compute"}


def test_without_the_parameter_nothing_is_said(client: Client) -> None:
    for stats in ({}, {"stats": ""}):
        assert "stats" not in client.data("/api/v1/query", query="m", time=160, **stats)


def test_a_count_of_steps_is_not_made_unless_asked() -> None:
    result = Engine(one_store(), EngineConfig()).range("m", 0, 60_000, 60_000)
    assert result.stats.samples_at_steps is None
    assert np.isclose(result.stats.peak_samples, result.stats.samples + 4)


def test_answers_with_statistics_keep_to_their_limit(client: Client) -> None:
    whole = client.raw("/api/v1/query_range", query="m", stats="all", **RANGE)
    service = QueryService(one_store(), QueryConfig(max_response_bytes=len(whole) // 2))
    try:
        status, said = Client(service).ask("/api/v1/query_range", query="m", stats="all", **RANGE)
        assert (status, said["errorType"]) == (422, "execution")
    finally:
        service.close()
    assert json.loads(whole)["data"]["stats"]["samples"]


def test_other_values_of_the_parameter_are_like_in_prometheus(client: Client) -> None:
    answer: Any = client.data("/api/v1/query_range", query="m", stats="anything", **RANGE)
    assert "totalQueryableSamplesPerStep" not in answer["stats"]["samples"]
