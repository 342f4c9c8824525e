"""Which parts of a query are pushed down, and that nothing but pieces travels then."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import pytest

from common.errors import CallerError, RetryableError
from common.store import TooManySamples, TooManySeries
from common.wire.requests import ReadRequest
from query.engine.budget import Budget, QueryTimeout
from query.engine.engine import Engine, EngineConfig, parsed
from query.engine.frame import Frame
from query.engine.values import EvalError
from query.promql.ast import Expr, children
from query.promql.durations import resolve
from query.promql.printer import format_expr
from query.pushdown.answering import evaluate
from query.pushdown.planning import pieces
from tests.memory_cluster import MemoryCluster
from tests.memory_store import MemoryStore
from tests.oracles.histogram import NativeHistogram
from tests.property.test_pushdown import answer
from tests.unit.common.test_matrices import EVALUATION

MINUTE = 60_000


def pushed(query: str, *, n_steps: int = 10, step_ms: int = MINUTE) -> list[str]:
    """The pieces as text, with the number of their steps where that is not that of the query."""
    steps = 3_600_000 + step_ms * np.arange(n_steps)
    times = int(steps[0]), int(steps[-1]), step_ms
    expr = resolve(parsed(query, False), *times)
    found = pieces(expr, Frame(steps, step_ms, *times), Budget(1_000_000, 1000, 10.0), 300_000, MINUTE)
    out = []
    for piece in found:
        assert piece.expr is at(expr, piece.path)
        n = len(piece.frame.steps)
        out.append(format_expr(piece.expr) + ("" if n == n_steps else f" at {n}"))
    return out


def at(expr: Expr, path: tuple[int, ...]) -> Expr:
    for i in path:
        expr = children(expr)[i]
    return expr


WHOLE = [
    "m",
    'm{a="b"} offset 5m',
    "rate(m[5m])",
    "rate(m[5m] offset 1h)",
    "max_over_time(rate(m[5m])[1h:1m])",
    "abs(-m * 2 + time()) > bool 3",
    "2 ^ m",
    "quantile_over_time(0.9, m[1h])",
    "predict_linear(m[1h], 60 * 2)",
    "clamp(m, min_of(1, 2), 3)",
    "timestamp(m)",
    "hour(m)",
    "limit_ratio(0.5, m)",
    "histogram_count(m)",
    "sum by (a) (rate(m[5m]))",
    *(f"{op}(m)" for op in ("avg", "count", "group", "min", "max", "stddev", "stdvar")),
    "topk by (a) (3, m)",
    "bottomk(2, rate(m[5m]))",
    'count_values("v", m)',
]


@pytest.mark.parametrize("query", WHOLE)
def test_what_nodes_can_evaluate_is_pushed_down_whole(query: str) -> None:
    assert pushed(query) == [format_expr(parsed(query, False))]


@pytest.mark.parametrize(
    ("query", "parts"),
    [
        ("sum(m) / count(n)", ["sum(m)", "count(n)"]),
        ("(sum(m) + 1) * 2", ["sum(m)"]),
        ("a - on (x) b", ["a", "b"]),
        ("a and b", ["a", "b"]),
        ("quantile(0.9, rate(m[5m]))", ["rate(m[5m])"]),
        ("limitk(2, m)", ["m"]),
        ("topk(scalar(k), m)", ["m", "k"]),
        ("m * scalar(k)", ["m", "k"]),
        ("sort(sum(m))", ["sum(m)"]),
        ("absent(m)", ["m"]),
        ("absent_over_time(m[5m])", []),
        ('label_replace(rate(m[5m]), "a", "$1", "b", "(.*)")', ["rate(m[5m])"]),
        ("histogram_quantile(0.9, sum by (le) (rate(m_bucket[5m])))", ["sum by (le) (rate(m_bucket[5m]))"]),
        ("sum(max by (a) (m))", ["max by (a) (m)"]),
        ("max_over_time(sum(m)[10m:1m])", ["sum(m) at 19"]),
        ("sum(m @ end())", ["sum(m @ 4140.000) at 1"]),
        ("m + on () group_left () sum(m @ 5)", ["m", "sum(m @ 5.000) at 1"]),
        ("vector(1)", []),
        ("1 + time()", []),
        ("info(m)", ["m"]),
        ("minute()", []),
    ],
)
def test_what_puts_series_together_is_not(query: str, parts: list[str]) -> None:
    assert pushed(query) == parts


def test_series_are_pushed_down_where_that_is_likely_to_be_less() -> None:
    assert pushed("m", n_steps=100, step_ms=15_000) == ["m"]
    assert pushed("m", n_steps=100, step_ms=1_000) == []
    assert pushed("m", n_steps=20, step_ms=1_000) == ["m"]
    assert pushed("rate(m[1h])", n_steps=100, step_ms=1_000) == ["rate(m[1h])"]
    assert pushed("abs(m) + n", n_steps=100, step_ms=1_000) == []
    assert pushed("sum(m)", n_steps=100, step_ms=1_000) == ["sum(m)"]
    assert pushed("abs(m @ 5)", n_steps=100, step_ms=1_000) == ["abs(m @ 5.000) at 1"]


def gauges(**values: list[float]) -> MemoryStore:
    return MemoryStore(
        ({"__name__": "m", "i": i}, [(n * MINUTE, value) for n, value in enumerate(one)])
        for i, one in values.items()
    )


def test_no_samples_travel_for_what_is_pushed_down() -> None:
    cluster = MemoryCluster([gauges(a=[1, 2]), gauges(b=[3, 4]), gauges()])
    result = Engine(cluster, EngineConfig()).range("sum(rate(m[5m])) + sum(m)", 0, MINUTE, MINUTE)
    assert len(cluster.evaluations) == 2
    assert cluster.selects == []
    assert (result.stats.series, result.stats.samples) == (4, 8)
    assert Engine(cluster, EngineConfig(pushdown=False)).instant("sum(m)", 0).value.values.tolist() == [[4.0]]
    assert len(cluster.selects) == 1


def test_limits_hold_for_all_nodes_together() -> None:
    cluster = MemoryCluster([gauges(a=[1, 2], b=[1, 2]), gauges(c=[1, 2])])
    ask = "sum(m) + count(m)"
    assert Engine(cluster, EngineConfig(max_samples=12, max_series=6)).instant(ask, MINUTE).stats.samples == 12
    with pytest.raises(TooManySamples, match="more than 11 samples"):
        Engine(cluster, EngineConfig(max_samples=11)).instant(ask, MINUTE)
    with pytest.raises(TooManySeries, match="more than 5 series"):
        Engine(cluster, EngineConfig(max_series=5)).instant(ask, MINUTE)


def test_errors_and_annotations_are_those_of_the_query() -> None:
    cluster = MemoryCluster([gauges(a=[1.0, 2.0]), gauges(b=[3.0, 4.0])])
    with pytest.raises(EvalError, match="Parameter value is NaN"):
        Engine(cluster, EngineConfig()).instant("1 + topk(NaN, m)", 0)
    query = "1 +\n sum(rate(m[5m])) + sum(quantile_over_time(2, m[5m]))"
    local, remote = (
        Engine(store, EngineConfig()).instant(query, MINUTE)
        for store in (gauges(a=[1.0, 2.0], b=[3.0, 4.0]), cluster)
    )
    assert len(cluster.evaluations) == 3
    assert remote.infos == local.infos != []
    assert remote.warnings == local.warnings != []
    assert "(2:11)" in remote.infos[0]
    with pytest.raises(QueryTimeout):
        Engine(cluster, EngineConfig(timeout_s=1e-9)).instant("sum(m)", 0)


def test_histograms_are_fetched_as_samples() -> None:
    one = NativeHistogram(0, 4, 8.0, 0.5, 1, ((1, 2),), (1, 2)).encode()
    parts = [
        [({"__name__": "h", "i": "a"}, [(0, one), (MINUTE, one)]), ({"__name__": "f", "i": "a"}, [(0, 1.0)])],
        [({"__name__": "h", "i": "b"}, [(0, one)]), ({"__name__": "mixed", "i": "b"}, [(0, one), (MINUTE, 2.0)])],
        [({"__name__": "mixed", "i": "c"}, [(0, 5.0), (MINUTE, 2.0)])],
    ]
    cluster = MemoryCluster(map(MemoryStore, parts))
    union = MemoryStore(series for part in parts for series in part)
    for query, travels in (
        ("h", True),
        ("sum(h)", True),
        ("avg by (i) (mixed)", True),
        ("rate(h[5m])", True),
        ("topk(1, mixed)", False),
        ("max(mixed)", False),
        ("count(h)", False),
        ("sum(histogram_count(h))", False),
        ("histogram_count(sum(h))", True),
        ('count_values("v", mixed)', False),
        ("histogram_quantile(0.5, sum(h))", True),
        ("sum(f) + sum(histogram_sum(mixed))", False),
        ("f * 2", False),
    ):
        cluster.selects.clear()
        for times in ((0,), (MINUTE,), (0, MINUTE, MINUTE)):
            expected = answer(Engine(union, EngineConfig()), query, times)
            assert answer(Engine(cluster, EngineConfig()), query, times) == expected, query
        assert bool(cluster.selects) == travels, query


def test_a_node_evaluates_only_what_it_should() -> None:
    good = replace(EVALUATION, query="1 + sum(m) / on () sum(n)", path=(1, 0))
    for changed in ({"path": (7,)}, {"path": (-1,)}, {"path": (0,)}, {"path": ()}, {"query": "sum("}):
        request = ReadRequest("one", (0,), max_samples=50, evaluation=replace(good, **changed))
        with pytest.raises(CallerError):
            evaluate(gauges(), request, ())
    with pytest.raises(CallerError):
        evaluate(gauges(), ReadRequest("one", (0,)), ())
    with pytest.raises(TooManySamples):
        evaluate(gauges(), ReadRequest("one", (0,), max_samples=8, evaluation=good), ())
    assert evaluate(gauges(), ReadRequest("one", (0,), max_samples=9, evaluation=good), ())


def test_an_evaluation_that_nobody_waits_for_ends() -> None:
    gone = threading.Event()
    gone.set()
    request = ReadRequest("one", (0,), max_samples=50, evaluation=replace(EVALUATION, query="sum(m)", path=()))
    with pytest.raises(RetryableError, match="ended"):
        evaluate(gauges(), request, (threading.Event(), gone))


def test_what_stands_in_a_query_twice_is_asked_once() -> None:
    cluster = MemoryCluster([gauges(a=[1, 2]), gauges(b=[3, 4])])
    result = Engine(cluster, EngineConfig()).instant("sum(m) + sum( m ) / count(m)", 0)
    assert len(cluster.evaluations) == 2
    assert result.value.values.tolist() == [[6.0]]
    Engine(cluster, EngineConfig()).instant("rate(m[5m]) + rate(m[5m])", MINUTE)
    assert len(cluster.evaluations) == 4, "messages of both places are wanted"


LABELS = ({"x": "1"}, {"x": "2", "z": "\u00fc\u2603"}, {"x": "2", "y": "b"}, {})
BUCKETS = ({"le": "1"}, {"le": "2"}, {"le": "+Inf"})
ODD = [
    *('m{z="\\u00fc\u2603"} or m{z!~"\\u2603.*"}', "m[5m]", "m[5m:90s]", "m @ start() - m @ end()", "time()"),
    '"a"',
    *("m offset (step() * 2)", "rate(m[range() / 3 + 1m])", "sum(m) * range() + start() - end() + step()"),
    *("sum by (x) (sum_over_time(m[step() + 2m] offset (-step())))", "clamp(m, min_of(1, 2), max_of(3, time()))"),
    *("info(m)", 'info(m, {data=~".+"})', "absent(m)", "absent(sum(nothing))", "scalar(sum(m)) + m", "vector(1)"),
    *("sort_by_label(m, 'x')", "sort_desc(m)", 'label_join(m, "w", "-", "x", "y")', "count(sum by (x) (m))"),
    *("histogram_quantile(0.5, rate(h_bucket[5m]))", "histogram_quantile(0.5, sum by (le) (h_bucket))"),
    *("rate(m[5m] smoothed)", "increase(m[5m] anchored)", "m smoothed", "timestamp(m offset 1m)", "minute()"),
    *("hour(m * 1e6)", "m == bool 1", "1 < m", "-(m ^ 2) % 3", "sum(m) / on () group_right () m", "m unless n"),
    *("{__name__=~'m|n'} * 1", "sum by (__name__) ({x='1'})", "topk(1, {__name__=~'m|n'} / 2)", "deriv(m[5m])"),
    *("predict_linear(m[5m], time())", "quantile_over_time(1.5, m[5m])", "quantile(-1, m)", "limit_ratio(2, m)"),
    *("max_over_time(sum by (x) (rate(m[2m]))[6m:1m])", "avg_over_time(topk(2, m)[6m:1m])", "sum(sum(m) + 1)"),
    *("m + on (x) group_left (y) fill_right (7) n", "double_exponential_smoothing(m[5m], 0.5, 0.5)"),
    *(
        "limitk(2, m)",
        "topk(5e30, m)",
        "count_values('\\xff', m)",
        "count_values by (x) ('x', m)",
    ),
    *("group(m) - 1", "m[5m] offset 1m"),
]


@pytest.mark.parametrize("query", ODD)
def test_odd_queries_have_the_answers_of_one_node(query: str) -> None:
    series = [
        ({"__name__": name, **labels}, [(n * MINUTE, n * n % 7 + i / 3) for n in range(20)])
        for name, sets in (("m", LABELS), ("n", LABELS[1:3]), ("h_bucket", BUCKETS), ("target_info", LABELS))
        for i, labels in enumerate(sets)
    ]
    parts: list[list] = [[], [], []]
    for i, one in enumerate(series):
        parts[i % 3].append(one)
    for times in ((15 * MINUTE,), (5 * MINUTE, 15 * MINUTE, 2 * MINUTE), (5 * MINUTE, 6 * MINUTE, 1000)):
        found = []
        for store in (MemoryStore(series), MemoryCluster(map(MemoryStore, parts))):
            try:
                found.append(answer(Engine(store, EngineConfig()), query, times))
            except CallerError as error:
                found.append(str(error))
        assert found[0] == found[1]
