"""Random queries on random series: the engine answers as the oracle does."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from common.store import STALE_NAN_BITS, Matcher, MatchOp
from query.engine.engine import Engine, EngineConfig, QueryResult
from query.engine.values import EvalError, Vector
from query.promql.ast import (
    Aggregate,
    AtEdge,
    Binary,
    Call,
    Cardinality,
    Expr,
    MatrixSelector,
    NumberLiteral,
    StringLiteral,
    Subquery,
    Unary,
    VectorMatching,
    VectorSelector,
)
from tests.memory_store import MemoryStore
from tests.oracles import functions
from tests.oracles.promql import Element, Oracle, OracleError

START, END, STEP = 600_000, 1_500_000, 60_000
STALE = float(np.array([STALE_NAN_BITS]).view(np.float64)[0])
NAMES = ("a", "b", "c", "d")

SPECIAL = (math.nan, math.inf, -math.inf, STALE, -0.0, 1e9)


@st.composite
def data(draw: st.DrawFn) -> list[tuple[dict[str, str], list[tuple[int, float]]]]:
    """Up to nine series of each name, with gaps, stale markers and special values."""
    dice = random.Random(draw(st.integers(0, 1 << 32)))
    density, oddness = dice.choice([0.1, 0.5, 0.9]), dice.choice([0.0, 0.2])
    out = []
    for name in NAMES:
        for x in ("", "1", "2"):
            for y in ("", "1", "2"):
                if dice.random() < 0.4:
                    times = [n * 53_000 for n in range(3, 30) if dice.random() < density]
                    odd = [dice.random() < oddness for _ in times]
                    values = [dice.choice(SPECIAL) if o else dice.randint(-6, 6) / 2 for o in odd]
                    out.append(({"__name__": name, "x": x, "y": y}, list(zip(times, values, strict=True))))
    dice.shuffle(out)
    return out


LABEL_LISTS = st.lists(st.sampled_from(["x", "y", "z"]), max_size=2, unique=True).map(tuple)
ARITHMETIC = ("+", "-", "*", "/", "%", "^", "atan2")
EXACT_FOLDS = ("sum", "avg", "min", "max", "count", "group", "limitk")
FOLDS = ("sum", "avg", "min", "max", "count", "group", "stddev", "stdvar", "quantile", "limitk")
COMPARISONS = ("==", "!=", ">", "<", ">=", "<=")
ABRUPT = (*COMPARISONS, "%", "^", "atan2")


@st.composite
def selectors(draw: st.DrawFn, names: tuple[str, ...]) -> Expr:
    name = draw(st.sampled_from(names))
    matchers = [Matcher(MatchOp.EQUAL, "__name__", name)]
    if draw(st.booleans()):
        op = draw(st.sampled_from(list(MatchOp)))
        matchers.append(Matcher(op, draw(st.sampled_from(["x", "y"])), draw(st.sampled_from(["1", "", "2"]))))
    offset = draw(st.sampled_from([0, 0, 0, 47_000, -90_000]))
    at = draw(st.sampled_from([None, None, None, 900_000, AtEdge.START, AtEdge.END]))
    return VectorSelector(name, tuple(matchers), offset, at)


@st.composite
def matchings(draw: st.DrawFn) -> VectorMatching:
    on, labels = draw(st.booleans()), draw(LABEL_LISTS)
    cardinality = draw(st.sampled_from([Cardinality.ONE_TO_ONE, Cardinality.MANY_TO_ONE, Cardinality.ONE_TO_MANY]))
    include: tuple[str, ...] = ()
    if cardinality is not Cardinality.ONE_TO_ONE:
        include = tuple(name for name in draw(LABEL_LISTS) if not (on and name in labels))
    fills = st.sampled_from([None, None, 7.0])
    return VectorMatching(cardinality, on, labels, include, draw(fills), draw(fills))


@st.composite
def expressions(draw: st.DrawFn, depth: int, names: tuple[str, ...], exact: bool = False) -> Expr:
    """Random expressions; `exact` ones have results on whose last bit oracle and engine agree, so that they may be
    compared or become labels."""
    if depth == 0:
        return draw(selectors(names))
    below = expressions(depth - 1, names, exact)
    kind = draw(
        st.sampled_from(["select", "unary", "scalar", "fold", "values", "vectors", "sets", "window", "element"])
    )
    arithmetic = tuple(op for op in ARITHMETIC if not (exact and op in ("^", "atan2")))
    match kind:
        case "unary":
            return Unary(draw(st.sampled_from("+-")), draw(below))
        case "scalar":
            op = draw(st.sampled_from(arithmetic + COMPARISONS))
            operand = draw(expressions(depth - 1, names, exact or op in ABRUPT))
            sides = [operand, NumberLiteral(draw(st.sampled_from([0.0, 1.0, -2.0, 0.5, math.inf])))]
            if draw(st.booleans()):
                sides.reverse()
            return Binary(op, sides[0], sides[1], op in COMPARISONS and draw(st.booleans()))
        case "fold":
            op = draw(st.sampled_from(EXACT_FOLDS if exact else FOLDS))
            # Which come first among those that an operation makes is open.
            plain = op == "limitk" or (exact and op in ("sum", "avg"))
            operand = draw(selectors(names) if plain else below)
            param = {"quantile": NumberLiteral(draw(st.sampled_from([0.0, 0.3, 0.5, 1.0, 2.0])))}.get(op)
            param = NumberLiteral(2.0) if op == "limitk" else param
            return Aggregate(op, operand, param, draw(LABEL_LISTS), draw(st.booleans()))
        case "values":
            label = StringLiteral(draw(st.sampled_from(["x", "v"])))
            operand = draw(expressions(depth - 1, names, True))
            return Aggregate("count_values", operand, label, draw(LABEL_LISTS), draw(st.booleans()))
        case "vectors":
            op = draw(st.sampled_from(arithmetic + COMPARISONS))
            operands = expressions(depth - 1, names, exact or op in ABRUPT)
            lhs, rhs = draw(operands), draw(operands)
            return Binary(op, lhs, rhs, op in COMPARISONS and draw(st.booleans()), draw(matchings()))
        case "sets":
            matching = VectorMatching(Cardinality.MANY_TO_MANY, draw(st.booleans()), draw(LABEL_LISTS))
            op = draw(st.sampled_from(["and", "unless", "or"]))
            if op == "or" and len(names) > 1:
                # A series whose name is to be dropped at some steps only has no obvious answer.
                half = len(names) // 2
                lhs = draw(expressions(depth - 1, names[:half], exact))
                return Binary("or", lhs, draw(expressions(depth - 1, names[half:], exact)), matching=matching)
            return Binary("and" if op == "or" else op, draw(below), draw(below), matching=matching)
        case "window":
            function = draw(st.sampled_from(EXACT_WINDOWS if exact else sorted(WINDOWS)))
            # Whether a value differs from the one before is not for values of which the last bit is open.
            below = expressions(depth - 1, names, exact or function in functions.DIFFERENCES)
            offset = draw(st.sampled_from([0, 0, -30_000, 130_000]))
            at = draw(st.sampled_from([None, None, None, 1_000_000, AtEdge.END]))
            if draw(st.booleans()):
                step = draw(st.sampled_from([None, 50_000, 90_000]))
                window: Expr = Subquery(draw(below), draw(st.sampled_from([60_000, 200_000])), step, offset, at)
            else:
                window = MatrixSelector(draw(selectors(names)), draw(st.sampled_from([53_000, 150_000])))
            return Call(function, (window,))
        case "element":
            return Call(draw(st.sampled_from(sorted(ELEMENTWISE))), (draw(expressions(depth - 1, names, True)),))
    return draw(selectors(names))


def of_window(name: str) -> Callable[[list, int, Call], list[Element]]:
    """A statistic of the values of each window; the last and the first value are still of the metric."""
    keeps = name in ("last_over_time", "first_over_time")

    def function(args: list, time: int, call: Call) -> list[Element]:
        windows = [w for w in args[0] if w.samples]
        values = [functions.STATISTICS[name]([value for _, value in w.samples]) for w in windows]
        return [
            Element(w.labels, value, w.drop_name or not keeps) for w, value in zip(windows, values, strict=True)
        ]

    return function


def of_range(name: str) -> Callable[[list, int, Call], list[Element]]:
    """A difference of the samples of each window, which depends on where the window lies."""

    def function(args: list, time: int, call: Call) -> list[Element]:
        results = [(w, functions.DIFFERENCES[name](w.samples, w.end, w.range_)) for w in args[0]]
        return [Element(w.labels, result, True) for w, result in results if result is not None]

    return function


def of_element(function: Callable[[float], float]) -> Callable[[list, int, Call], list[Element]]:
    return lambda args, time, call: [Element(e.labels, function(e.value), True) for e in args[0]]


EXACT_WINDOWS = (
    *("count_over_time", "present_over_time", "last_over_time", "first_over_time", "min_over_time"),
    *("max_over_time", "changes", "resets", "idelta"),
)
ELEMENTWISE = {
    "abs": abs,
    "ceil": lambda value: float(np.ceil(value)),
    "floor": lambda value: float(np.floor(value)),
    "sgn": lambda value: 1.0 if value > 0 else -1.0 if value < 0 else value,
}
WINDOWS = {
    **{name: of_window(name) for name in functions.STATISTICS if name != "mad_over_time"},
    **{name: of_range(name) for name in functions.DIFFERENCES},
}
FUNCTIONS = {**WINDOWS, **{name: of_element(function) for name, function in ELEMENTWISE.items()}}


def answered(result: QueryResult) -> dict[frozenset[tuple[str, str]], list[tuple[int, float]]]:
    value = result.value
    assert isinstance(value, Vector)
    return {
        frozenset(labels.items()): [
            (int(t), float(v)) for t, v, p in zip(result.steps, values, present, strict=True) if p
        ]
        for labels, values, present in zip(value.labels, value.values, value.present, strict=True)
    }


def same(a: float, b: float) -> bool:
    return a == b or (math.isnan(a) and math.isnan(b)) or math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-9)


@settings(deadline=None, max_examples=100)
@given(data(), expressions(3, NAMES))
def test_a_range_query_answers_as_the_oracle(series: list, expr: Expr) -> None:
    oracle = Oracle(series, functions=FUNCTIONS)
    engine = Engine(MemoryStore(series), EngineConfig())
    steps = np.arange(START, END + 1, STEP)
    try:
        wanted = oracle.range(expr, START, END, STEP)
    except OracleError as error:
        try:
            engine.evaluate(expr, "", steps, STEP)
        except EvalError:
            return
        raise AssertionError(f"the oracle refuses: {error}") from None
    got = answered(engine.evaluate(expr, "", steps, STEP))
    assert got.keys() == wanted.keys()
    for key, samples in wanted.items():
        assert [t for t, _ in got[key]] == [t for t, _ in samples], key
        assert all(same(a, b) for (_, a), (_, b) in zip(got[key], samples, strict=True)), (key, got[key], samples)
