"""Random queries over series that are spread over nodes at random: the answer is that of one node, to the bit."""

from __future__ import annotations

import random
import re

import numpy as np
from hypothesis import event, given, settings
from hypothesis import strategies as st

from query.engine.engine import Engine, EngineConfig, QueryResult
from query.engine.values import EvalError, RangeVector, Scalar, String, Vector
from query.promql.printer import format_expr
from tests.acceptance.random_promql import BEGIN_MS, INTERVAL_S, N_SAMPLES, Expressions
from tests.acceptance.random_promql import data as random_series
from tests.memory_cluster import MemoryCluster
from tests.memory_store import MemoryStore
from tests.property.test_engine import END, NAMES, STALE, START, data, expressions

ONE_NAN = np.float64(np.nan).view(np.uint64)


def bits(values: np.ndarray) -> list[int]:
    """Of NaNs it does not matter which they are: arithmetic makes them as the processor likes."""
    found = np.ascontiguousarray(values).view(np.uint64).copy()
    found[np.isnan(values)] = ONE_NAN
    return found.tolist()


def content(result: QueryResult) -> object:
    """An answer in a form that compares; in which order the series of a vector are is open."""
    value = result.value
    match value:
        case Vector():
            rows = [
                (sorted(labels.items()), result.steps[present].tolist(), bits(values[present]))
                for labels, values, present in zip(value.labels, value.values, value.present, strict=True)
            ]
            return rows if result.kind == "matrix" else sorted(rows)
        case RangeVector():
            spans = zip(value.offsets[:-1].tolist(), value.offsets[1:].tolist(), strict=True)
            return [
                (sorted(labels.items()), value.timestamps[a:b].tolist(), bits(value.values[a:b]))
                for labels, (a, b) in zip(value.labels, spans, strict=True)
            ]
        case Scalar():
            return bits(value.values)
        case String():
            return value.value


def answer(engine: Engine, query: str, times: tuple[int, ...]) -> object:
    try:
        result = engine.instant(query, *times) if len(times) == 1 else engine.range(query, *times)
    except EvalError as error:
        # Of several things that are wrong, any may be found first.
        return "error", str(error).split(" ")[:3]
    return result.kind, content(result), sorted(result.warnings), sorted(result.infos)


def spread(series: list, n_nodes: int, dice: random.Random) -> MemoryCluster:
    nodes = [MemoryStore() for _ in range(n_nodes)]
    for labels, samples in series:
        dice.choice(nodes).add(labels, samples)
    return MemoryCluster(nodes)


def same_as_one_node(series: list, query: str, times: tuple[int, ...], n_nodes: int, dice: random.Random) -> None:
    cluster = spread(series, n_nodes, dice)
    expected = answer(Engine(MemoryStore(series), EngineConfig()), query, times)
    got = answer(Engine(cluster, EngineConfig()), query, times)
    event(f"pushed down: {min(len(cluster.evaluations), 3)}, read: {min(len(cluster.selects), 3)}")
    assert got == expected, query


@settings(deadline=None, max_examples=300)
@given(data(), expressions(3, NAMES), st.integers(1, 5), st.integers(0, 1 << 32), st.sampled_from([1, 4, 16]))
def test_a_query_over_nodes_answers_as_over_one(
    series: list, expr: object, n_nodes: int, seed: int, n_steps: int
) -> None:
    query = format_expr(expr)  # type: ignore[arg-type]
    times = (END,) if n_steps == 1 else (START, END, (END - START) // (n_steps - 1))
    same_as_one_node(series, query, times, n_nodes, random.Random(seed))


def hard(value: float, dice: random.Random) -> float:
    """Often one of which every bit counts, so that the order of additions does."""
    return value if dice.random() < 0.3 else value * dice.choice((1.0, 1e-3, 1e6)) * (1.0 + dice.random())


@settings(deadline=None, max_examples=300)
@given(st.integers(0, 1 << 32), st.integers(0, 1 << 20), st.integers(1, 5), st.sampled_from([1, 5, 20]))
def test_a_query_that_prometheus_knows_does_so_too(seed: int, number: int, n_nodes: int, n_steps: int) -> None:
    dice = random.Random(number)
    series = [
        (one.labels, [(t, STALE if value is None else hard(value, dice)) for t, value in one.samples])
        for one in random_series(seed % 20)
    ]
    query, is_range = Expressions(seed, number).any()
    length_ms = N_SAMPLES * INTERVAL_S * 1000
    times: tuple[int, ...] = (BEGIN_MS + length_ms // 2,)
    if is_range and n_steps > 1:
        times = (BEGIN_MS, BEGIN_MS + length_ms, length_ms // n_steps)
    same_as_one_node(series, query, times, n_nodes, dice)


SELECTORS = st.sampled_from(["a", 'b{x="1"}', '{__name__=~"a|b|c"}', '{__name__=~".+"}', "d", 'a{y!="2"}'])
MODIFIERS = st.sampled_from(["", "", "", " offset 1m", " @ end()", " @ 900 offset -1m"])
OF_SERIES = (
    *("{}", "{}", "-{}", "abs({})", "{} * 2", "{} > bool 0", "{} != 1", "clamp({}, -1, 1)", "timestamp({})"),
    *("({} > 0) * {}", "rate({}[3m])", "max_over_time({}[3m])", "last_over_time({}[4m])", "limit_ratio(-0.5, {})"),
    *("sum_over_time(({} / 3)[5m:1m])", 'label_replace({}, "x", "c", "y", "(.*)")', "sort({})", "{} ^ 0.5"),
)
GROUPINGS = ("", "by (x)", "by (x, __name__)", "without (y)", "without (x, y, __name__)", "by (__name__)")
FOLDS = (*("sum", "avg", "count", "group", "min", "max", "stddev", "stdvar"), "quantile", "limitk", "count_values")


@st.composite
def aggregations(draw: st.DrawFn) -> str:
    """Mostly what is pushed down, of values of which many are equal."""
    selector, modifiers = draw(SELECTORS), draw(MODIFIERS)
    of_series = draw(st.sampled_from(OF_SERIES))
    inner = re.sub(r"\{\}(\[\dm\])?", lambda m: f"{selector}{m[1] or ''}{modifiers}", of_series)
    op = draw(st.sampled_from((*FOLDS, "topk", "bottomk", "topk", "")))
    if not op:
        return inner
    parameter = {"quantile": "0.3, ", "count_values": '"v", '}.get(op, "")
    if op in ("topk", "bottomk", "limitk"):
        parameter = f"{draw(st.sampled_from(['0', '1', '2', '3', '5', 'time() % 4']))}, "
    return f"{op} {draw(st.sampled_from(GROUPINGS))} ({parameter}{inner})"


@st.composite
def combinations(draw: st.DrawFn) -> str:
    parts = aggregations()
    forms = ("{}", "{}", "sum({})", "max_over_time(({})[4m:1m])", "{} + on (x) {}", "{} or {}", "-({})")
    text = draw(st.sampled_from(forms))
    while "{}" in text:
        text = text.replace("{}", f"({draw(parts)})", 1)
    return text


@settings(deadline=None, max_examples=400)
@given(data(), combinations(), st.integers(1, 5), st.integers(0, 1 << 32), st.sampled_from([1, 4, 16]))
def test_aggregations_over_nodes_are_those_over_one(
    series: list, query: str, n_nodes: int, seed: int, n_steps: int
) -> None:
    times = (END,) if n_steps == 1 else (START, END, (END - START) // (n_steps - 1))
    same_as_one_node(series, query, times, n_nodes, random.Random(seed))
