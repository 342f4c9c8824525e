"""What several tenants see together, and what one does not see of the others."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from common.access import Principal, Right
from common.store import MAX_TIME_MS, MIN_TIME_MS, Matcher, MatchOp
from common.tenants import Tenancy
from ingest.errors import InvalidLabels
from query.engine.budget import Budget
from query.running import Asked, Queries
from query.tenants import TenantStore
from tests.memory_store import MemoryStore
from tests.tenancies import Tabor, tabor

ALL_TIME = MIN_TIME_MS, MAX_TIME_MS
STORE = MemoryStore(
    [
        ({"__name__": "up", "job": "x"}, [(1, 1.0)]),
        ({"__name__": "up", "job": "x", "__tenant__": "a"}, [(1, 2.0)]),
        ({"__name__": "up", "job": "y", "__tenant__": "a", "__tenant_id__": "own"}, [(2, 3.0)]),
        ({"__name__": "up", "job": "x", "__tenant__": "b"}, [(9, 4.0)]),
    ]
)


def seen(tenants: str, *matchers: Matcher) -> list[dict[str, str]]:
    table = TenantStore(STORE, tenants.split("|")).select(matchers, *ALL_TIME, 100).labels
    assert list(table.names) == sorted(table.names)
    return sorted((table.labels(i) for i in range(len(table))), key=str)


def test_one_tenant_has_its_labels_as_they_were_sent() -> None:
    assert seen("default") == seen("b") == [{"__name__": "up", "job": "x"}]
    assert {"__name__": "up", "job": "y", "__tenant_id__": "own"} in seen("a")


def test_several_tenants_are_told_apart_by_their_id_and_a_label_of_that_name_is_moved() -> None:
    assert seen("a|default") == [
        {"__name__": "up", "__tenant_id__": "a", "job": "x"},
        {"__name__": "up", "__tenant_id__": "a", "job": "y", "original___tenant_id__": "own"},
        {"__name__": "up", "__tenant_id__": "default", "job": "x"},
    ]


@pytest.mark.parametrize(
    ("matcher", "n_series"),
    [
        (Matcher(MatchOp.EQUAL, "__tenant_id__", "a"), 2),
        (Matcher(MatchOp.NOT_REGEX, "__tenant_id__", "a|c"), 1),
        (Matcher(MatchOp.EQUAL, "__tenant_id__", "default"), 0),
        (Matcher(MatchOp.EQUAL, "original___tenant_id__", "own"), 1),
        (Matcher(MatchOp.EQUAL, "__tenant__", "a"), 0),
        (Matcher(MatchOp.NOT_EQUAL, "__tenant__", "a"), 3),
    ],
)
def test_matchers_on_the_id_choose_among_the_tenants(matcher: Matcher, n_series: int) -> None:
    assert len(seen("a|b", matcher)) == n_series


def test_names_and_values_of_several_tenants() -> None:
    both, alone = TenantStore(STORE, ("a", "default")), TenantStore(STORE, ("default",))
    assert both.label_names([], *ALL_TIME) == ["__name__", "__tenant_id__", "job", "original___tenant_id__"]
    assert both.label_values("__tenant_id__", [], *ALL_TIME) == ["a", "default"]
    assert both.label_values("original___tenant_id__", [], *ALL_TIME) == ["own"]
    assert alone.label_names([], *ALL_TIME) == ["__name__", "job"]
    assert (
        alone.label_values("__tenant__", [], *ALL_TIME) == alone.label_values("__tenant_id__", [], *ALL_TIME) == []
    )
    assert (alone.extent().min_time_ms, alone.extent().max_time_ms) == (1, 1)
    assert (both.extent().min_time_ms, both.extent().max_time_ms) == (1, 2)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tabor]:
    with tabor(tmp_path_factory.mktemp("tabor"), Tenancy.REQUIRED) as found:
        for tenant in ("a", "b"):
            text = f'up{{job="{tenant}"}} 1 1000\n'
            assert found.ask("POST", "/api/v1/import/prometheus", tenant, content=text).status_code == 204
        yield found


def values(whole: Tabor, tenant: str | None, principal: Principal | None = None) -> list[str]:
    answer = whole.ask("GET", "/api/v1/label/job/values", tenant, principal)
    assert answer.status_code == 200, answer.text
    found: list[str] = answer.json()["data"]
    return found


def test_the_header_and_the_token_say_whose_series_are_read(whole: Tabor) -> None:
    assert [values(whole, tenant) for tenant in ("a", "b", "a|b", "default")] == [["a"], ["b"], ["a", "b"], []]
    token = Principal("grafana", Right.READ, ("b",))
    assert values(whole, None, token) == values(whole, "b", token) == ["b"]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/v1/query?query=up"),
        ("GET", "/api/v1/metadata"),
        ("GET", "/federate?match[]=up"),
        ("POST", "/api/v1/write"),
        ("POST", "/api/v1/import/prometheus"),
        ("POST", "/api/v1/otlp/v1/metrics"),
        ("POST", "/api/v1/admin/tsdb/delete_series?match[]=up"),
    ],
)
def test_every_door_refuses_requests_of_no_tenant_and_of_a_foreign_one(
    whole: Tabor, method: str, path: str
) -> None:
    token = Principal("grafana", Right.READ, ("b",))
    asked = ((None, None, 401), ("a/b", None, 400), ("a", token, 403), ("a|b", token, 403))
    for tenant, principal, status in asked:
        answer = whole.ask(method, path, tenant, principal, headers={"content-type": "application/x-protobuf"})
        assert answer.status_code == status, answer.text


def test_the_label_of_tenants_is_refused_in_what_is_sent(whole: Tabor) -> None:
    text = 'up{job="c",__tenant__="b"} 1 1000\nup{job="d",x="__tenant__",y="\\n__tenant__1"} 1 1000\n'
    answer = whole.ask("POST", "/api/v1/import/prometheus", "a", content=text)
    assert answer.status_code == 400
    assert "__tenant__ is not for senders to set; 1 series of the request refused" in answer.text
    assert values(whole, "a") == ["a", "d"]
    assert values(whole, "b") == ["b"]
    with whole.producer("b") as producer, pytest.raises(InvalidLabels, match="the producer has a tenant"):
        producer.series([{"__name__": "up", "__tenant__": "a"}])


def test_queries_under_way_are_shown_to_their_tenants_and_to_administrators_alone() -> None:
    queries = Queries(slow_s=0.0)
    budget = Budget(1, 1, 1.0)
    for tenant in ("a", "b", "a|b"):
        queries.begin(Asked(tenant=tenant, text=tenant), budget, threading.Event())
    slow = queries.begin(Asked(tenant="b"), budget, threading.Event())
    queries.end(slow, None)
    shown = {tenants: queries.shown(tenants) for tenants in (("a",), ("a", "b"), None)}
    assert [len(one["queries"]) for one in shown.values()] == [1, 3, 3]
    assert [len(one["slow"]) for one in shown.values()] == [0, 1, 1]
    ids = [one["id"] for one in queries.shown()["queries"]]
    assert [queries.cancel(one, "x", ("a",)) for one in ids] == [True, False, False]


def test_what_tenants_there_are_is_told_to_administrators_and_of_oneself(whole: Tabor) -> None:
    def told(tenant: str | None, principal: Principal | None = None) -> list[str]:
        answer = whole.ask("GET", "/api/v1/status/tenants", tenant, principal)
        assert answer.status_code == 200, answer.text
        return [row["tenant"] for row in answer.json()["data"]["tenants"]]

    assert told(None) == ["a", "b"]
    assert told("a") == told(None, Principal("t", Right.READ | Right.ADMIN, ("a",))) == ["a"]
    reader = Principal("reader", Right.READ)
    assert whole.ask("GET", "/api/v1/status/tenants", None, reader).status_code == 401


def test_a_tenant_is_deleted_by_whom_it_concerns(whole: Tabor) -> None:
    bound = Principal("t", Right.ADMIN, ("b",))
    asked = (("a", bound, 403), ("a/b", None, 400), ("", None, 400))
    for name, principal, status in asked:
        answer = whole.ask("POST", "/api/v1/admin/delete_tenant", None, principal, params={"tenant": name})
        assert answer.status_code == status, answer.text
    assert values(whole, "a")
